"""Keeps processes running: starts each, waits until it is ready, starts it again when it dies, stops all in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relay.guardian import Guardian, Ward, stop

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY = 60.0  # seconds a process has to run before its next death counts as its first
SLOW = 10.0  # seconds after which it is told that a process is waited for
POLL = 0.01


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep. `ready` is asked until it says yes; lower stages are stopped first."""

    name: str
    spawn: Callable[[], subprocess.Popen[bytes]]
    ready: Callable[[], bool]
    stage: int = 0
    signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    patience: float = 300.0  # seconds it may take to become ready: after an unclean end, or on a busy machine


class NotReady(Exception):
    """A process ended, or took too long (`status` is None), before it was ready for the first time."""

    def __init__(self, child: Child, reason: str, status: int | None = None) -> None:
        super().__init__(f"{child.name} {reason}")
        self.child, self.reason, self.status = child, reason, status


class Supervisor:
    """Owns the children, and a guardian that ends them should this process be killed."""

    def __init__(self, tell: Callable[[str], None], keep: tuple[int, ...] = ()) -> None:
        """`tell` hears of deaths and restarts; `keep`: descriptors that stay open until the last child is gone."""
        self._tell, self._keep = tell, keep
        self.guardian = Guardian(keep)
        self._wards: dict[int, Ward] = {}
        self._processes: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[int]]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    async def start(self, child: Child) -> None:
        """Returns when the child is ready, and keeps it running from then on. Raises NotReady."""
        process = self._spawn(child)
        await self._until_ready(child, process)
        self._keepers.append(asyncio.create_task(self._look_after(child, process), name=child.name))

    async def start_all(self, children: Iterable[Child]) -> None:
        """The same for several at once."""
        try:
            async with asyncio.TaskGroup() as together:
                for child in children:
                    together.create_task(self.start(child))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """Stops every child, stage by stage; what outlives its grace is killed."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.to_thread(stop, list(self._wards.values()))
        self._reap()
        self.guardian.close()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def kill(self) -> None:
        """Somebody is in a hurry: no more grace for the first stages; the last one holds data, and is left its own."""
        last = max((ward.stage for ward in self._wards.values()), default=0)
        for ward in self._wards.values():
            if ward.stage < last:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(ward.pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """The process ids of the children, in the order they were started."""
        return list(self._wards)

    async def _look_after(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        pause = FIRST_PAUSE
        while True:
            since = time.monotonic()
            status = await self._ended(process)
            if time.monotonic() - since > STEADY:
                pause = FIRST_PAUSE
            self._tell(f"{child.name} {_how(status)}; it is started again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                process = self._spawn(child)
                await self._until_ready(child, process)
                self._tell(f"{child.name} is back")
            except NotReady:
                continue  # it ended again, which is told above, or it is slow and may still come
            except Exception as fault:
                self._tell(f"{child.name} could not be started: {fault}")

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        process = child.spawn()
        ward = Ward(child.stage, process.pid, child.signal, child.grace)
        self._wards[process.pid] = ward
        self._processes[process.pid] = process, asyncio.get_running_loop().create_future()
        self.guardian.watch(ward)
        return process

    async def _until_ready(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        began, told = time.monotonic(), False
        while not child.ready():
            if process.returncode is not None:
                raise NotReady(child, f"{_how(process.returncode)} while it was starting", process.returncode)
            waited = time.monotonic() - began
            if waited > child.patience:
                raise NotReady(child, f"was not ready within {child.patience:g} seconds")
            if waited > SLOW and not told:
                self._tell(f"{child.name} is still starting; it is waited for, up to {child.patience:g} s")
                told = True
            await asyncio.sleep(POLL)

    async def _ended(self, process: subprocess.Popen[bytes]) -> int:
        if process.returncode is not None:
            return process.returncode
        return await asyncio.shield(self._processes[process.pid][1])

    def _reap(self) -> None:
        """SIGCHLD: some child ended, or the guardian did."""
        for pid, (process, end) in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[pid], self._wards[pid]
                self.guardian.forget(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what it left behind
                if not end.done():
                    end.set_result(process.returncode)
        if self.guardian.dead() and not self._stopping:
            self.guardian.close()
            self.guardian = Guardian(self._keep)
            for ward in self._wards.values():
                self.guardian.watch(ward)
            self._tell("the guardian ended; another one watches now")


def _how(status: int) -> str:
    """`ended with status 1`, `was killed by SIGSEGV`."""
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
