"""The books as a room of the notify role: they fold, and forget what has been kept for its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from relay.books import Books
from relay.settings import Settings
from relay.store import db, rollups
from tests.faulty import once
from tests.stack import Stack, until

FETCH = """
insert into fetches (delivery_id, account_id, at, method, address, user_agent)
values (1, 'a', now() - %s * interval '1 day', 'GET', '192.0.2.7', 'Reader/1')
"""
EVENT = """
insert into events (at, account_id, type, data) values (now() - %s * interval '1 day', 'a', %s,
    '{"remoteAddress": "192.0.2.7", "userAgent": "Reader/1", "opener": "person"}') returning id
"""
TALLY = "insert into tallies (account_id, quarter, email_type, sent) values (%s, now() - %s * interval '1 day', '', 1)"
RECIPIENT = """
insert into recipients (account_id, address, sent, gone)
values ('a', %s, 2, jsonb_build_object('sent', %s::int, 'tracked', 0, 'failed', 0, 'opened', 0, 'any_opened', 0,
    'opens', 0, 'any_opens', 0, 'at', now() - %s * interval '1 day'))
"""


async def rows(conn: db.Connection, query: str, *given: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), given)).fetchall()


@asynccontextmanager
async def forgotten(pool: db.Pool, settings: Settings, **changed: Any) -> AsyncIterator[db.Connection]:
    """What is there after the body, once the books have forgotten: small steps, so that there are several."""
    async with db.connection(pool) as conn:
        yield conn
        await Books(pool, replace(settings, **changed), step=2).forget()


async def test_news_become_one_row_while_the_room_runs(pool: db.Pool, settings: Settings) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(Books(pool, settings, fold=0.01).run(stopping))
    async with db.connection(pool) as conn:
        for _ in range(5):
            for account in ("", "a"):
                await conn.execute(
                    "insert into tallies (account_id, quarter, email_type, sent) values (%s, '2026-11-20', '', 1)",
                    (account,),
                )
        while await rollups.waiting(conn):
            await conn.execute("select pg_sleep(0.005)")
        assert await rows(conn, "select account_id, sent, folded from tallies order by 1") == [
            ("", 5, True),
            ("a", 5, True),
        ]
    stopping.set()
    await asyncio.wait_for(running, 20)


async def test_a_fault_of_ours_puts_the_books_off_and_no_more(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They run in the role that posts webhooks, which must not end with them."""
    folded = once(monkeypatch, rollups, "fold")
    stopping = asyncio.Event()
    running = asyncio.create_task(Books(pool, settings, fold=0.01).run(stopping))
    await asyncio.wait_for(folded.wait(), 20)
    stopping.set()
    await running
    assert "put off by a fault of ours" in caplog.text


async def test_one_process_folds_at_a_time(pool: db.Pool) -> None:
    async with db.connection(pool) as one, db.connection(pool) as other:
        await one.execute(TALLY, ("a", 0))
        async with one.transaction():
            assert await rollups.alone(one)
            assert await rollups.fold(other, "tallies") == 0
        assert await rollups.fold(other, "tallies") == 1


async def test_events_leave_with_their_postings_and_posts(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, webhook_days=30) as conn:
        for days in (33, 32, 31, 29):
            ((event,),) = await rows(conn, EVENT, days, "trackOpen")
            ((posting,),) = await rows(
                conn,
                "insert into postings (endpoint_id, event_id, account_id) values (1, %s, 'a') returning id",
                event,
            )
            await conn.execute(
                "insert into posts (posting_id, endpoint_id, seconds, url) values (%s, 1, 1, '')", (posting,)
            )
    async with db.connection(pool) as conn:
        left = [await rows(conn, f"select count(*) from {table}") for table in ("events", "postings", "posts")]
    assert left == [[(1,)]] * 3


async def test_posts_leave_though_their_posting_went_before_them(pool: db.Pool, settings: Settings) -> None:
    """Given tries whose posting went with its endpoint, or before they were recorded, then they go in their time."""
    async with forgotten(pool, settings, webhook_days=30) as conn:
        for days in (33, 32, 31, 29):
            await conn.execute(
                "insert into posts (posting_id, endpoint_id, at, seconds, url) values (7, 1, now() - %s * interval"
                " '1 day', 1, %s)",
                (days, str(days)),
            )
    async with db.connection(pool) as conn:
        assert await rows(conn, "select url from posts") == [("29",)]


async def test_reports_leave_with_the_events_that_tell_of_them(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, webhook_days=30) as conn:
        await conn.execute("insert into accounts (id) values ('a')")
        for days in (33, 32, 31, 29):
            await conn.execute(
                "insert into reports (account_id, key, kind, source, at) values ('a', %s, 'bounce', 'imap', now() - %s"
                " * interval '1 day')",
                (str(days), days),
            )
    async with db.connection(pool) as conn:
        assert await rows(conn, "select key from reports") == [("29",)]


