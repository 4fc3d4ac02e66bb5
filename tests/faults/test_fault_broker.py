"""Redis stopped, emptied, frozen and started again under load: mail still goes, nothing twice, no limit broken."""

from __future__ import annotations

import asyncio
import signal

import redis

from tests.fakes.upstream import Upstream
from tests.load import Load
from tests.stack import Machine, Stack, until
from tests.tenant import Tenant


async def test_redis_is_gone_for_a_while(valkey: Machine, client: Tenant) -> None:
    """What was accepted meanwhile waits in PostgreSQL."""
    async with Load(client) as load:
        await load.more()
        valkey.cut(signal.SIGKILL)
        await load.more(40)
        sent = len(client.upstream.taken)
        valkey.start()
        await client.upstream.wait(sent + 40)
        await load.more()
    assert set(load.answers) == {200, 250}, "nobody outside notices"
    await load.all_arrived()


async def test_redis_is_emptied_again_and_again(valkey: Machine, client: Tenant) -> None:
    async with Load(client) as load:
        with redis.Redis.from_url(valkey.server.url) as connection:
            for _ in range(5):
                await load.more(15)
                connection.flushall()
    assert set(load.answers) == {200, 250}
    await load.all_arrived()


async def test_redis_answers_nothing_for_a_while(valkey: Machine, client: Tenant) -> None:
    async with Load(client) as load:
        await load.more()
        valkey.freeze(True)
        await load.more()
        valkey.freeze(False)
        await load.more()
    assert set(load.answers) == {200, 250}
    await load.all_arrived()


async def test_no_limit_is_broken_when_redis_forgets(
    valkey: Machine, own: Stack, client: Tenant, upstream: Upstream
) -> None:
    await client.change(limits={"perHour": 25, "connections": 2})
    async with Load(client) as load:
        with redis.Redis.from_url(valkey.server.url) as connection:
            for _ in range(3):
                await load.more(12)
                connection.flushall()
        valkey.cut(signal.SIGKILL)
        await own.kill("worker")
        valkey.start()
        await own.start("worker")
        await load.more(12)
    await until(lambda: len(upstream.taken) >= 24)
    await asyncio.sleep(0.5)
    assert len(upstream.taken) <= 25
    assert {to for to, times in client.received().items() if times > 1} <= set(await client.unknowns())
