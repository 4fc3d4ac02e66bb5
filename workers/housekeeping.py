"""Housekeeping, beside the scheduler's pulse: what need not be kept leaves, in small batches. No mail waits for it."""

from __future__ import annotations

import asyncio
import logging

from relay import metrics
from relay.core.errors import StoreAway
from relay.settings import Settings
from relay.store import db, messages, outcomes, retention

log = logging.getLogger("postferry.scheduler")

EVERY = 60.0  # s
BATCH = 100  # messages
SHARE = 0.25  # of the time goes into old mail: a rest after each batch lets others have the disk, and the cores


class Housekeeper:
    """Forgets old mail, spent idempotency keys, and slots that left every window; folds those that only a day counts.

    Any number may run side by side.
    """

    def __init__(self, pool: db.Pool, settings: Settings, *, every: float = EVERY, batch: int = BATCH) -> None:
        self._pool, self._days, self._every, self._batch = pool, settings.retention_days, every, batch
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            until = self._clock() + self._every
            try:
                async with db.connection(self._pool) as conn:
                    await outcomes.forget_slots(conn)
                    await outcomes.fold_slots(conn)
                    await messages.forget_keys(conn)
                    for account in await retention.orphaned(conn):
                        await retention.forget_mail(conn, account, self._batch)
                if self._days:
                    await self._purge(until)
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                log.warning("housekeeping waits for PostgreSQL: %s", error)
            except Exception:  # the next round may come through
                log.exception("housekeeping is put off by a fault of ours")
            await asyncio.sleep(max(until - self._clock(), 0))

    async def _purge(self, until: float) -> None:
        """Old mail, batch after batch, until there is no more of it or the other chores come round."""
        more, last = True, retention.FIRST
        while more and (begun := self._clock()) < until:
            async with db.connection(self._pool) as conn:
                _, more, last = await retention.purge(conn, self._days, after=last, most=self._batch)
            await asyncio.sleep((self._clock() - begun) * (1 / SHARE - 1))
