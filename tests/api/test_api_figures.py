"""The figures of the database: what waits and why, what is used of limits, how endpoints fare; at a bounded cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from api import figures
from api.figures import Figures
from relay import metrics
from relay.meters import Figure
from relay.settings import Settings
from relay.store import db
from tests.store import mail

Shown = dict[tuple[str, ...], float]


class Bench:
    """A database that is read anew at every look."""

    def __init__(self, pool: db.Pool) -> None:
        self.pool = pool

    async def do(self, query: str, *values: Any) -> None:
        async with db.connection(self.pool) as conn:
            await conn.execute(query.encode(), values)

    async def account(self, id: str, state: str = "active", due: int = 0, **limits: int) -> None:
        """With so many deliveries that are due, the oldest for as many minutes."""
        async with db.connection(self.pool) as conn:
            await mail.account(conn, id, state, **limits)
            if due:
                await mail.stored(conn, mail.prepared(*(f"{n}@there.example" for n in range(due)), account=id))
        await self.do("update deliveries set due_at = now() - interval '1 minute' * %s where account_id = %s", due, id)

    async def endpoint(self, pending: int, failing: float | None = None, account: str | None = None) -> None:
        await self.do(
            "with e as (insert into endpoints (account_id, url, secret, failing_since)"
            " values (%s, 'https://x.example', '', now() - %s * interval '1 second') returning id)"
            " insert into postings (endpoint_id, event_id, account_id, created_at, due_at) select id, n, 'a',"
            " now() - interval '1 hour', now() - interval '1 minute' from e, generate_series(1, %s) as n",
            account,
            failing,
            pending,
        )

    async def shows(self, figure: Figure) -> Shown:
        return {one.labels: one.value for one in await Figures(self.pool).read() if one.figure is figure}


@pytest.fixture
def bench(pool: db.Pool) -> Bench:
    return Bench(pool)


async def test_what_waits_is_shown_by_what_it_waits_for(bench: Bench) -> None:
    await bench.account("a", due=6)
    await bench.do("update deliveries set ready = false where id in (select id from deliveries order by id limit 3)")
    await bench.do("update deliveries set state = 'deferred' where id in (select min(id) from deliveries)")
    await bench.do(
        "with l as (insert into leases (account_id, priority, size, expires_at) values ('a', 5, 1, now()) returning id)"
        " update deliveries d set state = 'leased', lease_id = l.id from l"
        " where d.id = (select max(id) from deliveries)"
    )
    assert await bench.shows(metrics.QUEUE_DEPTH) == {
        ("a", "queued"): 2,
        ("a", "deferred"): 1,
        ("a", "scheduled"): 2,
        ("a", "leased"): 1,
    }


@pytest.mark.parametrize("state", ["paused", "refused"])
async def test_an_account_that_stopped_holds_its_mail(bench: Bench, state: str) -> None:
    await bench.account("a", state, due=2)
    assert await bench.shows(metrics.QUEUE_DEPTH) == {("a", "held"): 2}
    assert await bench.shows(metrics.HELD_NOW) == {("a", state): 2}


async def test_an_upstream_that_rests_holds_mail_until_its_time(bench: Bench) -> None:
    await bench.account("a", due=2)
    await bench.do("update accounts set retry_at = now() + interval '1 minute'")
    assert await bench.shows(metrics.HELD_NOW) == {("a", "resting"): 2}
    await bench.do("update accounts set retry_at = now() - interval '1 second'")
    assert await bench.shows(metrics.HELD_NOW) == {}


async def test_of_full_limits_the_longest_is_the_reason(bench: Bench) -> None:
    await bench.account("a", due=1, perMinute=2, perHour=2, perDay=4)
    await bench.do("insert into slots (account_id, n) values ('a', 1)")
    assert await bench.shows(metrics.HELD_NOW) == {}
    await bench.do("insert into slots (account_id, n) values ('a', 1)")
    assert await bench.shows(metrics.HELD_NOW) == {("a", "limit_hour"): 1}
    assert await bench.shows(metrics.LIMIT_USED) == {("a", "minute"): 1, ("a", "hour"): 1, ("a", "day"): 0.5}


async def test_a_slot_counts_in_the_windows_that_it_has_not_left(bench: Bench) -> None:
    await bench.account("a", perMinute=10, perHour=10, perDay=10)
    for age in ("30 seconds", "30 minutes", "12 hours", "2 days"):
        await bench.do("insert into slots (account_id, n, at) values ('a', 1, now() - %s::interval)", age)
    assert await bench.shows(metrics.LIMIT_USED) == {("a", "minute"): 0.1, ("a", "hour"): 0.2, ("a", "day"): 0.3}


async def test_only_the_fullest_limits_are_shown(bench: Bench) -> None:
    for n in range(figures.FULLEST + 5):
        await bench.account(f"a{n}", perDay=100)
        await bench.do("insert into slots (account_id, n) values (%s, %s)", f"a{n}", n)
    shown = await bench.shows(metrics.LIMIT_USED)
    assert len(shown) == figures.FULLEST
    assert min(shown.values()) == 0.05


async def test_the_oldest_due_is_of_accounts_that_may_send(bench: Bench) -> None:
    assert await bench.shows(metrics.OLDEST_DUE) == {(): 0}
    await bench.account("old", "paused", due=9)
    await bench.account("young", due=2)
    assert await bench.shows(metrics.OLDEST_DUE) == {(): pytest.approx(120, abs=5)}


async def test_accounts_are_counted_by_whether_they_may_send(bench: Bench) -> None:
    for id, state in (("a", "active"), ("b", "active"), ("c", "paused"), ("d", "refused")):
        await bench.account(id, state)
    await bench.do("update accounts set retry_at = now() + interval '1 minute' where id in ('b', 'd')")
    shown = await bench.shows(metrics.ACCOUNTS)
    assert shown == {("active",): 1, ("resting",): 1, ("paused",): 1, ("refused",): 1}


async def test_endpoints_are_shown_by_what_they_wait_for(bench: Bench) -> None:
    await bench.account("a")
    await bench.endpoint(3, account="a")
    await bench.endpoint(2, failing=600)
    await bench.endpoint(0)
    await bench.do("update postings set state = 'delivered' where event_id = 3")
    assert await bench.shows(metrics.WEBHOOK_PENDING) == {("a", "1"): 2, ("", "2"): 2}
    oldest = pytest.approx(3600, abs=5)
    assert await bench.shows(metrics.WEBHOOK_OLDEST) == {("a", "1"): oldest, ("", "2"): oldest}
    assert await bench.shows(metrics.WEBHOOK_OVERDUE) == {(): pytest.approx(60, abs=5)}
    assert await bench.shows(metrics.WEBHOOK_FAILING) == {("", "2"): pytest.approx(600, abs=5)}
    assert await bench.shows(metrics.WEBHOOK_ENDPOINTS) == {("active",): 2, ("failing",): 1, ("disabled",): 0}


async def test_a_posting_whose_time_has_not_come_is_not_overdue(bench: Bench) -> None:
    await bench.endpoint(1)
    await bench.do("update postings set due_at = now() + interval '1 minute'")
    assert await bench.shows(metrics.WEBHOOK_OVERDUE) == {(): 0}


async def test_endpoints_past_the_bound_are_added_up(bench: Bench) -> None:
    for n in range(figures.FULLEST + 3):
        await bench.endpoint(n + 1)
    shown = await bench.shows(metrics.WEBHOOK_PENDING)
    assert len(shown) == figures.FULLEST + 1
    assert shown["other", "other"] == 1 + 2 + 3


async def test_the_database_tells_of_itself(bench: Bench) -> None:
    [size] = (await bench.shows(metrics.DATABASE_SIZE)).values()
    assert size > 1 << 20
    assert (await bench.shows(metrics.DATABASE_CONNECTIONS))["active",] == 1
    assert ("deliveries",) in await bench.shows(metrics.DATABASE_DEAD)
    assert ("database",) in await bench.shows(metrics.DISK_FREE), "this PostgreSQL is reached by a Unix socket"


async def test_the_oldest_transaction_is_somebody_elses(bench: Bench) -> None:
    assert await bench.shows(metrics.DATABASE_TRANSACTION) == {(): 0}
    async with db.connection(bench.pool) as conn, conn.transaction():
        await conn.execute("select 1")
        [age] = (await bench.shows(metrics.DATABASE_TRANSACTION)).values()
        assert 0 < age < 60


async def test_however_many_ask_the_database_is_read_once(bench: Bench) -> None:
    shared = Figures(bench.pool)
    first, *others = await asyncio.gather(*(shared.read() for _ in range(20)))
    assert all(other is first for other in others)


async def test_while_the_store_is_away_that_is_all_there_is(settings: Settings, free_port: Any) -> None:
    pool = await db.open_pool(replace(settings, database_url=f"postgresql://127.0.0.1:{free_port()}/none"), most=1)
    pool.timeout = 0.1
    samples = await Figures(pool).read()
    await pool.close()
    assert [(one.figure, one.value) for one in samples] == [(metrics.STORE_UP, 0)]


async def test_no_sample_is_there_twice(bench: Bench) -> None:
    await bench.account("a", due=3, perHour=10)
    await bench.endpoint(2, failing=5)
    names = Counter((one.figure.name, one.labels) for one in await Figures(bench.pool).read())
    assert names.most_common(1)[0][1] == 1
