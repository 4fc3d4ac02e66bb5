"""Ends tasks that would run for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

AGAIN = 2.0  # s


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels these until they have ended; what they raise is nobody's any more.

    Once is not enough: before Python 3.12 a cancel is lost that comes in the moment in which `asyncio.wait_for` gets
    what it waited for, as where a pool hands out a connection.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
