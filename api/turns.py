"""Whose turn it is to ask the store for much: each tenant has a few at once, and mail is taken in meanwhile.

Such calls have connections of their own: whatever tenants look for, and however often, a submission and a probe find
theirs free.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.problems import too_many
from relay.store import db

CONNECTIONS = 3  # to PostgreSQL, of one process
EACH = 2  # of them: of one tenant, so that the next one need not wait
MOST = 500  # calls of one tenant, with those that wait for their turn
PATIENCE = 10.0  # s that a call waits for its turn
SLOWEST = 5.0  # s for one statement

Tenant = str | int
"""An account, or the token that is for all of them."""


class Turns:
    """Hands out the connections of `pool`. Those of one tenant who come too many wait for each other."""

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._calls: Counter[Tenant] = Counter()
        self._rooms: dict[Tenant, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def of(self, tenant: Tenant) -> AsyncIterator[db.Connection]:
        """A connection; 429 where too many calls of the tenant wait, or wait too long, 503 for what takes too long."""
        if self._calls[tenant] >= MOST:
            raise too_many(f"{MOST} of your calls wait for their turn already; ask again in a second", most=MOST)
        self._calls[tenant] += 1
        room = self._rooms.setdefault(tenant, asyncio.Semaphore(EACH))
        try:
            await _enter(room)
            try:
                async with db.patient(self._pool) as conn:
                    yield conn
            finally:
                room.release()
        finally:
            self._calls[tenant] -= 1
            if not self._calls[tenant]:
                del self._calls[tenant], self._rooms[tenant]


async def _enter(room: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await room.acquire()
    except TimeoutError:
        words = f"Your earlier calls have kept this one waiting for {PATIENCE:g} s; ask again in a second"
        raise too_many(words, most=EACH) from None
