"""The supervisor over real processes: ready, restarted, stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from relay import supervisor as module
from relay.ready import Notice
from relay.supervisor import Child, NotReady, Supervisor

# Announces itself, notes its signal in a file, and may fail as it is told.
ROLE = r"""
import os, signal, sys, threading
from relay import ready
name, out, how = sys.argv[1:]
def heard(*_):
    with open(out, "a") as file:
        file.write(name + "\n")
    done.set()
done = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "deaf" else heard)
if how == "broken":
    sys.exit(3)
if how != "silent":
    ready.announce()
while not done.wait(0.05):
    pass
"""


class Told(list[str]):
    """What the supervisor says, and a way to wait for a word of it."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.append(text)
        self._news.set()

    async def until(self, word: str) -> None:
        async with asyncio.timeout(60):
            while not any(word in text for text in self):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def supervisor(told: Told, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    supervisor = Supervisor(told)
    yield supervisor
    await supervisor.stop()


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    notices: list[Notice] = []

    def make(name: str, how: str = "well", **options: object) -> Child:
        notice = Notice(tmp_path / name)
        notices.append(notice)
        command = [sys.executable, "-c", ROLE, name, str(tmp_path / "out"), how]

        def spawn() -> subprocess.Popen[bytes]:
            environ = {**os.environ, "NOTIFY_SOCKET": str(notice.path)}
            return subprocess.Popen(command, env=environ, start_new_session=True)

        return Child(name, spawn, notice.heard, **options)  # type: ignore[arg-type]

    yield make
    for notice in notices:
        notice.close()


async def test_a_child_is_started_when_it_says_so(supervisor: Supervisor, role: Callable[..., Child]) -> None:
    await supervisor.start(role("worker"))
    assert len(supervisor.processes()) == 1


async def test_a_child_that_ends_at_its_start_is_named(supervisor: Supervisor, role: Callable[..., Child]) -> None:
    with pytest.raises(NotReady, match="worker ended with status 3 while it was starting"):
        await supervisor.start_all([role("api"), role("worker", "broken")])


async def test_a_child_that_never_says_so_is_given_up(supervisor: Supervisor, role: Callable[..., Child]) -> None:
    with pytest.raises(NotReady, match=r"worker was not ready within 0\.2 seconds"):
        await supervisor.start(role("worker", "silent", patience=0.2))


async def test_a_child_that_is_slow_is_told_of_and_waited_for(
    supervisor: Supervisor, role: Callable[..., Child], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW", 0)
    slow = role("worker", "silent")
    await supervisor.start(Child("worker", slow.spawn, lambda: told != [], patience=5))
    assert told == ["worker is still starting; it is waited for, up to 5 s"]


async def test_a_child_that_dies_is_started_again(
    supervisor: Supervisor, role: Callable[..., Child], told: Told
) -> None:
    await supervisor.start(role("worker"))
    (first,) = supervisor.processes()
    os.kill(first, signal.SIGKILL)
    await told.until("worker is back")
    assert told == ["worker was killed by SIGKILL; it is started again in 0.05 s", "worker is back"]
    assert supervisor.processes() != [first]


async def test_each_death_in_a_row_waits_longer(supervisor: Supervisor, role: Callable[..., Child], told: Told) -> None:
    await supervisor.start(role("worker"))
    for pause in ("0.05", "0.1", "0.2"):
        os.kill(supervisor.processes()[0], signal.SIGKILL)
        await told.until(f"again in {pause} s")
        await told.until("worker is back")
        told.clear()


async def test_a_start_that_fails_is_tried_again(
    supervisor: Supervisor, role: Callable[..., Child], told: Told
) -> None:
    good = role("worker")
    failures = iter([OSError("the disk is full")])

    def spawn() -> subprocess.Popen[bytes]:
        for failure in failures if supervisor.processes() != [] or told else ():
            raise failure
        return good.spawn()

    await supervisor.start(Child("worker", spawn, good.ready))
    os.kill(supervisor.processes()[0], signal.SIGKILL)
    await told.until("worker could not be started: the disk is full")
    await told.until("worker is back")


async def test_lower_stages_are_stopped_first(
    supervisor: Supervisor, role: Callable[..., Child], tmp_path: Path
) -> None:
    await supervisor.start_all([role("server", stage=2), role("worker", stage=0), role("sink", stage=1)])
    await supervisor.stop()
    assert (tmp_path / "out").read_text().split() == ["worker", "sink", "server"]


async def test_the_deaf_are_killed_after_their_grace(supervisor: Supervisor, role: Callable[..., Child]) -> None:
    await supervisor.start(role("worker", "deaf", grace=0.1))
    (pid,) = supervisor.processes()
    await supervisor.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_hurry_kills_the_roles_and_spares_the_servers(
    supervisor: Supervisor, role: Callable[..., Child], tmp_path: Path
) -> None:
    await supervisor.start_all([role("server", stage=2), role("worker", "deaf", stage=0, grace=60)])
    stopping = asyncio.ensure_future(supervisor.stop())
    supervisor.kill()
    async with asyncio.timeout(60):
        await stopping
    assert (tmp_path / "out").read_text().split() == ["server"]


async def test_a_guardian_that_dies_is_replaced(supervisor: Supervisor, role: Callable[..., Child], told: Told) -> None:
    await supervisor.start(role("worker"))
    first = supervisor.guardian.pid
    os.kill(first, signal.SIGKILL)
    await told.until("another one watches")
    assert supervisor.guardian.pid != first
    assert not supervisor.guardian.dead()
