"""Several jobs in one process: rooms that run side by side, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class Room(Protocol):
    """One job of the role. It waits PostgreSQL's absences out by itself."""

    async def run(self, stopping: asyncio.Event) -> None: ...


async def together(rooms: Sequence[Room], stopping: asyncio.Event) -> None:
    """All rooms at once. One that fails stops the others in good order, and then the process: it is started again."""
    running = [asyncio.create_task(room.run(stopping)) for room in rooms]
    for task in running:
        task.add_done_callback(lambda done: stopping.set() if not done.cancelled() and done.exception() else None)
    await stopping.wait()
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()
