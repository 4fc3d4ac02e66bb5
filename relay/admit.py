"""Admit: a worker process takes leases while it has room, works on them at once, and ends them when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from relay.deliver import Deliverer, unawaited
from relay.settings import Settings

log = logging.getLogger("postferry.deliver")

BEGINNING = 8  # leases about to be begun: all that a process keeps from others while PostgreSQL is away from it
GRACE = 6.0  # s that transactions under way have when the process stops


class Admission:
    """One of each worker process: `worker_leases` at once."""

    def __init__(self, deliverer: Deliverer, settings: Settings) -> None:
        self._deliverer = deliverer
        self._room = asyncio.Semaphore(settings.worker_leases)
        self._beginning = asyncio.Semaphore(BEGINNING)
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, lease: int) -> None:
        """Returns once there was room to begin the lease: a hanging upstream holds no thread of the broker's.

        And nobody is about to begin others for long: a host that is cut off from PostgreSQL would take them all from
        the broker, and from hosts that are not. So would one that is cut off from the world: it has not begun then
        before its lease has ended.
        """
        await self._room.acquire()
        await self._beginning.acquire()
        begun, ended = self._beginning.release, unawaited
        if self._deliverer.cut:
            begun, ended = ended, begun
        task = asyncio.create_task(self._deliverer.deliver(lease, begun))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(task, ended))

    def stop(self) -> None:
        """Begins nothing more: transactions that are under way end, the rest is given back."""
        self._deliverer.stop()

    async def close(self) -> None:
        """After `stop`: what does not end in time is left to expire."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE)
            for task in late:
                task.cancel()
        await self._deliverer.close()

    def _done(self, task: asyncio.Task[None], ended: Callable[[], None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        ended()
        if not task.cancelled() and (error := task.exception()):
            log.error("a lease ended by a fault of ours", exc_info=error)
