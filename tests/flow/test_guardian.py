"""A supervisor that is killed leaves no orphan: shown with real processes and a real SIGKILL."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay.guardian import Guardian, Ward, stop

# Says on `out` what it is, then what stopped it; `deaf` ones ignore SIGTERM and have a child of their own.
SLEEPER = r"""
import os, signal, sys, time
name, out, deaf = sys.argv[1], sys.argv[2], sys.argv[3:] == ["deaf"]
def say(word):
    with open(out, "a") as file:
        file.write(f"{name} {word}\n")
def heard(*_):
    say("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else heard)
if deaf and os.fork() == 0:
    name += "-child"
os.write(1, b"%d\n" % os.getpid())
while True:
    time.sleep(60)
"""

# A supervisor with two children, in two stages, that then waits for the end.
SUPERVISOR = """
import subprocess, sys, time
from relay.guardian import Guardian, Ward
program, out, *keep = sys.argv[1:]
guardian = Guardian([int(fd) for fd in keep])
for stage, name in ((1, "late"), (0, "early")):
    child = subprocess.Popen([sys.executable, "-c", program, name, out], stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    guardian.watch(Ward(stage, child.pid, 15, 30))
    print(child.pid, flush=True)
time.sleep(60)
"""


def sleeper(tmp_path: Path, name: str, *how: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that sleeps, once it is ready for its signal, and the pids of its group."""
    command = [sys.executable, "-c", SLEEPER, name, str(tmp_path / "out"), *how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    return process, [int(process.stdout.readline()) for _ in range(2 if how else 1)]


def wait_gone(pid: int, seconds: float = 60) -> bool:
    """Whether the process ends in time; it may be nobody's child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


@pytest.fixture
def supervisor(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    command = [sys.executable, "-c", SUPERVISOR, SLEEPER, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(process.stdout.readline()) for _ in range(2)]


def test_a_killed_supervisor_leaves_no_orphan(supervisor: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, children = supervisor
    process.kill()
    process.communicate()
    assert [wait_gone(pid) for pid in children] == [True, True]


def test_its_children_are_stopped_stage_by_stage(
    supervisor: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, children = supervisor
    process.kill()
    process.communicate()
    assert all(wait_gone(pid) for pid in children)
    assert (tmp_path / "out").read_text() == "early stopped\nlate stopped\n"


def test_the_lock_is_held_until_the_last_child_is_gone(tmp_path: Path) -> None:
    mine = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(mine, fcntl.LOCK_EX)
    process, _ = sleeper(tmp_path, "slow", "deaf")
    guardian = Guardian([mine])
    guardian.watch(Ward(0, process.pid, signal.SIGTERM, 0.3))
    os.close(mine)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    guardian.close()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    process.communicate()


def test_what_was_forgotten_lives_on(tmp_path: Path) -> None:
    process, _ = sleeper(tmp_path, "free")
    guardian = Guardian()
    guardian.watch(Ward(0, process.pid, signal.SIGTERM, 30))
    guardian.forget(process.pid)
    guardian.close()
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_the_deaf_are_killed_with_their_children(tmp_path: Path) -> None:
    process, pids = sleeper(tmp_path, "deaf", "deaf")
    stop([Ward(0, process.pid, signal.SIGTERM, 0.1)])
    assert [wait_gone(pid) for pid in pids] == [True, True]
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def test_the_guardian_does_not_heed_ctrl_c(tmp_path: Path) -> None:
    process, _ = sleeper(tmp_path, "kept")
    guardian = Guardian()
    guardian.watch(Ward(0, process.pid, signal.SIGTERM, 30))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian.pid, number)
    assert not guardian.dead()
    guardian.close()
    assert process.wait() == 0
    process.communicate()
