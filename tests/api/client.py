"""A client of the API under test, and the account that most tests send from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

SHOP: dict[str, Any] = {
    "account": "shop",
    "name": "The Shop",
    "email": "Shop@Example.com",
    "smtp": {"host": "127.0.0.1", "port": 2500, "auth": {"user": "shop", "pass": "s3cret-pass"}},
}


@dataclass
class Client:
    """Asks with one token; `ask` gives status and JSON, `open` the whole response. Each 429 says when, and how many."""

    http: TestClient[Any, Any]
    token: str | None

    async def open(self, method: str, path: str, json: Any = None, **more: Any) -> ClientResponse:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers.update(more.pop("headers", {}))
        body = {} if json is None else {"json": json}
        response = await self.http.request(method, path, headers=headers, **body, **more)
        if response.status == 429:
            told = response.headers
            assert int(told["Retry-After"]) == int(told["RateLimit-Reset"]) > 0
            assert int(told["RateLimit-Limit"]) >= int(told["RateLimit-Remaining"]) == 0
        return response

    async def ask(self, method: str, path: str, json: Any = None, **more: Any) -> tuple[int, Any]:
        response = await self.open(method, path, json, **more)
        return response.status, await response.json()

    async def ok(self, method: str, path: str, json: Any = None, **more: Any) -> Any:
        status, answer = await self.ask(method, path, json, **more)
        assert status == 200, answer
        return answer


Login = Callable[..., Awaitable[Client]]
