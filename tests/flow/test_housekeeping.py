"""Housekeeping: old mail leaves batch by batch, however many recipients it has, and young mail stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from relay.ending import end
from relay.settings import Settings
from relay.store import db, outcomes, retention
from tests.faulty import once
from tests.stack import until
from workers.housekeeping import Housekeeper

MESSAGES = """
insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit, send_at)
select uuidv7(-age * interval '1 day'), 'tidy', 'api', '<' || age || '@x>', 'a@x', '', 1, 1, false, false, now()
from unnest(%s::int[]) age
"""
DELIVERIES = """
insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at, expires_at,
    finished_at)
select m.id, 'tidy', 'r' || n || '@x', 'sent', false, 1, 1, now(), now(), uuid_extract_timestamp(m.id)
from messages m, generate_series(1, %s) n where m.account_id = 'tidy'
"""


async def mail(conn: db.Connection, ages: list[int], recipients: int) -> None:
    """A message of each age (days), sent to so many."""
    await conn.execute(MESSAGES, (ages,))
    await conn.execute(DELIVERIES, (recipients,))


async def left(conn: db.Connection, table: str = "messages") -> int:
    row = await (await conn.execute(f"select count(*) from {table} where account_id = 'tidy'".encode())).fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def housekeeping(pool: db.Pool, settings: Settings, **how: float) -> AsyncIterator[None]:
    task = asyncio.create_task(Housekeeper(pool, settings, **how).run())  # type: ignore[arg-type]
    try:
        yield
    finally:
        await end([task])
        assert task.cancelled()


async def test_a_fault_of_ours_puts_housekeeping_off_and_is_told_with_its_place(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = once(monkeypatch, outcomes, "forget_slots")
    async with housekeeping(pool, settings, every=0.01):
        await asyncio.wait_for(begun.wait(), 20)
    (told,) = (one for one in caplog.records if one.levelname == "ERROR")
    assert told.getMessage() == "housekeeping is put off by a fault of ours"
    assert told.exc_info is not None


async def test_old_mail_leaves_in_several_batches_of_one_round(pool: db.Pool, settings: Settings) -> None:
    async with db.connection(pool) as conn:
        await mail(conn, [40, 41, 42, 43, 44, 3, 2], recipients=2)
        async with housekeeping(pool, replace(settings, retention_days=30), batch=2):
            await until(lambda: gone(conn, 2))
        assert await left(conn, "deliveries") == 4


async def gone(conn: db.Connection, rest: int) -> bool:
    return await left(conn) == rest


async def test_the_next_round_comes_by_itself(pool: db.Pool, settings: Settings) -> None:
    async with db.connection(pool) as conn, housekeeping(pool, replace(settings, retention_days=30), every=0.05):
        await mail(conn, [40], recipients=1)
        await until(lambda: gone(conn, 0))


@pytest.mark.parametrize(("deliveries", "messages"), [(7, 2), (1, 1), (100, 5)])
async def test_a_batch_is_bounded_by_its_deliveries(pool: db.Pool, deliveries: int, messages: int) -> None:
    """Who records an outcome for a recipient of theirs waits as long as the batch takes."""
    async with db.connection(pool) as conn:
        await mail(conn, [40, 41, 42, 43, 44], recipients=3)
        gone = await retention.purge(conn, 30, most=10, deliveries=deliveries)
        assert (gone.messages, gone.more) == (messages, messages < 5)


async def test_mail_whose_sent_copy_is_still_owed_stays(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await mail(conn, [40, 41], recipients=1)
        await conn.execute("insert into sent_copies (message_id, account_id) select id, 'tidy' from messages limit 1")
        assert (await retention.purge(conn, 30)).messages == 1
        await conn.execute("update sent_copies set due_at = null")
        assert (await retention.purge(conn, 30)).messages == 1


async def test_what_cannot_go_is_passed_over_once(pool: db.Pool) -> None:
    """Given old mail that is not sent yet, before old mail that may go: each batch begins where the last one ended."""
    async with db.connection(pool) as conn:
        await mail(conn, [44, 43, 42, 41], recipients=1)
        await conn.execute("update deliveries set finished_at = null where id <= 1")
        first = await retention.purge(conn, 30, most=1)
        second = await retention.purge(conn, 30, most=1, after=first.last)
        assert (first.messages, second.messages) == (1, 1)
        assert second.last > first.last
        assert await left(conn) == 2


async def test_mail_of_an_account_that_is_not_there_leaves(pool: db.Pool, settings: Settings) -> None:
    """Given mail that came in at the very moment when its account was removed."""
    async with db.connection(pool) as conn:
        await mail(conn, [1], recipients=2)
        await conn.execute("update deliveries set state = 'queued', ready = true, finished_at = null")
        assert await retention.orphaned(conn) == ["tidy"]
        async with housekeeping(pool, settings, every=0.01):
            await until(lambda: gone(conn, 0))
