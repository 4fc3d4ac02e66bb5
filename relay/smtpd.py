"""The SMTP ingress role: processes that share a port, each with a door, a pool and an acceptor of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

from relay import log, metrics, processes, ready
from relay import settings as settings_module
from relay.accept import Acceptor
from relay.directory import Directory
from relay.ingress.door import Door
from relay.settings import Settings, SettingsError
from relay.store import db

CONNECTIONS = 4  # to PostgreSQL, of one process: a commit is shared, look-ups are remembered
GRACE = 4.0  # seconds that clients have to finish a message when we stop
CONFIG, UNAVAILABLE = 78, 69  # sysexits.h

_log = logging.getLogger("postferry.smtp")


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """One process: takes mail until `stopping`, then finishes what is being taken."""
    pool = await db.open_pool(settings, most=CONNECTIONS, generic=True)
    acceptor = Acceptor(pool, settings)
    door = Door(settings, Directory(pool, settings), acceptor)
    plain, implicit_tls = sockets(settings)
    await door.open(plain, implicit_tls)
    for listening in plain + implicit_tls:
        _log.info("listening", extra={"ingress": "smtp", "port": listening.getsockname()[1]})
    ready.announce()
    await stopping.wait()
    await door.close(GRACE)
    await acceptor.close()
    await pool.close()


def sockets(settings: Settings) -> tuple[list[socket.socket], list[socket.socket]]:
    """Bound to the plain port, and to that with implicit TLS where there is a certificate. Raises OSError."""
    smtps_port = settings.smtps_port if settings.tls_certificate else 0
    return _bound(settings.smtp_host, settings.smtp_port), _bound(settings.smtp_host, smtps_port)


def _bound(host: str, port: int) -> list[socket.socket]:
    """One socket for each address of the host; many processes may bind the same. Port 0 is off."""
    if not port:
        return []
    found = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
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
            raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}") from error
        found.append(bound)
    return found


def main() -> int:
    """Runs the role. The ports are bound here too, without listening: that one is taken is said once, at the start."""
    try:
        settings = settings_module.read()
    except SettingsError as faults:
        print(faults, file=sys.stderr)
        return CONFIG
    try:
        held = sockets(settings)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return UNAVAILABLE
    if not any(held):
        print("POSTFERRY_SMTP_PORT and POSTFERRY_SMTPS_PORT are off: no port to listen on", file=sys.stderr)
        return CONFIG
    metrics.prepare(settings)
    log.setup(settings, "smtp")
    if settings.smtp_processes == 1:
        metrics.expose(settings)
    return processes.run(settings.smtp_processes, lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    sys.exit(main())
