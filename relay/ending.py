"""Tasks that run until they are told to end: how they wait meanwhile, and how they are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any

AGAIN = 2.0  # s


async def until(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, for so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels these until they have ended; what they raise is nobody's any more.

    Once is not enough: before Python 3.12 a cancel is lost that comes in the moment in which a library's
    `asyncio.wait_for` gets what it waited for.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
