"""The figures that the metrics need of the database, at a bounded cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from relay import metrics, scrape
from relay.core import limits
from relay.core.errors import StoreAway
from relay.core.limits import Usage
from relay.meters import Sample
from relay.store import db, figures, mailboxes, sentcopies
from relay.store.figures import Backlog, Endpoint

LEAST = 2.0  # s between two readings, whoever asks
PATIENCE = 3.0  # s for a reading; a scrape has ten
FULLEST = 20  # accounts, and endpoints, that are shown by name
WINDOWS = {60: "minute", 3600: "hour", 86400: "day"}
STANDINGS = ("active", "resting", "paused", "refused")
ENDPOINTS = ("active", "failing", "disabled")
OTHER = "other"


class Figures:
    """Read anew only after fifty times as long as the last reading took, and two seconds at least.

    So a scraper never makes the store busy, however much waits and however many scrape. While the store is away there
    are no figures but that it is, and the other metrics are still shown.
    """

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._samples: list[Sample] = []
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def read(self) -> list[Sample]:
        clock = asyncio.get_running_loop().time
        async with self._lock:
            begun = clock()
            if begun >= self._until:
                try:
                    async with asyncio.timeout(PATIENCE), db.connection(self._pool) as conn:
                        self._samples = [metrics.STORE_UP.at(1), *await _read(conn)]
                except (StoreAway, TimeoutError):
                    metrics.STORE_ERRORS.inc()
                    self._samples = [metrics.STORE_UP.at(0)]
                self._until = clock() + max(LEAST, 50 * (clock() - begun))
            return self._samples


async def _read(conn: db.Connection) -> list[Sample]:
    rows = await figures.backlog(conn)
    usages = await figures.usages(conn, {row.account: row.leased for row in rows if row.leased})
    samples = [*_queues(rows, usages), *_limits(usages)]
    found = await figures.standings(conn)
    samples += [metrics.ACCOUNTS.at(found.get(standing, 0), standing) for standing in STANDINGS]
    samples += _webhooks(await figures.endpoints(conn))
    found = await figures.endpoint_states(conn)
    samples += [metrics.WEBHOOK_ENDPOINTS.at(found.get(state, 0), state) for state in ENDPOINTS]
    waiting, overdue = await sentcopies.waiting(conn)
    samples += [metrics.SENT_COPIES_WAITING.at(waiting), metrics.SENT_COPIES_OVERDUE.at(overdue)]
    watched, failing, late = await mailboxes.counts(conn)
    samples += [metrics.MAILBOXES.at(watched - failing, "well"), metrics.MAILBOXES.at(failing, "failing")]
    samples.append(metrics.MAILBOX_OVERDUE.at(late))
    return samples + await _database(conn)


def _queues(rows: list[Backlog], usages: list[Usage]) -> Iterator[Sample]:
    """What waits and what holds it; the oldest that nothing holds."""
    full = {usage.account: limits.held_by(usage) for usage in usages}
    depth: Counter[tuple[str, str]] = Counter()
    held: Counter[tuple[str, str]] = Counter()
    oldest = 0.0
    for row in rows:
        account, reason = metrics.account_label(row.account), _holds(row, full.get(row.account, []))
        depth[account, "held" if reason else "queued"] += row.due
        for state, count in ("deferred", row.deferred), ("scheduled", row.scheduled), ("leased", row.leased):
            depth[account, state] += count
        if reason:
            held[account, reason] += row.due
        elif row.oldest_due is not None:
            oldest = max(oldest, row.oldest_due)
    yield metrics.OLDEST_DUE.at(oldest)
    for labels, count in depth.items():
        if count:
            yield metrics.QUEUE_DEPTH.at(count, *labels)
    for labels, count in held.items():
        if count:
            yield metrics.HELD_NOW.at(count, *labels)


def _holds(row: Backlog, full: list[limits.Held]) -> str:
    """Why this account's due mail does not go; "" when nothing keeps it. Of full windows the longest decides."""
    if row.standing != "active":
        return row.standing
    return f"limit_{WINDOWS[max(held.seconds for held in full)]}" if full else ""


def _limits(usages: list[Usage]) -> Iterator[Sample]:
    shares = [
        ((used + usage.in_flight) / limit, usage.account, WINDOWS[seconds])
        for usage in usages
        for seconds, limit, used in usage.windows
    ]
    for share, account, window in sorted(shares, reverse=True)[:FULLEST]:
        yield metrics.LIMIT_USED.at(round(share, 4), account, window)


def _webhooks(endpoints: list[Endpoint]) -> Iterator[Sample]:
    """By endpoint those with the most, the rest together; then those that have failed longest."""
    waiting = sorted((one for one in endpoints if one.pending), key=lambda one: one.pending, reverse=True)
    for one in waiting[:FULLEST]:
        yield metrics.WEBHOOK_PENDING.at(one.pending, one.account, str(one.id))
        yield metrics.WEBHOOK_OLDEST.at(max(0.0, one.oldest or 0.0), one.account, str(one.id))
    if rest := waiting[FULLEST:]:
        yield metrics.WEBHOOK_PENDING.at(sum(one.pending for one in rest), OTHER, OTHER)
        yield metrics.WEBHOOK_OLDEST.at(max(one.oldest or 0.0 for one in rest), OTHER, OTHER)
    yield metrics.WEBHOOK_OVERDUE.at(max([0.0, *(one.overdue or 0.0 for one in waiting)]))
    failing = sorted((one.failing, one.id, one.account) for one in endpoints if one.failing is not None)
    for seconds, id, account in failing[-FULLEST:]:
        yield metrics.WEBHOOK_FAILING.at(seconds, account, str(id))


async def _database(conn: db.Connection) -> list[Sample]:
    found = await figures.database(conn)
    samples = [
        metrics.DATABASE_SIZE.at(found.size),
        metrics.DATABASE_MOST.at(found.most),
        metrics.DATABASE_TRANSACTION.at(found.transaction),
    ]
    samples += [metrics.DATABASE_CONNECTIONS.at(n, state) for state, n in (await figures.connections(conn)).items()]
    for table, rows, dead in await figures.tables(conn):
        samples += [metrics.DATABASE_ROWS.at(rows, table), metrics.DATABASE_DEAD.at(dead, table)]
    return samples + (scrape.disks({"database": Path(found.folder)}) if found.folder else [])
