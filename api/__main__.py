"""The HTTP API role: processes that share a port, each with a pool, an acceptor and an application of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from api.app import build
from api.call import House
from api.depth import Depth
from relay import log, metrics, processes, ready
from relay import settings as settings_module
from relay.accept import Acceptor
from relay.core.vault import Vault, VaultError
from relay.directory import Directory
from relay.opens import Opens
from relay.settings import Settings, SettingsError
from relay.store import db
from relay.wake import Waker

CONNECTIONS = 6  # to PostgreSQL, of one process: commits are shared, look-ups are remembered
GRACE = 4.0  # seconds that calls have to end when we stop
IDLE = 75.0  # seconds that a client may keep a connection without asking, and take for its headers
BACKLOG = 1024
CONFIG, UNAVAILABLE = 78, 69  # sysexits.h

_log = logging.getLogger("postferry.api")


@asynccontextmanager
async def housed(settings: Settings) -> AsyncIterator[House]:
    """What the calls of a process share; on the way out, what was begun is ended."""
    pool = await db.open_pool(settings, most=CONNECTIONS)
    vault = Vault(settings.secret_keys)
    house = House(
        settings=settings,
        pool=pool,
        vault=vault,
        directory=Directory(pool, settings),
        acceptor=Acceptor(pool, settings),
        opens=Opens(pool, vault.derive("pixel")),
        waker=Waker(pool),
        depth=Depth(pool),
    )
    try:
        yield house
    finally:
        await house.acceptor.close()
        await house.opens.close()
        await house.waker.close()
        await pool.close()


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """One process: answers until `stopping`, then ends the calls it has."""
    async with housed(settings) as house:
        runner = web.AppRunner(build(house), access_log=None, keepalive_timeout=IDLE, shutdown_timeout=GRACE)
        await runner.setup()
        for listening in sockets(settings):
            await web.SockSite(runner, listening, backlog=BACKLOG).start()
        _log.info("listening", extra={"ingress": "api", "port": settings.api_port})
        ready.announce()
        await stopping.wait()
        await runner.cleanup()


def sockets(settings: Settings) -> list[socket.socket]:
    """Bound to the port at each address of the host; many processes may bind the same. Raises OSError."""
    found = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        settings.api_host or None, settings.api_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        bound = socket.socket(family, kind, protocol)
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {address[0]} port {settings.api_port}: {error.strerror}"
            ) from error
        found.append(bound)
    return found


def main() -> int:
    """Runs the role. The parent binds the port too, without listening: that it is taken is said once, at the start."""
    try:
        settings = settings_module.read()
        Vault(settings.secret_keys)
    except (SettingsError, VaultError) as faults:
        print(faults, file=sys.stderr)
        return CONFIG
    try:
        held = sockets(settings)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return UNAVAILABLE
    metrics.prepare(settings)
    log.setup(settings, "api")
    try:
        return processes.run(settings.api_processes, lambda stopping: serve(settings, stopping))
    finally:
        for bound in held:
            bound.close()


if __name__ == "__main__":
    sys.exit(main())
