"""Queue depth for the metrics, at a bounded cost."""

from __future__ import annotations

import asyncio

from relay import metrics
from relay.core.errors import StoreAway
from relay.store import db, queue


class Depth:
    """Queue depth for the metrics: read anew only after fifty times as long as the last reading took.

    So a scraper never makes the store busy, however much waits. While the store is away there is no depth, and the
    other metrics are still shown.
    """

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._rows: list[tuple[str, str, int]] = []
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def read(self) -> list[tuple[str, str, int]]:
        clock = asyncio.get_running_loop().time
        async with self._lock:
            begun = clock()
            if begun >= self._until:
                try:
                    async with db.connection(self._pool) as conn:
                        self._rows = await queue.gauge(conn)
                except StoreAway:
                    metrics.STORE_ERRORS.inc()
                    self._rows = []
                self._until = clock() + 50 * (clock() - begun)
            return self._rows
