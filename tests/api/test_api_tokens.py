"""Tokens over HTTP: shown once, listed without their text, never made by a tenant."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from api.__main__ import CONNECTIONS
from api.call import House
from relay.store import db
from tests.api.client import Client, Login


async def test_a_token_is_shown_once(admin: Client, shop: str, pool: db.Pool) -> None:
    made = await admin.ok("POST", "/v1/tokens", {"scopes": ["api"], "account": "shop", "description": "CRM"})
    client = Client(admin.http, made["token"])
    assert [one["account"] for one in (await client.ok("GET", "/v1/accounts"))["items"]] == ["shop"]
    listed = (await admin.ok("GET", "/v1/tokens?account=shop"))["items"]
    assert listed == [{key: value for key, value in made.items() if key != "token"}]
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select tokens::text from tokens")
        assert made["token"] not in str(await cursor.fetchall())


async def test_a_token_for_an_unknown_account_is_a_404(admin: Client) -> None:
    assert (await admin.ask("POST", "/v1/tokens", {"scopes": ["api"], "account": "none"}))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": "api"},
        {"scopes": ["api"], "x": 1},
        {"scopes": ["api"], "description": "a\0"},
    ],
)
async def test_a_token_without_a_known_scope_is_a_400(admin: Client, body: object) -> None:
    assert (await admin.ask("POST", "/v1/tokens", body))[0] == 400


@pytest.mark.parametrize(
    ("body", "key", "words"),
    [
        ({"scopes": []}, "scopes", "must have at least 1 item"),
        ({"scopes": ["api"], "description": "x" * 1001}, "description", "must have at most 1000 characters"),
        ({"scopes": "api"}, "scopes", "must be a valid list"),
    ],
)
async def test_a_fault_is_told_in_words_that_follow_the_field(
    admin: Client, body: dict[str, object], key: str, words: str
) -> None:
    status, answer = await admin.ask("POST", "/v1/tokens", body)
    assert status == 400
    assert answer["fields"] == [{"message": words, "key": key}]


async def test_nobody_gives_a_scope_that_he_has_not(login: Login) -> None:
    status, error = await (await login("api")).ask("POST", "/v1/tokens", {"scopes": ["*"]})
    assert (status, error["code"]) == (403, "MissingScope")


async def test_a_tenant_makes_and_revokes_no_tokens(login: Login, shop: str) -> None:
    tenant = await login("*", account="shop")
    assert (await tenant.ask("POST", "/v1/tokens", {"scopes": ["api"], "account": "shop"}))[0] == 403
    assert (await tenant.ask("DELETE", "/v1/tokens/1"))[0] == 403


@pytest.mark.parametrize(("token", "status"), [("999999", 404), ("0", 400), ("x", 400), ("9" * 30, 400)])
async def test_revoking_what_is_not_there(admin: Client, token: str, status: int) -> None:
    assert (await admin.ask("DELETE", f"/v1/tokens/{token}"))[0] == status


async def test_a_list_wants_one_connection_at_a_time(admin: Client, shop: str, house: House) -> None:
    """Given one free connection, when tokens of an account are asked for, then it is enough: whoever holds one and
    waits for another, together with others who do, keeps the pool from everybody."""
    await admin.ok("GET", "/v1/tokens")
    house.directory.forget(shop)
    async with AsyncExitStack() as others:
        for _ in range(CONNECTIONS - 1):
            await others.enter_async_context(house.pool.connection())
        assert (await admin.ask("GET", f"/v1/tokens?account={shop}"))[0] == 200
