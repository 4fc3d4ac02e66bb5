"""PostgreSQL stopped and started under load: temporary refusals meanwhile, then all that was acknowledged flows."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from relay.store import db
from tests.load import Load
from tests.stack import ALL, Machine, Stack, until
from tests.tenant import Tenant, people


async def test_postgresql_is_gone_for_a_while(postgres: Machine, client: Tenant) -> None:
    async with Load(client, applications=6) as load:
        await load.more()
        await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
        await load.refused(451, 503)
        await asyncio.to_thread(postgres.start)
        await load.more()
    assert set(load.answers) <= {200, 250, 451, 503}
    await load.all_arrived()


async def test_what_was_sent_while_postgresql_was_gone_is_known_afterwards(postgres: Machine, client: Tenant) -> None:
    """A worker that lives keeps its outcomes in hand: nothing is sent a second time."""
    reply = asyncio.Event()
    client.upstream.when("DOT", times=1).wait(reply).say("250 2.0.0 taken")
    await client.submit(*people(3))
    await client.upstream.heard("DATA")
    await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
    reply.set()
    await client.upstream.wait(1)
    await asyncio.sleep(client.settings.lease_seconds)
    await asyncio.to_thread(postgres.start)
    await client.all_sent_once(people(3))
    assert await client.attempts() == ["sent"] * 3


async def test_roles_start_while_postgresql_is_gone(postgres: Machine, own: Stack, client: Tenant) -> None:
    await own.stop("worker")
    await client.mail(*people(3))
    await own.stop("scheduler")
    await asyncio.to_thread(postgres.cut, signal.SIGINT)
    await own.start("worker", "scheduler")
    await asyncio.to_thread(postgres.start)
    await client.all_sent_once(people(3))
    assert all(own.runs(name) for name in ALL)


async def test_every_role_ends_while_postgresql_is_frozen(postgres: Machine, own: Stack, client: Tenant) -> None:
    """And nobody has to kill it. What was in the middle is found by its leases."""
    reply = asyncio.Event()
    client.upstream.when("DOT", times=1).wait(reply).say("250 2.0.0 taken")
    await client.submit(*people(3))
    await client.upstream.heard("DATA")
    sessions = [pid for (pid,) in await client.rows("select pid from pg_stat_activity where %s <> ''")]
    postgres.freeze(True, sessions)
    try:
        reply.set()
        asking = asyncio.create_task(client.ask("POST", f"/v1/account/{client.id}/submit", client.body(*people(1))))
        await client.upstream.wait(1)
        for name in ALL:
            own.signal(name, signal.SIGTERM)
        for name in ALL:
            await until(lambda name=name: not own.runs(name))
    finally:
        postgres.freeze(False, sessions)
    assert {name: own.status(name) for name in ALL} == dict.fromkeys(ALL, 0)
    assert "ended in the middle" in own.said()
    with pytest.raises(aiohttp.ClientError):
        await asking
    await own.start(*ALL)
    await until(lambda: set(people(3)) <= set(client.received()))


async def test_who_is_kept_out_by_a_lock_is_told_and_nothing_of_it_is_sent(own: Stack, client: Tenant) -> None:
    async with Load(client, applications=6) as load:
        await load.more()
        async with db.connection(client.pool) as conn, conn.transaction():
            await conn.execute("set local idle_in_transaction_session_timeout = 0")
            await conn.execute("lock table messages in access exclusive mode")
            await load.refused(451, 503)
        await load.more()
    assert set(load.answers) == {200, 250, 451, 503}
    await load.all_arrived()
    assert set(client.received()) == set(load.acknowledged)
