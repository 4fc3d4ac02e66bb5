"""Ends our processes when their supervisor cannot: a small process of its own that outlives a SIGKILL of it.

The supervisor holds the other end of the guardian's standard input and writes there what it starts and what has ended.
The end of that stream, however it comes, means that the supervisor is gone: what is still listed is then stopped, in
its order. A parent-death signal was the alternative; it is Linux alone, does not reach grandchildren, and is lost when
a child changes its identity. The guardian inherits the supervisor's lock on the data folder, so that the next start
waits until the last process is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

SPARED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what ends others must not end the one that cleans up

LAST_MOMENT = 5.0  # seconds for a SIGKILL to do its work


class Ward(NamedTuple):
    """One process we watch, the leader of its process group. Those of a lower `stage` are stopped first."""

    stage: int
    pid: int
    signal: int
    grace: float


class Guardian:
    """The supervisor's side: starts the guardian and tells it what to watch."""

    def __init__(self, keep: Sequence[int] = ()) -> None:
        """`keep`: file descriptors that the guardian holds open as long as it lives (a lock)."""
        command = [sys.executable, "-I", "-S", __file__]
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, SPARED
        )  # inherited: it is deaf to these from its first moment
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=keep, start_new_session=True, text=True
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, ward: Ward) -> None:
        self._tell(f"watch {ward.stage} {ward.pid} {ward.signal} {ward.grace}")

    def forget(self, pid: int) -> None:
        self._tell(f"forget {pid}")

    def dead(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the guardian, and with it whatever it still watches."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def stop(wards: Iterable[Ward]) -> None:
    """Stops the wards stage by stage: each its own signal and grace, then SIGKILL for its whole process group."""
    for _, stage in groupby(sorted(wards), key=lambda ward: ward.stage):
        together = [(ward, _handle(ward.pid)) for ward in stage]
        for ward, _ in together:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ward.pid, ward.signal)
        started = time.monotonic()
        for ward, handle in together:
            _wait(ward.pid, handle, started + ward.grace)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ward.pid, signal.SIGKILL)
            _wait(ward.pid, handle, time.monotonic() + LAST_MOMENT)
            if handle is not None:
                os.close(handle)


def _handle(pid: int) -> int | None:
    """A pidfd, which tells the end of a process even where nobody reaps it; None where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _wait(pid: int, handle: int | None, until: float) -> None:
    if handle is not None:
        select.select([handle], [], [], max(0.0, until - time.monotonic()))
        return
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:  # a child of ours is gone only when it is reaped
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _told(lines: Iterable[str]) -> Iterator[Ward]:
    """What is still watched when the stream ends."""
    wards: dict[int, Ward] = {}
    for line in lines:
        match line.split():
            case ["watch", stage, pid, number, grace]:
                wards[int(pid)] = Ward(int(stage), int(pid), int(number), float(grace))
            case ["forget", pid]:
                wards.pop(int(pid), None)
    yield from wards.values()


if __name__ == "__main__":
    stop(list(_told(sys.stdin)))
