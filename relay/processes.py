"""Several processes of one role under a small parent: one that dies is started again, and all end with the parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import uvloop

from relay.core.errors import Unmigrated

log = logging.getLogger("postferry.processes")

GRACE = 10.0  # s that a process has to end in good order
QUICK = 1.0  # s; one that dies sooner is not started again at once
END = 9.0  # s of it after which one that waits, as for a PostgreSQL that answers nothing, ends in the middle
LAST = 5.0  # s that what failed has to let go of what it holds
CONFIG = 78  # sysexits.h: who ends with it is not started again, for it would end so again
START = 5.0  # s; who fails so soon would fail again, and whoever started the role waits to hear of it

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(count: int, main: Main) -> int:
    """Runs `main(stopping)` in `count` processes until SIGTERM or SIGINT; a single one is this very process."""
    if count == 1:
        return _serve(main, None)
    return _Parent(count, main).run()


def _serve(main: Main, parent: int | None) -> int:
    """One process: `stopping` is set by a signal, or by the end of the parent (its end of the pipe `parent` closes).

    Returns 1 for a `main` that failed, 78 for one that had no schema to work with. That is told, and the process ends,
    whatever it left behind: a task that heeds no cancel (a pool's may not) would keep the loop for ever, and no signal
    would be listened to any more. One that was told to stop and waits for what does not come ends too: leases and
    claims of what is in the middle end by themselves.
    """
    code = 0

    def leave() -> None:
        log.warning("ended in the middle: what it waited for did not come within %g s", END)
        os._exit(code)

    giving_up, leaving = threading.Timer(LAST, lambda: os._exit(code)), threading.Timer(END, leave)
    giving_up.daemon = leaving.daemon = True

    async def serve() -> None:
        nonlocal code
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            stopping.set()
            if leaving.ident is None:  # a parent says it again and again
                leaving.start()

        def orphaned() -> None:
            loop.remove_reader(parent or 0)
            stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if parent is not None:
            loop.add_reader(parent, orphaned)
        try:
            await main(stopping)
        except Unmigrated as fault:
            code = CONFIG
            log.critical("%s; %s", fault, fault.advice)
            giving_up.start()
        except Exception as error:
            code = 1
            log.critical("stopped by an unexpected error: %s", error, exc_info=True)
            giving_up.start()

    uvloop.run(serve())
    giving_up.cancel()
    leaving.cancel()
    return code


class _Parent:
    def __init__(self, count: int, main: Main) -> None:
        self._main = main
        self._born: dict[int, float] = {}
        self._alive, self._held = os.pipe()
        self._stopping = False
        self._count = count
        self._code = 0
        self._trusts_from = time.monotonic() + START

    def run(self) -> int:
        wake, waker = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for _ in range(self._count):
            self._start()
        until = float("inf")
        while self._born:
            select.select([wake], [], [], 0.2 if self._stopping else None)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._reap()
            if self._stopping:
                until = min(until, time.monotonic() + GRACE)
                self._tell(signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
        return self._code

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_child()
        self._born[pid] = time.monotonic()

    def _become_child(self) -> None:
        """Never returns: what follows the fork belongs to the parent."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._held)
            code = _serve(self._main, self._alive)
        except Exception:
            log.exception("a process ended badly")
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                born = self._born.pop(pid, 0.0)
                if not self._stopping and os.WIFEXITED(status) and self._is_final(os.WEXITSTATUS(status)):
                    self._code, self._stopping = os.WEXITSTATUS(status), True
                elif not self._stopping:
                    log.error("process %s ended with status %s and is started again", pid, status)
                    if time.monotonic() - born < QUICK:
                        time.sleep(QUICK)
                    self._start()

    def _is_final(self, code: int) -> bool:
        return code == CONFIG or time.monotonic() < self._trusts_from

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _tell(self, number: int) -> None:
        for pid in self._born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
