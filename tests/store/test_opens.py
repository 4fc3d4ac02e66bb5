"""Judged fetches and the sums that they move, held against what their rows say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay.core.model import Opener, State
from relay.settings import Settings
from relay.store import db, opens
from relay.store.opens import KEPT, Open
from tests.stack import until
from tests.store.mail import account, prepared, stored

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SENT = datetime(2026, 11, 19, 9, 7, tzinfo=UTC)
FETCH = Open(0, 1, NOON, "GET", "192.0.2.7", "Reader/1", Opener.PERSON, "Reader", "It reads.", "DE", "Berlin", False)


async def rows(conn: db.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), values)).fetchall()


async def sent(conn: db.Connection, *recipients: str, state: str = "sent", **options: Any) -> list[int]:
    """Deliveries of account `a` in a state that is their last."""
    (answer,) = await stored(conn, prepared(*recipients, **options))
    found = await rows(
        conn,
        "update deliveries set state = %s, finished_at = case when %s = 'leased' then null else %s end"
        " where message_id = %s::uuid returning id",
        *(state, state, SENT, answer.queue_id),
    )
    return sorted(row[0] for row in found)


def fetches(delivery: int, *openers: Opener, since: datetime = NOON, **other: Any) -> list[Open]:
    """One a second, in this order."""
    return [
        replace(FETCH, delivery=delivery, place=place, at=since + timedelta(seconds=place - 1), opener=one, **other)
        for place, one in enumerate(openers, 1)
    ]


async def summed(conn: db.Connection, account: str = "a") -> list[tuple[Any, ...]]:
    return await rows(
        conn,
        "select quarter, email_type, sum(opened), sum(any_opened), sum(opens), sum(any_opens) from tallies"
        " where account_id = %s group by 1, 2 order by 1, 2",
        account,
    )


async def differences(conn: db.Connection) -> list[str]:
    """Where sums are not what the rows say."""
    counted, at_all = "f.opener in ('person', 'proxy')", "f.opener <> 'self'"
    per_delivery = f"""
        select f.delivery_id, f.account_id, count(*) as fetches, count(*) filter (where {counted}) as opens,
            count(*) filter (where {at_all}) as any_opens, min(f.at) filter (where {counted}) as first_at,
            max(f.at) filter (where {counted}) as last_at, min(f.at) filter (where {at_all}) as any_first_at,
            max(f.at) filter (where {at_all}) as any_last_at
        from fetches f group by 1, 2
    """
    by_cohort = """
        from opens o join deliveries d on d.id = o.delivery_id join messages m on m.id = d.message_id
        where o.sent_at is not null and o.any_opens > 0
    """
    figures = "sum((o.opens > 0)::int), sum((o.any_opens > 0)::int), sum(o.opens), sum(o.any_opens)"
    pairs = {
        "opens": (
            "select delivery_id, account_id, fetches, opens, any_opens, first_at, last_at, any_first_at, any_last_at"
            " from opens",
            per_delivery,
        ),
        "judged": (
            "select delivery_id, key::opener, value::int from opens, jsonb_each_text(judged)",
            "select delivery_id, opener, count(*) from fetches group by 1, 2",
        ),
        "tallies": (
            "select account_id, quarter, email_type, sum(opened), sum(any_opened), sum(opens), sum(any_opens)"
            " from tallies group by 1, 2, 3",
            f"""
            select coalesce(account_id, ''), quarter, email_type, sum(opened), sum(any_opened), sum(opens),
                sum(any_opens)
            from (select o.account_id, date_bin('15 minutes', o.sent_at, 'epoch') as quarter,
                coalesce(m.email_type, '') as email_type, {figures} {by_cohort} group by 1, 2, 3)
              as s(account_id, quarter, email_type, opened, any_opened, opens, any_opens)
            group by grouping sets ((account_id, quarter, email_type), (quarter, email_type))
            """,
        ),
        "recipients": (
            "select account_id, address, opened, any_opened, opens, any_opens, last_opened_at, any_last_opened_at"
            " from recipients",
            f"""
            select o.account_id, lower(d.recipient), {figures}, max(o.last_at), max(o.any_last_at)
            {by_cohort} group by 1, 2
            """,
        ),
        "open tallies": (
            "select account_id, quarter, email_type, opener, client, country, sum(opens), sum(firsts), sum(any_firsts)"
            " from open_tallies group by 1, 2, 3, 4, 5, 6",
            """
            select coalesce(account_id, ''), quarter, email_type, opener, client, country, count(*),
                count(*) filter (where first), count(*) filter (where any_first)
            from (select f.account_id, date_bin('15 minutes', f.at, 'epoch') as quarter, opener, client, country,
                coalesce(m.email_type, '') as email_type, f.id = o.first_fetch as first,
                f.id = o.any_first_fetch as any_first
                from fetches f join opens o using (delivery_id) join deliveries d on d.id = f.delivery_id
                join messages m on m.id = d.message_id) seen
            group by grouping sets ((account_id, quarter, email_type, opener, client, country),
                (quarter, email_type, opener, client, country))
            """,
        ),
    }
    found = []
    for what, (kept, told) in pairs.items():
        for one, other in ((kept, told), (told, kept)):
            found += [f"{what}: {row}" for row in await rows(conn, f"{one} except all {other}")]
    return found


async def test_a_first_open_moves_every_sum(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn, "Ada@There.example", email_type="invoice")
        assert await opens.record(conn, fetches(one, Opener.PERSON)) == {one}
        (fetch,) = await rows(conn, "select id, delivery_id, at, host(address), country, city from fetches")
        assert fetch[1:] == (one, NOON, "192.0.2.7", "DE", "Berlin")
        (kept,) = await rows(
            conn, "select judged, opens, any_opens, first_at, last_fetch, any_first_fetch, sent_at from opens"
        )
        assert kept == ({"person": 1}, 1, 1, NOON, fetch[0], fetch[0], SENT)
        quarter = SENT.replace(minute=0)
        assert await summed(conn) == await summed(conn, "") == [(quarter, "invoice", 1, 1, 1, 1)]
        tallied = (
            "select account_id, quarter, opener::text, client, country, opens, firsts, any_firsts from open_tallies"
        )
        assert sorted(await rows(conn, tallied)) == [
            (who, NOON, "person", "Reader", "DE", 1, 1, 1) for who in ("", "a")
        ]
        assert await rows(conn, "select address, opened, last_opened_at from recipients") == [
            ("ada@there.example", 1, NOON)
        ]
        assert await differences(conn) == []


async def test_the_event_has_just_the_fields_of_its_kind(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn, "Ada@There.example")
        await opens.record(conn, fetches(one, Opener.PERSON))
        await opens.record(conn, fetches(one, Opener.PREFETCH, country="", city="", address=None))
        placed, bare = await rows(conn, "select at, type, delivery_id, data from events order by id")
        expected = {
            "messageId": "<x@example.com>",
            "recipient": "Ada@There.example",
            "trackingId": str(one),
            "remoteAddress": "192.0.2.7",
            "userAgent": "Reader/1",
            "opener": "person",
            "prefetch": False,
        }
        assert placed == (NOON, "trackOpen", one, expected | {"country": "DE", "city": "Berlin"})
        assert bare[3] == expected | {"remoteAddress": "", "opener": "prefetch", "prefetch": True}


async def test_machines_do_not_count_and_the_sender_does_not_at_all(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        await opens.record(conn, fetches(one, Opener.SELF, Opener.SCANNER, Opener.UNKNOWN, Opener.PREFETCH))
        (row,) = await rows(conn, "select judged, fetches, opens, any_opens, first_at, any_first_at from opens")
        assert row == (
            {"self": 1, "scanner": 1, "unknown": 1, "prefetch": 1},
            *(4, 0, 3, None, NOON + timedelta(seconds=1)),
        )
        assert [row[2:] for row in await summed(conn)] == [(0, 1, 0, 3)]
        assert len(await rows(conn, "select from events")) == 3
        assert await differences(conn) == []


async def test_a_person_after_machines_is_the_first_open(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        for batch in ((Opener.PREFETCH,), (Opener.PROXY, Opener.PREFETCH), (Opener.PERSON,)):
            since = NOON + timedelta(hours=len(await rows(conn, "select from fetches")))
            await opens.record(conn, fetches(one, *batch, since=since))
        ids = [row[0] for row in await rows(conn, "select id from fetches order by id")]
        (row,) = await rows(conn, "select first_fetch, last_fetch, any_first_fetch, any_last_fetch from opens")
        assert row == (ids[1], ids[3], ids[0], ids[3])
        assert [row[2:] for row in await summed(conn)] == [(1, 1, 2, 4)]
        assert await differences(conn) == []


async def test_what_came_earlier_and_is_recorded_later_is_not_the_last(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        await opens.record(conn, fetches(one, Opener.PERSON, since=NOON))
        await opens.record(conn, fetches(one, Opener.PERSON, since=NOON - timedelta(minutes=5)))
        (row,) = await rows(conn, "select f.at, o.last_at from opens o join fetches f on f.id = o.last_fetch")
        assert row == (NOON, NOON)


@pytest.mark.parametrize("batches", [(250,), (199, 1, 50), (150, 100), (200, 50), (1, 249)])
async def test_after_the_first_two_hundred_fetches_are_only_counted(pool: db.Pool, batches: Sequence[int]) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        for number, size in enumerate(batches):
            await opens.record(conn, fetches(one, *[Opener.PERSON] * size, since=NOON + timedelta(hours=number)))
        ids = [row[0] for row in await rows(conn, "select id from fetches order by id")]
        (row,) = await rows(conn, "select fetches, opens, judged, first_fetch, last_fetch, any_last_fetch from opens")
        assert row == (250, 250, {"person": 250}, ids[0], ids[-1], ids[-1])
        assert len(ids) == len(await rows(conn, "select from events")) == KEPT == 200
        assert [row[2:] for row in await summed(conn)] == [(1, 1, 250, 250)]
        assert await rows(conn, "select sum(opens), sum(firsts) from open_tallies where account_id = 'a'") == [(250, 1)]


async def test_a_first_open_that_is_too_late_for_a_row_has_none(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        await opens.record(conn, fetches(one, *[Opener.PREFETCH] * 150))
        await opens.record(conn, fetches(one, *[Opener.PREFETCH] * 60, Opener.PERSON))
        (row,) = await rows(conn, "select opens, first_at, first_fetch, last_fetch from opens")
        assert row == (1, NOON + timedelta(seconds=60), None, None)
        assert await rows(conn, "select sum(firsts) from open_tallies where account_id = 'a'") == [(1,)]


@pytest.mark.parametrize("state", ["bounced", "complained"])
async def test_what_came_back_was_sent_and_its_opens_count(pool: db.Pool, state: str) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn, state=state)
        await opens.record(conn, fetches(one, Opener.PERSON))
        assert await rows(conn, "select opens, sent_at is not null from opens") == [(1, True)]
        assert [row[2:] for row in await summed(conn)] == [(1, 1, 1, 1)]


@pytest.mark.parametrize("state", ["leased", "failed"])
async def test_of_what_is_not_known_as_sent_the_sums_wait(pool: db.Pool, state: str) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn, state=state)
        await opens.record(conn, fetches(one, Opener.PERSON))
        await conn.execute("update deliveries set state = 'sent', finished_at = %s", (SENT,))
        await opens.record(conn, fetches(one, Opener.PERSON))  # it is for the books to count all that is there
        assert await rows(conn, "select opens, sent_at from opens") == [(2, None)]
        assert await summed(conn) == await rows(conn, "select from recipients") == []
        assert len(await rows(conn, "select from events")) == 2
        await conn.execute("update opens set sent_at = %s", (SENT,))
        await opens.record(conn, fetches(one, Opener.PERSON))
        assert [row[2:] for row in await summed(conn)] == [(0, 0, 1, 1)]


async def test_what_is_gone_is_left_out(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        batch = [*fetches(one, Opener.PERSON), *fetches(10**12, Opener.PERSON)]
        assert await opens.record(conn, batch) == {one}
        for table in ("fetches", "opens", "events", "recipients"):
            assert len(await rows(conn, f"select from {table}")) == 1
        assert set(await opens.known(conn, {one: 0.0, 10**12: 0.0})) == {one}


async def test_a_mail_about_the_first_open_is_asked_for_once(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        one, two = await sent(conn, "a@x", "b@x")
        await opens.record(conn, [*fetches(one, Opener.PREFETCH, tells=True), *fetches(two, Opener.PERSON)])
        assert await rows(conn, "select from notices") == []
        for _ in range(2):
            await opens.record(conn, fetches(one, Opener.PERSON, Opener.PROXY, tells=True))
        assert await rows(conn, "select delivery_id, kind, account_id from notices") == [(one, "opened", "a")]


async def test_accounts_and_types_are_summed_apart(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await account(conn, "b")
        mine = await sent(conn, "x@x", "y@x", account="a", email_type="invoice")
        other = await sent(conn, "x@x", account="b")
        await opens.record(conn, [one for delivery in (*mine, *other) for one in fetches(delivery, Opener.PERSON)])
        assert [row[1:3] for row in await summed(conn, "a")] == [("invoice", 2)]
        assert [row[1:3] for row in await summed(conn, "b")] == [("", 1)]
        assert [row[1:3] for row in await summed(conn, "")] == [("", 1), ("invoice", 2)]
        assert await differences(conn) == []


async def test_processes_that_record_the_same_deliveries_at_once(settings: Settings) -> None:
    """Each finds the rows in another order; nobody waits in a circle, and each delivery has one first open."""
    pool = await db.open_pool(settings, most=4)
    async with db.connection(pool) as conn:
        await account(conn)
        deliveries = await sent(conn, *(f"r{n % 7}@x" for n in range(20)))

    async def process(turn: int) -> None:
        order = deliveries[:: -1 if turn % 2 else 1]
        async with db.connection(pool) as conn:
            for step in range(10):
                since = NOON + timedelta(hours=step, milliseconds=turn)
                batch = [one for id in order for one in fetches(id, Opener.PREFETCH, Opener.PERSON, since=since)]
                await opens.record(conn, batch)

    await asyncio.gather(*map(process, range(4)))
    async with db.connection(pool) as conn:
        assert await rows(conn, "select opens, any_opens from opens") == [(40, 80)] * 20
        assert [row[2:] for row in await summed(conn)] == [(20, 20, 800, 1600)]
        # Whose open was the first is settled by who recorded it first: `first_at` may be a moment after the earliest.
        assert [line for line in await differences(conn) if not line.startswith("opens:")] == []
    await pool.close()


async def test_a_batch_is_known_again(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        one, two = await sent(conn, "a@x", "b@x")
        batch = [*fetches(10**12, Opener.PERSON), *fetches(one, Opener.PERSON)]
        assert not await opens.recorded(conn, batch)
        await opens.record(conn, batch)
        assert await opens.recorded(conn, batch)
        assert not await opens.recorded(conn, fetches(two, Opener.PERSON))


async def test_a_batch_that_is_just_being_written_is_waited_for(pool: db.Pool) -> None:
    """Its connection was cut, and the database goes on with it."""
    async with db.connection(pool) as cut, db.connection(pool) as conn, db.connection(pool) as third:
        await account(conn)
        (one,) = await sent(conn)
        batch = fetches(one, Opener.PERSON)

        async def waiting() -> bool:
            query = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            return asking.done() or bool(await rows(third, query))

        async with cut.transaction():
            await opens.record(cut, batch)
            asking = asyncio.create_task(opens.recorded(conn, batch))
            await until(waiting)
        assert await asking


async def test_what_a_judgement_needs_is_known(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        tracking = {"own": ["192.0.2.0/24"], "alerts": {"opened": True}}
        await conn.execute("update accounts set config = %s", (Jsonb({"tracking": tracking}),))
        one, two = await sent(conn, "a@x", "b@x")
        now = (await opens.known(conn, {one: 0.0}))[one].now
        for age in (60, 9, 2):
            await opens.record(conn, fetches(one, Opener.PREFETCH, since=now - timedelta(seconds=age)))
        found = await opens.known(conn, {one: 0.0, two: 0.0})
        assert (found[one].fetches, found[one].burst) == (3, 2)
        assert (found[two].fetches, found[two].burst) == (0, 0)
        assert (found[one].own, found[one].tells) == ((ip_network("192.0.2.0/24"),), True)
        assert (await opens.known(conn, {one: 5.0}))[one].burst == 1


async def test_a_burst_is_known_when_its_fetches_are_only_counted(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (one,) = await sent(conn)
        now = (await opens.known(conn, {one: 0.0}))[one].now
        await opens.record(conn, fetches(one, *[Opener.PERSON] * (KEPT - 2), since=now - timedelta(hours=1)))
        for size, burst in ((4, 4), (3, 7), (23, 30)):
            await opens.record(conn, [replace(fetch, at=now) for fetch in fetches(one, *[Opener.PERSON] * size)])
            assert (await opens.known(conn, {one: 0.0}))[one].burst == burst
        assert (await opens.known(conn, {one: 1800.0}))[one].burst == 0


@pytest.mark.parametrize(
    ("state", "finished", "seconds"),
    [
        (State.SENT, NOON - timedelta(seconds=30), 30.0),
        (State.BOUNCED, NOON - timedelta(seconds=30), 30.0),
        (State.COMPLAINED, NOON - timedelta(seconds=30), 30.0),
        (State.SENT, NOON + timedelta(seconds=1), 0.0),  # the fetch came before our commit
        (State.LEASED, None, 0.0),
        (State.QUEUED, None, None),
        (State.DEFERRED, None, None),
        (State.FAILED, NOON - timedelta(seconds=30), None),
        (State.CANCELLED, NOON - timedelta(seconds=30), None),
    ],
)
def test_how_long_ago_it_was_sent(state: State, finished: datetime | None, seconds: float | None) -> None:
    assert opens.Known(NOON, state, finished, 0, 0, (), False).since_sent(NOON) == seconds
