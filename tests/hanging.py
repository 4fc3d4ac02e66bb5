"""A test that hangs fails and says where it waits; without this it would hold up the whole run and say nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import pytest

PATIENCE = 300.0  # s for a test with what it sets up; the longest takes a tenth of that on a slow machine
AGAIN = 20.0  # s: where it was swallowed, as by a thread that is joined


class Hung(Exception):
    """Raised wherever the main thread is; names what each task of its event loop waits for."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hung(*_: object) -> None:
    waits = []
    with suppress(RuntimeError):  # no event loop runs
        waits = [line for task in asyncio.all_tasks() for line in (f"{task.get_name()}:", *_places(task.get_coro()))]
    raise Hung("\n".join([f"not within {PATIENCE:g} s", *waits]))


def _places(awaited: Any) -> Iterator[str]:
    """From the task's own coroutine to what it waits for in the end."""
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_qualname}'
        awaited = awaited.cr_await


signal.signal(signal.SIGALRM, _hung)
