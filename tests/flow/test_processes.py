"""The processes of a role: one that fails says so and ends, whatever it left behind, and so does a role of several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

# Leaves a task behind that heeds no cancel, as an open pool is one, and fails after so many seconds.
ROLE = r"""
import asyncio, logging, sys
from relay import processes
count, after = int(sys.argv[1]), float(sys.argv[2])
processes.LAST = 0.3
logging.basicConfig()
left = []
async def stay():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
async def main(stopping):
    left.append(asyncio.create_task(stay()))
    await asyncio.sleep(after)
    raise ValueError("the port is made of cheese")
sys.exit(processes.run(count, main))
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_role_that_fails_says_so_and_ends(count: int) -> None:
    command = [sys.executable, "-c", ROLE, str(count), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)

    assert done.returncode == 1
    assert "stopped by an unexpected error: the port is made of cheese" in done.stderr


def test_a_process_that_fails_later_is_started_again() -> None:
    late = ROLE.replace("processes.LAST = 0.3", "processes.LAST, processes.START = 0.3, 0.1")
    role = subprocess.Popen([sys.executable, "-c", late, "2", "0.5"], stderr=subprocess.PIPE, start_new_session=True)
    assert role.stderr
    try:
        line, until = b"", time.monotonic() + 60
        while b"is started again" not in line and time.monotonic() < until:
            line = role.stderr.readline()
        assert b"is started again" in line
        assert role.poll() is None
    finally:
        os.killpg(role.pid, signal.SIGKILL)
        role.communicate()


# Is told to stop, and waits for what does not come, as a statement does when PostgreSQL is frozen.
WAITING = r"""
import asyncio, logging, os, sys
from relay import processes
processes.END = 0.3
logging.basicConfig()
async def main(stopping):
    os.write(1, b"begun\n")
    await asyncio.Event().wait()
sys.exit(processes.run(int(sys.argv[1]), main))
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_role_that_is_told_to_stop_waits_for_nothing_for_ever(count: int) -> None:
    role = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert role.stdout
        for _ in range(count):
            assert role.stdout.readline() == "begun\n"
        role.terminate()
        _, said = role.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(role.pid, signal.SIGKILL)
        role.communicate()
    assert role.returncode == 0
    assert said.count("ended in the middle: what it waited for did not come within 0.3 s") == count