async def test_what_is_good_for_a_time_leaves_after_it(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings) as conn:
        await conn.execute("insert into accounts (id) values ('a')")
        for hours in (100, 90, 80, 70):
            await conn.execute(
                "insert into provider_posts (account_id, token, at) values ('a', %s, now() - %s * interval '1 h')",
                (str(hours), hours),
            )
        for minutes in (-9, -2, -1, 5):
            await conn.execute(
                "insert into authorisations (state, account_id, verifier, settings, expires_at)"
                " values (%s, 'a', '', '', now() + %s * interval '1 min')",
                (str(minutes).encode(), minutes),
            )
    async with db.connection(pool) as conn:
        assert await rows(conn, "select token from provider_posts") == [("70",)]
        assert await rows(conn, "select state from authorisations") == [(b"5",)]


async def test_who_opened_from_where_is_erased_in_its_time(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, open_days=10) as conn:
        for days in (13, 12, 11, 9):
            await conn.execute(FETCH, (days,))
    async with db.connection(pool) as conn:
        left = await rows(conn, "select host(address), user_agent from fetches order by id")
    assert left == [(None, "")] * 3 + [("192.0.2.7", "Reader/1")]


@pytest.mark.parametrize("type", ["trackOpen", "listUnsubscribe"])
async def test_events_tell_no_longer_than_that_from_where_it_was(pool: db.Pool, settings: Settings, type: str) -> None:
    async with forgotten(pool, settings, open_days=10, webhook_days=30) as conn:
        for days in (12, 11, 9):
            await conn.execute(EVENT, (days, type))
    async with db.connection(pool) as conn:
        left = await rows(
            conn, "select data ->> 'remoteAddress', data ->> 'userAgent', data ->> 'opener' from events order by id"
        )
    assert left == [("", "", "person")] * 2 + [("192.0.2.7", "Reader/1", "person")]


async def test_what_receivers_repeat_of_who_opened_is_erased_with_it(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, open_days=10, webhook_days=30) as conn:
        for days in (12, 9):
            ((event,),) = await rows(conn, EVENT, days, "trackOpen")
            await conn.execute(
                "with told as (insert into postings (endpoint_id, event_id, account_id) values (1, %s, 'a')"
                " returning id) insert into posts (posting_id, endpoint_id, seconds, url, status, response)"
                " select id, 1, 1, '', 200, '{\"got\": \"192.0.2.7\"}' from told",
                (event,),
            )
    async with db.connection(pool) as conn:
        assert await rows(conn, "select status, response from posts order by id") == [
            (200, ""),
            (200, '{"got": "192.0.2.7"}'),
        ]


async def test_with_the_mail_means_that_nothing_is_erased_before(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, open_days=0) as conn:
        await conn.execute(FETCH, (1000,))
    async with db.connection(pool) as conn:
        assert await rows(conn, "select host(address) from fetches") == [("192.0.2.7",)]


async def test_sums_outlive_their_mail_by_the_days_that_are_set(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, retention_days=30, statistics_days=400) as conn:
        for account in ("", "a", "b"):
            for days in (500, 431, 429, 1):
                await conn.execute(TALLY, (account, days))
    async with db.connection(pool) as conn:
        left = await rows(conn, "select account_id, count(*) from tallies group by 1 order by 1")
    assert left == [("", 2), ("a", 2), ("b", 2)]


async def test_sums_of_mail_that_is_kept_for_ever_stay(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, retention_days=0, statistics_days=400) as conn:
        await conn.execute(TALLY, ("a", 5000))
    async with db.connection(pool) as conn:
        assert await rows(conn, "select count(*) from tallies") == [(1,)]


async def test_recipients_leave_so_long_after_the_last_of_their_mail(pool: db.Pool, settings: Settings) -> None:
    async with forgotten(pool, settings, retention_days=30, statistics_days=400) as conn:
        for name, gone, days in (("long@x", 2, 401), ("later@x", 2, 399), ("mail@x", 1, 401), ("old@x", 2, 402)):
            await conn.execute(RECIPIENT, (name, gone, days))
    async with db.connection(pool) as conn:
        assert await rows(conn, "select address from recipients order by 1") == [("later@x",), ("mail@x",)]


async def test_what_the_running_roles_sent_is_folded(stack: Stack, database_url: str) -> None:
    """The notify role has the room."""
    with psycopg.connect(stack.settings.database_url, autocommit=True) as conn:
        conn.execute(TALLY, ("folded", 1))
        query = "select from tallies where account_id = 'folded' and folded"
        await until(lambda: conn.execute(query).fetchone() is not None, 10)
