"""What a lease costs beside few and beside very many scheduled deliveries: the scheduler's own functions, timed."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass

import psycopg

from relay.core import limits
from relay.store import leases, turns
from relay.store.db import Connection

ACCOUNTS = 10_000
SIZE = 50
TURN = 20  # accounts that are leased from by turns
WARM_UP = 40  # leases that are not counted


@dataclass(frozen=True)
class Load:
    """What the database holds: so many scheduled deliveries, and so many accounts with so many due each."""

    scheduled: int
    busy: int
    due: int


POPULATE = (
    """
    insert into accounts (id, email, config)
    select 'account-' || n, 'app@account-' || n || '.example', '{"limits": {"connections": 20}}'
    from generate_series(1, %(accounts)s) n
    """,
    """
    insert into messages
        (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit, send_at)
    select md5('m' || n)::uuid, 'account-' || n, 'api', '<m@x>', 'app@x', 's', 4096, 1, false, false, now()
    from generate_series(1, %(accounts)s) n
    """,
    # Scheduled over thirty days, mixed: the accounts' rows lie between one another, as they come in life.
    """
    insert into deliveries (message_id, account_id, recipient, ready, priority, max_attempts, due_at, expires_at)
    select md5('m' || account)::uuid, 'account-' || account, 'reader' || n || '@readers.example', false, 1, 10,
        now() + interval '1 hour' + (n * 7919::bigint %% 2592000) * interval '1 second', now() + interval '40 days'
    from generate_series(1, %(scheduled)s) n, lateral (select 1 + n %% %(accounts)s as account) a
    """,
    """
    insert into deliveries (message_id, account_id, recipient, ready, priority, max_attempts, due_at, expires_at)
    select md5('m' || account)::uuid, 'account-' || account, 'due' || n || '@readers.example', true, 1, 10,
        now() - interval '1 second', now() + interval '3 days'
    from generate_series(1, %(due)s) n, generate_series(1, %(accounts)s, %(accounts)s / %(busy)s) account
    """,
)


@dataclass
class Cost:
    """Median milliseconds of one lease, commits included: finding and claiming it, then a worker's start on it."""

    claim: float
    start: float

    @property
    def total(self) -> float:
        return self.claim + self.start


def populate(url: str, load: Load) -> None:
    """Accounts with a message each, and the deliveries of `load`."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in POPULATE:
            conn.execute(statement, {"accounts": ACCOUNTS, **asdict(load)})
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def measure(url: str, times: int) -> Cost:
    """What a lease costs in the database at `url`."""
    return asyncio.run(_measure(url, times))


async def _measure(url: str, times: int) -> Cost:
    claims, starts = [], []
    after = ""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for turn in range(WARM_UP + times):
            began = time.perf_counter()
            lease = await _claim(conn, after)
            claimed = time.perf_counter()
            started = await leases.start(conn, lease.id, seconds=60)
            ended = time.perf_counter()
            assert started
            assert len(started.deliveries) == lease.size == SIZE
            await leases.release(conn, [lease.id])
            after = lease.account if turn % TURN < TURN - 1 else ""
            if turn >= WARM_UP:
                claims.append((claimed - began) * 1000)
                starts.append((ended - claimed) * 1000)
    return Cost(statistics.median(claims), statistics.median(starts))


async def _claim(conn: Connection, after: str) -> leases.Lease:
    """What the scheduler does for one lease: promote what is due, see who is next, claim for it, look ahead."""
    await turns.promote(conn)
    accounts = await turns.accounts_with_work(conn, after, most=1)
    async with conn.transaction():
        turn = await turns.take_turn(conn, accounts)
        usages = await turns.usage(conn, turn, size=SIZE)
        rooms = {usage.account: limits.room(usage) for usage in usages}
        granted = await turns.grant(conn, rooms, seconds=60)
    await turns.next_due(conn)
    return granted[0]
