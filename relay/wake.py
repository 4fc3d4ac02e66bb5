"""Tells the schedulers which accounts have something due: soon, once for all that came meanwhile, never waited for."""

from __future__ import annotations

import asyncio

from relay.core.errors import StoreAway
from relay.store import db, turns

AFTER = 0.002  # s; what is accepted or finished in the same moment shares one wake-up
SPACING = 0.02  # s between two of them: a scheduler that was just woken gathers as long


class Waker:
    """One of each process that makes work or room for work."""

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._accounts: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def wake(self, account: str) -> None:
        self._accounts.add(account)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._wake())

    async def close(self) -> None:
        """Lets a wake-up under way end."""
        if self._task is not None:
            await self._task

    async def _wake(self) -> None:
        while self._accounts:
            await asyncio.sleep(AFTER)
            accounts, self._accounts = self._accounts, set()
            try:
                async with db.connection(self._pool) as conn:
                    await turns.wake(conn, accounts)
            except StoreAway:
                return  # the scheduler's own pulse finds what is due
            await asyncio.sleep(SPACING)
