"""The SMTP ingress role: processes that share a port, each with a door, a pool and an acceptor of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

from relay import ready, role
from relay.accept import Acceptor
from relay.directory import Directory
from relay.ingress.door import Door
from relay.listen import bound
from relay.settings import Settings
from relay.store import db

CONNECTIONS = 4  # to PostgreSQL, of one process: a commit is shared, look-ups are remembered
GRACE = 4.0  # seconds that clients have to finish a message when we stop

_log = logging.getLogger("postferry.smtp")


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """One process: takes mail until `stopping`, then finishes what is being taken."""
    async with db.pooled(settings, most=CONNECTIONS, generic=True, prompt=True) as pool:
        acceptor = Acceptor(pool, settings)
        door = Door(settings, Directory(pool), acceptor)
        plain, implicit_tls = sockets(settings)
        await door.open(plain, implicit_tls)
        for listening in plain + implicit_tls:
            _log.info("listening", extra={"ingress": "smtp", "port": listening.getsockname()[1]})
        ready.announce()
        await stopping.wait()
        acceptor.stop()
        await door.close(GRACE)
        await acceptor.close()
        await door.part()


def sockets(settings: Settings) -> tuple[list[socket.socket], list[socket.socket]]:
    """Bound to the plain port, and to that with implicit TLS where there is a certificate. Raises OSError."""
    smtps_port = settings.smtps_port if settings.tls_certificate else 0
    return bound(settings.smtp_host, settings.smtp_port), bound(settings.smtp_host, smtps_port)


def held(settings: Settings) -> list[socket.socket]:
    """Every port of the role, bound for the parent (relay/role.py). Raises OSError."""
    plain, implicit_tls = sockets(settings)
    return plain + implicit_tls


def main() -> int:
    return role.run("smtp", serve, count=lambda settings: settings.smtp_processes, bind=held, keys=False)


if __name__ == "__main__":
    sys.exit(main())
