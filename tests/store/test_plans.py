"""What runs all day reads no more than it is about, though all was quiet when the planner last looked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest

from relay.settings import Settings
from relay.store import (
    db,
    deadletters,
    leases,
    outcomes,
    overview,
    postlog,
    search,
    sentcopies,
    tracking,
    turns,
)

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

DONE = """
insert into endpoints (account_id, url, secret) values ('a00', 'https://x/', '');
update deliveries set state = 'failed', finished_at = now() - id * interval '1 second' where id % 2 = 0;
insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at, expires_at,
    finished_at)
    select id, 'a00', 'r@x', 'sent', false, 0, 3, now(), now(), now() - random() * interval '1 day' from messages;
insert into attempts (delivery_id, account_id, number, seconds, outcome, stage)
    select id, account_id, 1, 0, 'sent', 'dot' from deliveries order by id;
insert into events (account_id, type, delivery_id, message_id, data)
    select account_id, 'messageSent', id, message_id, '{}' from deliveries where account_id = 'a00';
insert into posts (posting_id, endpoint_id, seconds, url) select id, endpoint_id, 0, '' from postings order by id;
insert into sent_copies (message_id, account_id) select gen_random_uuid(), account_id from deliveries
"""
FAILED, SENT, MESSAGE = range(2, 40, 2), range(3001, 3021), UUID(int=7)
ASKED: dict[str, tuple[Callable[[db.Connection], Awaitable[object]], int]] = {
    "dead": (lambda conn: dead(conn, deadletters.Filter()), 1_000),  # 20 of each account
    "dead of a message": (lambda conn: dead(conn, deadletters.Filter(queue_id=MESSAGE)), 10),
    "replay": (lambda conn: replay(conn, deadletters.Filter()), 1_500),
    "replay of some": (lambda conn: replay(conn, deadletters.Filter(ids=FAILED)), 1_500),
    "copies": (lambda conn: sentcopies.claim(conn, [], accounts=10, each=10, seconds=60), sentcopies.LOOK + 1_500),
    "list": (lambda conn: search.find(conn, search.Filter("a00"), size=20, count=False), 50),
    "records": (lambda conn: tracking.records(conn, "a00", SENT, machine=False), 200),
    "attempts": (lambda conn: tracking.attempts(conn, 7), 10),
    "progress": (lambda conn: overview.progress(conn, MESSAGE), 20),
    "log": (lambda conn: log(conn, postlog.Filter(1)), 10_000),
    "log of an event": (lambda conn: log(conn, postlog.Filter(1, event=7)), 20),
}
"""The same for what a tenant asks for, and mailboxes."""


@pytest.fixture(params=[True, False], ids=["kept", "fresh"])
async def quiet(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[db.Connection]:
    pool = await db.open_pool(settings, most=1, generic=request.param)
    async with db.connection(pool) as conn:
        await conn.execute(QUIET.encode())
        await conn.execute("analyze")
        yield conn
    await pool.close()


@pytest.fixture
async def busy(quiet: db.Connection) -> db.Connection:
    await quiet.execute(BUSY.encode())
    return quiet


@pytest.mark.parametrize("name", CALLS)
async def test_it_reads_what_it_is_about(busy: db.Connection, name: str) -> None:
    call, most = CALLS[name]
    async with busy.transaction():
        before = await rows_read(busy)
        await call(busy)
        assert await rows_read(busy) - before <= most


@pytest.mark.parametrize("name", ASKED)
async def test_what_is_asked_for_is_found_along_its_index(quiet: db.Connection, name: str) -> None:
    await quiet.execute(DONE.encode())
    call, most = ASKED[name]
    async with quiet.transaction():
        before = await rows_read(quiet)
        await call(quiet)
        assert await rows_read(quiet) - before <= most


async def dead(conn: db.Connection, wanted: deadletters.Filter) -> object:
    return await deadletters.page(conn, wanted, after=None, skip=0, size=20, count=False)


async def replay(conn: db.Connection, wanted: deadletters.Filter) -> object:
    return await deadletters.replay(conn, wanted, lifetime=60, most=20)


async def log(conn: db.Connection, wanted: postlog.Filter) -> object:
    return await postlog.page(conn, wanted, after=None, skip=0, size=20, count=False)


async def rows_read(conn: db.Connection) -> int:
    """By this connection, since PostgreSQL last took its counts."""
    cursor = await conn.execute("select sum(seq_tup_read + idx_tup_fetch)::int from pg_stat_xact_user_tables")
    (read,) = await cursor.fetchone() or (0,)
    return int(read)
