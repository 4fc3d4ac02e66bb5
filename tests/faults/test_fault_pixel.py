"""PostgreSQL or Valkey away while pixels arrive: the picture comes at once all the same; opens are known afterwards."""

from __future__ import annotations

import asyncio
import signal
import time
from statistics import median
from typing import Any

from relay.core import pixel
from relay.core.vault import Vault
from relay.store import db
from tests.stack import Machine, until
from tests.tenant import Tenant, people

READER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
LATE = 1.0  # s for most pictures on a busy machine; what waits for PostgreSQL takes five


async def sent(client: Tenant, number: int) -> list[str]:
    """The tokens of so many deliveries that were sent."""
    await client.mail(*people(number))
    await client.becomes(sent=number)
    keys = Vault(client.settings.secret_keys).derive("pixel")
    return [pixel.sign(keys, row[0]) for row in await client.rows("select id from deliveries where account_id = %s")]


async def look(client: Tenant, token: str) -> float:
    """The seconds until its picture was there."""
    began = time.monotonic()
    async with client.http.get(f"/t/{token}.gif", headers=READER) as answer:
        assert (answer.status, await answer.read()) == (200, pixel.GIF)
    return time.monotonic() - began


async def opened(client: Tenant, number: int) -> None:
    """By somebody or something: so many looks at once are a gateway's."""

    async def so() -> bool:
        rows: list[Any] = await client.rows("select sum(any_opens), sum(fetches) from opens where account_id = %s")
        return rows == [(number, number)]

    await until(so)


async def test_pixels_arrive_while_postgresql_is_gone(postgres: Machine, client: Tenant) -> None:
    tokens = await sent(client, 5)
    await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
    assert median([await look(client, token) for token in tokens * 10]) < LATE
    await asyncio.to_thread(postgres.start)
    await opened(client, 50)
    assert await client.rows("select sum(any_opened), sum(any_opens) from tallies where account_id = %s") == [(5, 50)]


async def test_pixels_arrive_while_postgresql_does_not_answer(client: Tenant) -> None:
    tokens = await sent(client, 2)
    async with db.connection(client.pool) as conn, conn.transaction():
        await conn.execute("set local idle_in_transaction_session_timeout = 0")
        await conn.execute("lock table opens in access exclusive mode")
        assert median([await look(client, token) for token in tokens * 10]) < LATE
    await opened(client, 20)


async def test_pixels_arrive_while_valkey_is_gone(valkey: Machine, client: Tenant) -> None:
    tokens = await sent(client, 2)
    await asyncio.to_thread(valkey.cut, signal.SIGKILL)
    assert median([await look(client, token) for token in tokens * 5]) < LATE
    await opened(client, 10)


async def test_postgresql_comes_and_goes_and_no_open_is_counted_twice(postgres: Machine, client: Tenant) -> None:
    tokens = await sent(client, 5)
    for _ in range(3):
        looks = [asyncio.create_task(look(client, token)) for token in tokens * 8]
        await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
        await asyncio.gather(*looks)
        await asyncio.to_thread(postgres.start)
    await opened(client, 3 * 40)
    assert await client.rows("select count(*) from fetches where account_id = %s") == [(120,)]
