"""A test that hangs fails, says what it waits for, and holds up none of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

HANGS = """
import asyncio, subprocess, pytest
from tests import hanging
hanging.PATIENCE = 0.2
async def forever():
    await asyncio.Event().wait()
@pytest.fixture
async def never():
    await forever()
async def test_in_a_task():
    async with asyncio.TaskGroup() as group:
        group.create_task(forever())
async def test_in_a_fixture(never): ...
def test_for_a_process():
    subprocess.run(["sleep", "60"])
def test_of_the_others(): ...
"""


def test_a_test_that_hangs_fails_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(HANGS)
    options = ["-c", "/dev/null", "--rootdir", tmp_path, "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"]
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "tests.hanging", *options, file]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert "2 failed, 1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "Hung: not within 0.2 s" in done.stdout
    for line, where in ((6, "forever"), (9, "never"), (11, "test_in_a_task")):
        assert f'File "{file}", line {line}, in {where}' in done.stdout, done.stdout
    assert '>       subprocess.run(["sleep", "60"])' in done.stdout
