"""A run that is ended early, by Ctrl-C or SIGTERM, still takes down what it has built."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


def to_the_end(work: Coroutine[Any, Any, Result], folder: Path) -> Result:
    """Its result. What is ended early leaves no folder either."""
    try:
        return asyncio.run(_to_the_end(work))
    except SystemExit:
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """A signal cancels it; once it has cleaned up, the process ends with the status that shells expect."""
    task = asyncio.create_task(work)
    heard: list[int] = []

    def end(number: int) -> None:
        if not heard:  # impatience does not hurry it
            task.cancel()
        heard.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not heard:
            raise
        print("ended early, and cleaned up", file=sys.stderr)
        raise SystemExit(128 + heard[0]) from None
