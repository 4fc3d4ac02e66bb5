"""Calls that take long: those of one tenant wait for each other, and nobody else for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api import turns
from api.call import House
from relay.store import db
from tests.api.client import SHOP, Client, Login
from tests.stack import until


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the lock here is not sent away for it, however long a busy machine takes over the rest."""
    monkeypatch.setitem(db.PROMPT, "lock_timeout", "60s")
    monkeypatch.setattr(turns, "PATIENCE", 60.0)


@pytest.fixture
async def tenant(shop: str, login: Login) -> Client:
    return await login("api", account=shop)


@asynccontextmanager
async def asking(house: House, pool: db.Pool, client: Client, calls: int) -> AsyncIterator[list[asyncio.Task[int]]]:
    """So many calls at once, whose statements wait for a lock."""

    async def ask() -> int:
        return (await client.open("GET", "/v1/stats")).status

    async with pool.connection() as conn, conn.transaction():
        await conn.execute("lock table tallies")
        tasks = [asyncio.create_task(ask()) for _ in range(calls)]
        begun = min(calls, turns.MOST)
        await until(lambda: sum(house.turns._calls.values()) == begun or all(one.done() for one in tasks))
        yield tasks
    await asyncio.gather(*tasks)


async def test_mail_is_taken_and_probes_are_answered_meanwhile(
    house: House, pool: db.Pool, tenant: Client, nobody: Client
) -> None:
    async with asking(house, pool, tenant, 40) as asked:
        mail = {"to": [{"address": "ann@example.com"}], "subject": "Hello", "text": "Hello"}
        async with asyncio.timeout(20):
            await tenant.ok("POST", "/v1/account/shop/submit", mail)
            await nobody.ok("GET", "/health")
    assert {one.result() for one in asked} == {200}


async def test_another_tenant_need_not_wait(
    house: House, pool: db.Pool, tenant: Client, admin: Client, login: Login
) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other", "email": "other@example.com"})
    other = await login("api", account="other")
    async with asking(house, pool, tenant, 10), asyncio.timeout(20):
        await other.ok("GET", "/v1/account/other/tracking")
        await admin.ok("GET", "/v1/webhooks")


async def test_who_has_too_many_calls_waiting_is_told_so(
    house: House, pool: db.Pool, tenant: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST", 20)
    async with asking(house, pool, tenant, turns.MOST):
        status, answer = await tenant.ask("GET", "/v1/stats")
    assert (status, answer["code"]) == (429, "TooManyCalls")
    assert not house.turns._calls
    assert not house.turns._rooms


async def test_who_waits_too_long_is_told_so(
    house: House, pool: db.Pool, tenant: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    async with asking(house, pool, tenant, turns.EACH):
        status, answer = await tenant.ask("GET", "/v1/stats")
    assert (status, answer["code"]) == (429, "TooManyCalls")
    assert await tenant.ok("GET", "/v1/stats")


async def test_what_takes_too_long_is_ended(house: House, pool: db.Pool, tenant: Client) -> None:
    async with house.turns.of("shop") as conn:  # the one connection that there is by now
        await conn.execute("set statement_timeout = 500")
    async with asking(house, pool, tenant, 1) as asked:
        await asyncio.wait(asked)
    assert [one.result() for one in asked] == [503]
    await tenant.ok("GET", "/v1/stats")
