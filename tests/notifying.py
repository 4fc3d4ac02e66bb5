"""The webhook drain as tests run it: in their own loop, over their own database, in haste."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from relay.core.vault import Vault
from relay.notify import Notifier
from relay.settings import Settings
from relay.store import db
from tests.stack import PATIENCE, until
from tests.store.mail import account
from tests.store.posting import SECRET, endpoint, event

HASTY = {"webhook_timeout": 10.0, "webhook_retries": (0.05, 0.05, 0.05)}


class Told:
    """A database with accounts, endpoints and events, and Notifiers that drain it."""

    def __init__(self, pool: db.Pool, settings: Settings, **given: Any) -> None:
        self.pool, self.settings = pool, replace(settings, **HASTY | given)
        self.vault = Vault(settings.secret_keys)

    @asynccontextmanager
    async def running(self, **given: Any) -> AsyncIterator[Notifier]:
        stopping = asyncio.Event()
        notifier = Notifier(self.pool, replace(self.settings, **given), self.vault)
        task = asyncio.create_task(notifier.run(stopping))
        try:
            yield notifier
        finally:
            stopping.set()
            await task

    async def account(self, id: str) -> str:
        async with db.connection(self.pool) as conn:
            return await account(conn, id)

    async def endpoint(self, url: str, account: str | None = "a", *events: str, secret: str = SECRET) -> int:
        async with db.connection(self.pool) as conn:
            return await endpoint(conn, url, account, events, vault=self.vault, secret=secret)

    async def event(self, account: str = "a", type: str = "messageSent", **data: Any) -> int:
        async with db.connection(self.pool) as conn:
            return await event(conn, account, type, **data)

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    async def states(self) -> dict[str, int]:
        """How many postings are in each state."""
        return dict(await self.rows("select state::text, count(*) from postings group by 1"))

    async def become(self, seconds: float = PATIENCE, **states: int) -> None:
        """Waits until the postings are in just these states."""

        async def so() -> bool:
            return await self.states() == states

        try:
            await until(so, seconds)
        except AssertionError:
            raise AssertionError(f"postings are {await self.states()}, and not {states}") from None
