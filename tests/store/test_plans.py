"""What runs all day reads no more than it is about, though all was quiet when the planner last looked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from relay.settings import Settings
from relay.store import db, leases, outcomes, overview, turns

ACCOUNTS = [f"a{number:02}" for number in range(40)]
QUIET = """
insert into accounts (id, config) select 'a' || lpad(n::text, 2, '0'), '{"limits": {"perDay": 100000}}'
    from generate_series(0, 39) n;
insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit, send_at)
    select gen_random_uuid(), 'a' || lpad((n % 40)::text, 2, '0'), 'api', '<x@y>', '', '', 1, 0, false, false, now()
    from generate_series(1, 3000) n;
insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at, expires_at)
    select id, account_id, 'r@x', 'sent', false, 0, 3, now(), now() from messages
"""
BUSY = """
insert into leases (account_id, priority, size, expires_at) select id, 0, 25, now() from accounts;
update deliveries d set state = 'leased', lease_id = l.id from leases l
    where d.account_id = l.account_id and d.id % 3 = 0;
update deliveries set state = 'queued', ready = true where state = 'sent' and id % 3 = 1;
insert into slots (account_id, at, n) select 'a00', now() - interval '2 hours' - n * interval '1 second', 1
    from generate_series(1, 3000) n
"""
CALLS: dict[str, tuple[Callable[[db.Connection], Awaitable[object]], int]] = {
    "rooms": (lambda conn: turns.usage(conn, ACCOUNTS, size=50), 8_000),
    "start": (lambda conn: leases.start(conn, 1, seconds=60), 200),
    "fold": (outcomes.fold_slots, 7_000),
    "queue": (overview.queue, 6_000),
}
"""Each with the rows that it may read."""


@pytest.fixture(params=[True, False], ids=["kept", "fresh"])
async def busy(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[db.Connection]:
    pool = await db.open_pool(settings, most=1, generic=request.param)
    async with db.connection(pool) as conn:
        await conn.execute(QUIET.encode())
        await conn.execute("analyze")
        await conn.execute(BUSY.encode())
        yield conn
    await pool.close()


@pytest.mark.parametrize("name", CALLS)
async def test_it_reads_what_it_is_about(busy: db.Connection, name: str) -> None:
    call, most = CALLS[name]
    async with busy.transaction():
        before = await rows_read(busy)
        await call(busy)
        assert await rows_read(busy) - before <= most


async def rows_read(conn: db.Connection) -> int:
    """By this connection, since PostgreSQL last took its counts."""
    cursor = await conn.execute("select sum(seq_tup_read + idx_tup_fetch)::int from pg_stat_xact_user_tables")
    (read,) = await cursor.fetchone() or (0,)
    return int(read)
