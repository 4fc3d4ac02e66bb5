"""An API on a real socket and database, and clients of it with tokens of several kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from api.__main__ import housed
from api.app import SERVED, build
from api.call import House
from relay.settings import Settings
from relay.store import db, tokens
from tests.api.client import SHOP, Client, Login


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    async with housed(settings) as house:
        yield house


@pytest.fixture
async def http(house: House) -> AsyncIterator[TestClient[Any, Any]]:
    server = TestServer(build(house))
    await server.start_server(**SERVED)
    async with TestClient(server) as client:
        yield client


@pytest.fixture
def login(http: TestClient[Any, Any], pool: db.Pool) -> Login:
    """Makes a client with a token of these scopes, bound to an account or not."""

    async def login(*scopes: str, account: str | None = None) -> Client:
        async with db.connection(pool) as conn:
            return Client(http, await tokens.create(conn, scopes, account))

    return login


@pytest.fixture
async def admin(login: Login) -> Client:
    return await login("*")


@pytest.fixture
def nobody(http: TestClient[Any, Any]) -> Client:
    return Client(http, None)


@pytest.fixture
async def shop(admin: Client) -> str:
    """An account that can send."""
    await admin.ok("POST", "/v1/account", SHOP)
    return "shop"
