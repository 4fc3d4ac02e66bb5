"""A pixel was fetched: kept as a row, after the picture was answered. Judging it comes later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from relay import metrics
from relay.batch import Batcher
from relay.core import pixel
from relay.core.errors import StoreAway
from relay.store import db, fetches
from relay.store.fetches import Fetch

MOST_WAITING = 20_000  # fetches in memory while the store is slow; those that come then are counted and dropped

_log = logging.getLogger("postferry.opens")


class Opens:
    """Records fetches in groups. `keys` are those that sign pixels, newest first."""

    def __init__(self, pool: db.Pool, keys: Sequence[bytes]) -> None:
        self._pool, self._keys = pool, keys
        self._batcher: Batcher[Fetch, bool] = Batcher(self._commit, most=1000)
        self._waiting = 0

    def fetched(self, token: str, method: str, address: str, user_agent: str) -> None:
        """Returns at once. A token that is not ours is counted, and costs no more than reading it."""
        delivery = pixel.read(self._keys, token)
        if delivery is None or self._waiting >= MOST_WAITING:
            metrics.FETCHES.labels("unknown" if delivery is None else "dropped").inc()
            return
        metrics.FETCHES.labels("ours").inc()
        self._waiting += 1
        self._batcher.add(Fetch(delivery, method, address, user_agent)).add_done_callback(self._stored)

    async def close(self) -> None:
        """Lets what is running end."""
        await self._batcher.drain()

    async def _commit(self, batch: list[Fetch]) -> Sequence[bool]:
        metrics.COMMIT_SIZE.labels("fetch").observe(len(batch))
        async with db.connection(self._pool) as conn:
            await fetches.insert(conn, batch)
        return [True] * len(batch)

    def _stored(self, future: asyncio.Future[bool]) -> None:
        self._waiting -= 1
        error = future.exception()
        if isinstance(error, StoreAway):
            _log.warning("a pixel fetch is lost: the store is away")
        elif error is not None:
            _log.error("a pixel fetch is lost: %s", error)
