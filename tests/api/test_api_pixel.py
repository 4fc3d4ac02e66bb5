"""The pixel: always the picture, at once; a row only for a token that we signed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.call import House
from relay.core import pixel
from relay.store import db
from tests.api.client import Client
from tests.api.test_api_outbox import submit


async def rows(pool: db.Pool) -> list[Any]:
    async with db.connection(pool) as conn:
        return await (
            await conn.execute("select delivery_id, method, host(address), user_agent from fetches")
        ).fetchall()


@pytest.fixture
async def token(admin: Client, shop: str, pool: db.Pool, house: House) -> str:
    await submit(admin)
    async with db.connection(pool) as conn:
        row = await (await conn.execute("select id from deliveries")).fetchone()
    assert row is not None
    return pixel.sign(house.vault.derive("pixel"), row[0])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_fetch_is_kept_with_who_fetched(
    nobody: Client, token: str, pool: db.Pool, house: House, method: str
) -> None:
    response = await nobody.open(method, f"/t/{token}.gif", headers={"User-Agent": "Mail/1.0"})
    assert (response.status, response.headers["Content-Type"]) == (200, "image/gif")
    assert "no-store" in response.headers["Cache-Control"]
    assert await response.read() == (pixel.GIF if method == "GET" else b"")
    await house.opens.close()
    assert [row[1:] for row in await rows(pool)] == [(method, "127.0.0.1", "Mail/1.0")]


@pytest.mark.parametrize("agent", ["x" * 5000, "caf\u00e9", ""])
async def test_any_user_agent_can_be_kept(nobody: Client, token: str, pool: db.Pool, house: House, agent: str) -> None:
    await nobody.open("GET", f"/t/{token}.gif", headers={"User-Agent": agent})
    await house.opens.close()
    assert len(await rows(pool)) == 1


@pytest.mark.parametrize("token", ["x", "A" * 32, "%00", "..%2f", "é", "A" * 3000])
async def test_any_token_answers_the_picture(nobody: Client, house: House, pool: db.Pool, token: str) -> None:
    response = await nobody.open("GET", f"/t/{token}.gif")
    assert (response.status, await response.read()) == (200, pixel.GIF)
    await house.opens.close()
    assert await rows(pool) == []


async def test_made_up_tokens_cost_the_store_nothing(
    nobody: Client, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr("relay.opens.Opens._commit", never)
    await asyncio.gather(*(nobody.open("GET", f"/t/{number:032d}.gif") for number in range(100)))
    await house.opens.close()


async def test_the_picture_comes_while_the_store_is_away(nobody: Client, token: str, house: House) -> None:
    await house.pool.close()
    response = await nobody.open("GET", f"/t/{token}.gif")
    assert (response.status, await response.read()) == (200, pixel.GIF)
    await house.opens.close()


async def test_a_fetch_of_what_is_gone_is_not_kept(nobody: Client, house: House, pool: db.Pool) -> None:
    await nobody.open("GET", f"/t/{pixel.sign(house.vault.derive('pixel'), 10**12)}.gif")
    await house.opens.close()
    assert await rows(pool) == []
