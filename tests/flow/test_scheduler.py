"""The scheduler's pulse, looked at from inside: what it leaves to others, and how long it rests."""

from __future__ import annotations

from relay.settings import Settings
from relay.store import db, leases
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
