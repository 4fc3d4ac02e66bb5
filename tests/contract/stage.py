"""What the API needs to be asked anything: servers, the role, two tenants with something in every room, and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import randrange
from typing import Any

import aiohttp

from relay import local
from relay.store import db, tokens
from tests.api.client import Client
from tests.api.life import Life, lived
from tests.bench.ports import free_port
from tests.conftest import HASTY, environment
from tests.stack import FLEETING, Machine, Stack

TENANTS = ("anvil", "bellows")


@dataclass(frozen=True)
class Stage:
    """Where the API is, a token of all accounts, one of the first tenant's, and what the tenants have."""

    url: str
    admin: str
    bound: str
    kept: tuple[int, ...]  # ids of these tokens
    closed: int  # a port that nobody listens on
    lives: tuple[Life, ...]
    log: Path  # of the role

    def known(self) -> dict[str, list[Any]]:
        """Values of parts of paths that lead somewhere, by their names."""
        rows = [asdict(life) for life in self.lives]
        return {
            "account": [row["word"] for row in rows],
            "queueId": [row[key] for row in rows for key in ("queue_id", "waiting")],
            "endpoint": [row["endpoint"] for row in rows],
            "posting": [row["posting"] for row in rows],
            "tracking_id": [row[key] for row in rows for key in ("sent", "dead")],
            "address": [row["recipient"] for row in rows],
        }


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stage]:
    """All of it, for as long as the context lasts."""
    machines = [Machine(local.Postgres(folder / "postgres", FLEETING), folder / "postgres.log")]
    machines.append(Machine(local.Valkey(folder / "valkey"), folder / "valkey.log"))
    stack = None
    try:
        for machine in machines:
            machine.start()
        urls = [machine.server.url for machine in machines]
        db.migrate(urls[0])
        stack = Stack(environment(urls[0], urls[1], free_port) | HASTY, folder)
        await stack.start("api", through=("tests.contract.role",))
        yield await _settled(stack, folder / "api.log")
    finally:
        if stack is not None:
            stack.close()
        for machine in reversed(machines):
            machine.close()


async def _settled(stack: Stack, log: Path) -> Stage:
    url = f"http://127.0.0.1:{stack.settings.api_port}"
    pool = await db.open_pool(stack.settings, most=2)
    async with db.connection(pool) as conn:
        for table in ("tokens", "endpoints"):  # so that nobody guesses their numbers
            await conn.execute(f"alter table {table} alter column id restart with {randrange(10**6, 10**9)}".encode())
    async with db.connection(pool) as conn, aiohttp.ClientSession(url) as http:
        whole = await tokens.add(conn, ["*"], None, "")
        assert whole is not None
        admin = whole[1]
        client = Client(http, admin)  # type: ignore[arg-type]
        lives = tuple([await lived(client, conn, word) for word in TENANTS])
        part = await tokens.add(conn, ["api"], TENANTS[0], "")
        assert part is not None
    await pool.close()
    return Stage(url, admin, part[1], (whole[0].id, part[0].id), free_port(), lives, log)
