"""Cancel, move and replay against a scheduler and a worker that touch the same rows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from relay.core.model import Outcome, State
from relay.store import db, deadletters, leases, outbox, outcomes, suppressions, turns
from relay.store.db import Connection
from relay.store.deadletters import Filter
from relay.store.outcomes import Report
from relay.store.suppressions import Suppression
from tests.store.mail import account, prepared, stored

EACH = 20


async def message(conn: Connection, recipients: int = EACH) -> UUID:
    one = prepared(*(f"r{number}@example.com" for number in range(recipients)))
    await stored(conn, one)
    return one.id


async def test_a_cancel_waits_for_a_lease_and_leaves_it_alone(pool: db.Pool) -> None:
    """Given a lease that is granted and not yet committed, when its deliveries are cancelled, then the lease wins."""
    async with db.connection(pool) as scheduler, db.connection(pool) as operator:
        await account(scheduler)
        id = await message(scheduler)
        async with scheduler.transaction():
            await turns.take_turn(scheduler, ["a"])
            await turns.grant(scheduler, {"a": 5}, seconds=60)
            cancelling = asyncio.create_task(outbox.cancel(operator, id))
            await waits_for_a_lock(scheduler)
        changed = await cancelling
    assert (changed.changed, changed.others) == (EACH - 5, {"leased": 5})


async def test_what_is_being_cancelled_is_not_leased(pool: db.Pool) -> None:
    async with db.connection(pool) as scheduler, db.connection(pool) as operator:
        await account(scheduler)
        id = await message(scheduler)
        async with operator.transaction():
            await outbox.cancel(operator, id)
            assert await turns.grant(scheduler, {"a": 50}, seconds=60) == []
        assert await turns.grant(scheduler, {"a": 50}, seconds=60) == []


async def test_cancel_move_and_lease_at_once_lose_and_double_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        ids = [await message(conn) for _ in range(10)]

    async def cancel(id: UUID) -> int:
        async with db.connection(pool) as conn:
            return (await outbox.cancel(conn, id)).changed

    async def move(id: UUID) -> int:
        async with db.connection(pool) as conn:
            return (await outbox.move(conn, id, datetime.now(UTC), lifetime=3600)).changed

    async def lease() -> int:
        async with db.connection(pool) as conn:
            return sum(one.size for one in await turns.grant(conn, {"a": 30}, seconds=60))

    asked = [task for id in ids for task in (move(id), cancel(id), lease())]
    results = await asyncio.gather(*asked)
    cancelled, leased = sum(results[1::3]), sum(results[2::3])
    async with db.connection(pool) as conn:
        rows = await (await conn.execute("select state::text, count(*) from deliveries group by state")).fetchall()
    assert dict(rows).get("cancelled", 0) == cancelled
    assert dict(rows).get("leased", 0) == leased
    assert cancelled + leased == EACH * len(ids)


async def test_a_replay_is_sent_again_and_a_late_report_changes_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await message(conn, 1)
        (first,) = await turns.grant(conn, {"a": 1}, seconds=60)
        found = await leases.start(conn, first.id, seconds=60)
        row = await (await conn.execute("select id from deliveries")).fetchone()
        assert found is not None
        assert row is not None
        failed = Report(row[0], first.id, State.FAILED, Outcome.FAILED, "rcpt", 0.1, code=550)
        assert await outcomes.commit(conn, [failed]) == [True]
        assert (await deadletters.replay(conn, Filter(), lifetime=3600, most=10)).revived == [(row[0], "a")]
        (second,) = await turns.grant(conn, {"a": 1}, seconds=60)
        assert await outcomes.commit(conn, [failed]) == [False]
        assert second.size == 1


async def test_a_replay_goes_on_after_the_last_one(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await message(conn, 5)
        await conn.execute("update deliveries set state = 'failed', finished_at = now()")
        first = await deadletters.replay(conn, Filter(), lifetime=3600, most=3)
        assert first.last is not None
        assert first.last[2] == first.revived[-1][0]
        second = await deadletters.replay(conn, Filter(), after=first.last, lifetime=3600, most=3)
    assert (len(first.revived), len(second.revived), second.last) == (3, 2, None)


async def test_a_replay_leaves_what_is_suppressed(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("eve@example.com", "bob@example.com", "Ada@example.com"))
        await conn.execute("update deliveries set state = 'failed', finished_at = now()")
        await suppressions.add(conn, "a", [Suppression("ada@example.com", "bounce")])
        first = await deadletters.replay(conn, Filter(), lifetime=3600, most=2)
        assert [(told.recipient, told.reason) for _, told in first.suppressed] == [("Ada@example.com", "bounce")]
        assert first.last is not None
        assert [first.last[2]] == [id for id, _ in first.revived]
        await deadletters.replay(conn, Filter(), after=first.last, lifetime=3600, most=2)
        await suppressions.lift(conn, "a", "ada@example.com")
        last = await deadletters.replay(conn, Filter(), lifetime=3600, most=2)
    assert ([id for id, _ in last.revived], last.suppressed) == ([first.suppressed[0][0]], [])


async def test_a_move_to_later_waits_again(pool: db.Pool) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    async with db.connection(pool) as conn:
        await account(conn)
        id = await message(conn, 1)
        await outbox.move(conn, id, later, lifetime=60)
        assert await turns.grant(conn, {"a": 1}, seconds=60) == []
        row = await (await conn.execute("select due_at, expires_at - due_at from deliveries")).fetchone()
        assert row == (later, timedelta(seconds=60))


async def waits_for_a_lock(conn: Connection) -> None:
    """Until another connection waits for what this one has locked."""
    async with asyncio.timeout(10):
        while True:
            cursor = await conn.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            (waiting,) = await cursor.fetchone() or (0,)
            if waiting:
                return
            await asyncio.sleep(0.01)


async def test_while_an_account_rests_its_mail_is_shown_as_due_after_that(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        id = await message(conn)
        await conn.execute("update accounts set retry_at = now() + interval '1 hour'")
        resting = await outbox.get(conn, id)
        await conn.execute("update accounts set retry_at = now() - interval '1 hour'")
        rested = await outbox.get(conn, id)
    assert resting is not None
    assert rested is not None
    hour = datetime.now(UTC) + timedelta(minutes=50)
    assert (resting.deliveries[0].due_at > hour, rested.deliveries[0].due_at > hour) == (True, False)
