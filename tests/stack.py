"""Postferry's roles as processes of a test: each may be killed, frozen and started again; nothing outlives the test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from relay import local
from relay.guardian import Guardian, Ward
from relay.ready import VARIABLE, Notice
from relay.settings import Settings, read

MODULES = {
    "smtp": "relay.smtpd",
    "api": "api",
    "worker": "workers",
    "scheduler": "workers.scheduler",
    "notify": "workers.notify",
    "mailbox": "workers.mailbox",
}
ALL = tuple(MODULES)
PATIENCE = 60.0  # s for what takes moments: a machine may be busy, or stand still for a while
LOOK = 0.01  # s between two looks at what has no event to wait for
FLEETING: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Options of a PostgreSQL whose data nobody misses after a power cut."""


class Stack:
    """`worker`, or `worker-2` for one more of the kind. Without an event loop, so that several tests may share it."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self.environ = {"POSTFERRY_METRICS_DIR": str(folder / "metrics"), **environ}
        self.settings: Settings = read(self.environ, dotenv=None)
        self._folder = folder
        self._guardian = Guardian()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._read: dict[Path, int] = {}

    async def start(self, *names: str, through: tuple[str, ...] = (), **changed: str) -> None:
        """Those of these roles that do not run, until they are ready; `changed`: settings of theirs alone.

        `through`: a module that runs the role's in its way, and what it is told (name=value) in the environment.
        """
        notices = {name: self._spawn(name, changed, through) for name in names if not self.runs(name)}
        for name, notice in notices.items():
            await until(lambda name=name, notice=notice: notice.heard() or not self.runs(name), PATIENCE)
            notice.close()
            assert self.runs(name), f"{name} ended with status {self._processes[name].returncode} at its start"

    def runs(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def status(self, name: str) -> int | None:
        """How it ended, as subprocess says it; None when it runs."""
        return self._processes[name].poll()

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    async def kill(self, *names: str) -> None:
        """SIGKILL."""
        for name in names:
            self.signal(name, signal.SIGKILL)
        for name in names:
            await self._ended(name)

    async def stop(self, name: str) -> None:
        """SIGTERM; the role ends in good order."""
        self.signal(name, signal.SIGTERM)
        assert await self._ended(name) == 0

    def signal(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)

    def close(self) -> None:
        for name, process in self._processes.items():
            if self.runs(name):
                process.kill()
            process.wait()
            self._guardian.forget(process.pid)
        self._guardian.close()

    def said(self) -> str:
        """What the roles logged since this was last asked."""
        parts = []
        for log in sorted(self._folder.glob("*.log")):
            text = log.read_bytes()
            if new := text[self._read.get(log, 0) :]:
                parts.append(f"--- {log.stem}\n{new[-20_000:].decode(errors='replace')}")
            self._read[log] = len(text)
        return "\n".join(parts)

    def tell(self) -> None:
        """Prints the log, which pytest shows when the test failed; a traceback in it fails any test."""
        said = self.said()
        print(said)
        assert "Traceback" not in said

    def _spawn(self, name: str, changed: Mapping[str, str], through: tuple[str, ...]) -> Notice:
        notice = Notice(self._folder / f"{name}.sock")
        given = {f"POSTFERRY_{key.upper()}": value for key, value in changed.items()}
        given |= dict(told.split("=", 1) for told in through[1:])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("POSTFERRY_")}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *through[:1], MODULES[name.partition("-")[0]]],
                env={**kept, **self.environ, **given, VARIABLE: str(notice.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        self._guardian.watch(Ward(0, process.pid, signal.SIGKILL, 1))
        return notice

    async def _ended(self, name: str) -> int:
        process = self._processes[name]
        await until(lambda: process.poll() is not None, PATIENCE)
        self._guardian.forget(process.pid)
        return int(process.returncode)


def wait_ready(server: local.Server, process: subprocess.Popen[bytes]) -> None:
    """Returns once the server answers; raises LocalError when it ends before that or takes too long."""
    until = time.monotonic() + PATIENCE
    while not server.ready():
        if process.poll() is not None:
            raise local.LocalError(f"{server.name} ended with status {process.returncode} while it was starting")
        if time.monotonic() > until:
            raise local.LocalError(f"{server.name} did not answer within {PATIENCE:g} seconds")
        time.sleep(0.01)


class Machine:
    """A PostgreSQL or Valkey of one test's own, to be cut off and brought back."""

    def __init__(self, server: local.Server, log: Path) -> None:
        self.server, self._log = server, log
        self._guardian = Guardian()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Unless it runs, and is not frozen; returns once it answers."""
        if self._process is not None:
            self.freeze(False)
            return
        self.server.prepare()
        with self._log.open("ab") as log:
            self._process = self.server.start(log.fileno())
        self._guardian.watch(Ward(0, self._process.pid, signal.SIGKILL, 1))
        wait_ready(self.server, self._process)

    def cut(self, how: int) -> None:
        """Ends it by this signal, and waits for that."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(PATIENCE)
        self._guardian.forget(self._process.pid)
        self._process = None

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def forget(self) -> None:
        """It ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self._guardian.forget(self._process.pid)
            self._process = None

    def freeze(self, frozen: bool, sessions: Sequence[int] = ()) -> None:
        """It keeps its connections, and answers nothing; `sessions`: processes of its own that go with it."""
        assert self._process is not None
        for pid in (self._process.pid, *sessions):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self.cut(self.server.signal)
        self._guardian.close()


async def until(true: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """Looks again and again: for what is said by nobody."""
    end = time.monotonic() + seconds
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end, f"not within {seconds:g} s"
        await asyncio.sleep(LOOK)
