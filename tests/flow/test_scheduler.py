"""The scheduler's pulse, looked at from inside: what it leaves to others, and how long it rests."""

from __future__ import annotations

import asyncio

import pytest

from relay.settings import Settings
from relay.store import db, leases, schema, turns
from tests.faulty import once
from tests.store.mail import prepared, stored
from workers import broker as brokers
from workers import scheduler
from workers.scheduler import Hold, Scheduler


async def test_leases_that_nobody_begins_are_not_added_to_and_not_looked_at_without_end(
    pool: db.Pool, settings: Settings
) -> None:
    """Though an account has work, and another's slot has freed."""
    async with db.connection(pool) as conn:
        await stored(conn, prepared(), prepared(account="b"))
        await conn.execute(
            "insert into leases (account_id, priority, size, expires_at)"
            " select 'b', 1, 1, now() + interval '1 hour' from generate_series(1, %s)",
            (scheduler.MOST_WAITING,),
        )
        room = Scheduler(pool, brokers.connect(settings), settings)
        room._held["a"] = Hold(0.0, 0.0)
        assert await room._pulse() is False
        assert await leases.count(conn) == (scheduler.MOST_WAITING, scheduler.MOST_WAITING)
        assert await room._until_next() == settings.tick_seconds

        await conn.execute("delete from leases where id in (select id from leases limit 1)")
        assert await room._pulse() is True
        assert await leases.count(conn) == (scheduler.MOST_WAITING, scheduler.MOST_WAITING)


async def test_an_account_that_meets_a_fault_of_ours_keeps_no_other_waiting(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A priority that nobody knows ended the scheduler, and the one that was started in its place, and so on."""
    enqueued: list[int] = []
    monkeypatch.setattr(brokers, "enqueue", lambda broker, lease, priority: enqueued.append(lease))
    async with db.connection(pool) as conn:
        await stored(conn, prepared(), prepared(account="b"), prepared(account="c"))
        await conn.execute("update deliveries set priority = 7 where account_id = 'b'")
        room = Scheduler(pool, brokers.connect(settings), settings)
        await room._pulse()
        rows = await (await conn.execute("select account_id from leases order by 1")).fetchall()
        assert [account for (account,) in rows] == ["a", "c"]
        assert len(enqueued) == 2
        assert "mail of b waits by a fault of ours" in caplog.text
        room._look = True
        await room._pulse()
    assert caplog.text.count("mail of b waits") == 1


async def test_a_fault_of_ours_puts_the_pulse_off_and_no_more(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again = once(monkeypatch, turns, "promote")
    monkeypatch.setattr(scheduler, "LOOK_AGAIN", 0.01)
    stopping = asyncio.Event()
    running = asyncio.create_task(Scheduler(pool, brokers.connect(settings), settings).run(stopping))
    await asyncio.wait_for(again.wait(), 20)
    stopping.set()
    await running
    assert "the pulse is put off by a fault of ours" in caplog.text


async def test_a_schema_that_is_missing_is_no_fault_to_wait_for(pool: db.Pool, settings: Settings) -> None:
    async with db.connection(pool) as conn:
        await stored(conn, prepared())
        await conn.execute("alter table slots rename to others")
    with pytest.raises(schema.MISSING):
        await Scheduler(pool, brokers.connect(settings), settings).run(asyncio.Event())
