"""The books: the chores that keep statistics cheap to read, and forget what has been kept for its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from relay import metrics
from relay.core.errors import StoreAway
from relay.ending import until
from relay.settings import Settings
from relay.store import audit, db, expiry, rollups
from relay.store.audit import Difference
from relay.store.db import Connection

FOLD = 3.0  # s between two foldings: readers meet no more news than comes in that time
FORGET = 60.0  # s between two looks for what has been kept for its time
SHARE = 0.25  # of the time between two looks may be spent on it; the rest waits for the next
BATCH = 2000  # rows folded at once
STEP = 1000  # rows dropped, erased or looked at, at once
PROVIDER_DAYS = 3  # that the tokens of providers' webhooks are kept: an older webhook is not taken
AGAIN = 0.5  # s until PostgreSQL is asked again

EVERYBODY = ""

_log = logging.getLogger("postferry.books")

Batch = Callable[[Connection], Awaitable[int]]
"""One step of a chore: how many rows it took. As many as it may take means that there may be more."""


class Books:
    """Any number of processes may run it side by side: one folds at a time, and what one forgot is gone for all."""

    def __init__(
        self, pool: db.Pool, settings: Settings, *, fold: float = FOLD, forget: float = FORGET, step: int = STEP
    ) -> None:
        self._pool, self._settings, self._fold, self._forget, self._step = pool, settings, fold, forget, step
        self._walked = expiry.START  # the recipient that was looked at last
        self._stopping = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; PostgreSQL's absences are waited out."""
        self._stopping = stopping
        async with asyncio.TaskGroup() as both:
            both.create_task(self._again_and_again(self.fold, self._fold))
            both.create_task(self._again_and_again(self.forget, self._forget))

    async def fold(self) -> None:
        """Counts opens that were early, then adds what is new to the sums."""
        await self._drain(partial(rollups.count_early, most=BATCH), BATCH, self._fold)
        for table in rollups.FOLDED:
            await self._drain(partial(rollups.fold, table=table, most=BATCH), BATCH, self._fold)

    async def forget(self) -> None:
        """Drops or erases what has been kept for its time; of a backlog, what the time allows."""
        chores = self._chores()
        for chore in chores:
            await self._drain(chore, self._step, self._forget * SHARE / len(chores))

    def _chores(self) -> Sequence[Batch]:
        kept, most = self._settings, self._step
        chores: list[Batch] = [
            partial(expiry.events, days=kept.webhook_days, most=most),
            partial(expiry.posts, days=kept.webhook_days, most=most),
            partial(expiry.aged, table="reports", days=kept.webhook_days, most=most),
            partial(expiry.aged, table="provider_posts", days=PROVIDER_DAYS, most=most),
            partial(expiry.aged, table="authorisations", days=0, most=most),
            partial(expiry.rowless, most=most),
        ]
        if kept.open_days:
            chores.append(partial(expiry.erase, table="fetches", days=kept.open_days, most=most))
        if 0 < kept.open_days < kept.webhook_days:
            chores.append(partial(expiry.erase, table="events", days=kept.open_days, most=most))
        if kept.retention_days and kept.statistics_days:  # they outlive their mail, and that may be kept for ever
            days = kept.retention_days + kept.statistics_days
            chores += [partial(expiry.sums, table=table, days=days, most=most) for table in rollups.KEYS]
            chores.append(self._look_at_recipients)
        return chores

    async def _look_at_recipients(self, conn: Connection) -> int:
        """A step of a walk through all of them, which begins anew at its end."""
        last = await expiry.recipients(conn, self._settings.statistics_days, self._walked, most=self._step)
        self._walked = last or expiry.START
        return self._step if last else 0

    async def _drain(self, batch: Batch, most: int, seconds: float) -> None:
        """Until less than a whole batch is left, or the time is over."""
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds
        while clock() < ends and not self._stopping.is_set():
            async with db.connection(self._pool) as conn:
                if await batch(conn) < most:
                    return

    async def _again_and_again(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while not self._stopping.is_set():
            try:
                await work()
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                _log.warning("the books wait for PostgreSQL: %s", error)
                await until(self._stopping, AGAIN)
            except Exception:  # the webhooks of this role must not end with it
                _log.exception("the books are put off by a fault of ours")
                await until(self._stopping, seconds)
            else:
                await until(self._stopping, seconds)


@dataclass(frozen=True, slots=True)
class Examined:
    """An account's sums were held against its rows. `number`: of how many (`of`) this is."""

    account: str  # "": the sums of all accounts
    number: int
    of: int
    differences: Sequence[Difference]


async def examine(conn: Connection, account: str | None = None, *, rebuild: bool = False) -> AsyncIterator[Examined]:
    """Holds the sums of every account, then those of all together, against their rows; of one `account` its own alone.

    With `rebuild`, what differs is made anew. Mail may flow meanwhile.
    """
    chosen = [account] if account else [*await audit.accounts(conn), EVERYBODY]
    for number, one in enumerate(chosen, 1):
        found: list[Difference] = []
        for table in audit.TABLES if one else rollups.KEYS:
            wrong = await audit.differences(conn, table, one)
            if wrong and rebuild:
                await audit.mend(conn, table, one, wrong)
            found += wrong
        yield Examined(one, number, len(chosen), found)
