"""What operators ask: is it up, how is it doing."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from aiohttp import web
from pydantic import Field

from api.call import Call
from api.shapes import Answer
from relay import scrape
from relay.core.errors import StoreAway
from relay.store import db

PATIENCE = 3.0  # s; a probe wants its answer soon
VERSION = version("postferry")


class Health(Answer):
    status: str = Field(description="`ok`, or `unready` (with status 503) while the store is away.")
    live: bool = Field(description="This process answers.")
    ready: bool = Field(description="It can accept mail.")
    store: str = Field(description="`ok` or `away`.")
    version: str


async def health(call: Call) -> Health | web.Response:
    """Liveness and readiness: 200 when mail is taken, 503 while it cannot be."""
    try:
        async with asyncio.timeout(PATIENCE):
            await db.ping(call.house.pool)
    except (StoreAway, TimeoutError):
        away = Health(status="unready", live=True, ready=False, store="away", version=VERSION)
        return web.Response(status=503, body=away.json_bytes(), content_type="application/json")
    return Health(status="ok", live=True, ready=True, store="ok", version=VERSION)


async def expose(call: Call) -> web.Response:
    """Prometheus metrics of all processes that share a metrics folder, and figures of the database and the host."""
    call.check_unbound()
    samples = await call.house.figures.read()
    text = await asyncio.to_thread(scrape.page, samples)
    return web.Response(body=text, headers={"Content-Type": scrape.CONTENT_TYPE})
