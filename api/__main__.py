"""The HTTP API role: processes that share a port, each with a pool, an acceptor and an application of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from api import turns
from api.app import SERVED, build
from api.call import House
from api.crowd import Crowd
from api.figures import Figures
from api.operation import largest_body
from api.problems import not_http
from api.visits import Visits
from relay import metrics, ready, role
from relay.accept import Acceptor
from relay.arrivals import Arrivals
from relay.connecting import Connecting
from relay.core.vault import Vault
from relay.directory import Directory
from relay.listen import bound
from relay.opens import Opens
from relay.providers import Providers
from relay.settings import Settings
from relay.store import db
from relay.tokens import Tokens
from relay.wake import Waker

CONNECTIONS = 6  # to PostgreSQL, of one process: commits are shared, look-ups are remembered
GRACE = 4.0  # seconds that calls have to end when we stop
IDLE = 75.0  # seconds that a client may keep a connection without asking, and take for its headers
BACKLOG = 1024
COUNT = 1.0  # seconds between two looks at how many connections are open

_log = logging.getLogger("postferry.api")


@asynccontextmanager
async def housed(settings: Settings) -> AsyncIterator[House]:
    """What the calls of a process share; on the way out, what was begun is ended."""
    async with (
        db.pooled(settings, most=CONNECTIONS, prompt=True) as pool,
        db.pooled(settings, most=turns.CONNECTIONS, slowest=turns.SLOWEST) as reading,
        db.pooled(settings, most=1, generic=True) as recording,  # of opens, which calls need not wait for
    ):
        vault = Vault(settings.secret_keys)
        access = Tokens(pool, settings, vault)
        house = House(
            settings=settings,
            pool=pool,
            turns=turns.Turns(reading),
            vault=vault,
            directory=Directory(pool),
            acceptor=Acceptor(pool, settings),
            opens=Opens(recording, settings, vault.derive("pixel")),
            waker=Waker(pool),
            figures=Figures(pool),
            providers=Providers(pool, settings, vault),
            tokens=access,
            visits=Visits(pool, settings, vault, access),
            connecting=Connecting(pool, settings, vault, access),
            arrivals=Arrivals(largest_body(settings)),
        )
        try:
            yield house
        finally:
            await house.acceptor.close()
            await house.opens.close()
            await house.waker.close()
            await house.visits.close()
            await access.close()


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """One process: answers until `stopping`, then ends the calls it has."""
    async with housed(settings) as house:
        logging.getLogger("aiohttp.server").addFilter(not_http)
        runner = web.AppRunner(build(house), keepalive_timeout=IDLE, shutdown_timeout=GRACE, **SERVED)
        await runner.setup()
        assert runner.server is not None
        crowd, loop = Crowd(runner.server, settings), asyncio.get_running_loop()
        doors = [await loop.create_server(crowd, sock=one, backlog=BACKLOG) for one in sockets(settings)]
        _log.info("listening", extra={"ingress": "api", "port": settings.api_port})
        counting = asyncio.create_task(_count_connections(runner))
        ready.announce()
        await stopping.wait()
        house.acceptor.stop()
        counting.cancel()
        for door in doors:
            door.close()
        await runner.cleanup()


async def _count_connections(runner: web.AppRunner) -> None:
    """aiohttp tells nobody when one comes or goes; it can be asked."""
    assert runner.server is not None
    while True:
        metrics.CONNECTIONS.labels("api", "in").set(len(runner.server.connections))
        await asyncio.sleep(COUNT)


def sockets(settings: Settings) -> list[socket.socket]:
    return bound(settings.api_host, settings.api_port)


def main() -> int:
    return role.run("api", serve, count=lambda settings: settings.api_processes, bind=sockets, keys=True)


if __name__ == "__main__":
    sys.exit(main())
