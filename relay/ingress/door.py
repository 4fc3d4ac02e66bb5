"""A door of the ingress: what the sessions of one process share. Opens on sockets, closes without losing mail."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Iterable
from functools import partial

from relay import metrics
from relay.arrivals import Arrivals
from relay.core.networks import Address, within
from relay.ending import until
from relay.ingress.connection import Connection
from relay.ingress.intake import Acceptor, Intake
from relay.ingress.login import Directory
from relay.ingress.session import Session
from relay.net.tls import tempered
from relay.settings import Settings

BACKLOG = 1024
LINGER = 1.5  # s for last words to be read
SHARE, SMALLEST_SHARE = 0.2, 10  # of the connections, for one address that is not trusted


class Door:
    """Admits clients, up to a number, and knows who they may be."""

    def __init__(self, settings: Settings, directory: Directory, acceptor: Acceptor) -> None:
        self.settings = settings
        self.directory = directory
        self.intake = Intake(directory, acceptor, domain=settings.hostname)
        self.loop = asyncio.get_running_loop()
        self.tls = tls_context(settings)
        self.closing = False
        self.arrivals = Arrivals(settings.max_message_size)
        self._servers: list[asyncio.Server] = []
        self._inside: set[Connection] = set()
        self._strangers: Counter[Address] = Counter()
        self._empty = asyncio.Event()

    async def open(self, plain: Iterable[socket.socket], implicit_tls: Iterable[socket.socket] = ()) -> None:
        """Listens on bound sockets; those of `implicit_tls` begin with TLS."""
        for sockets, implicit in ((plain, False), (implicit_tls, True)):
            for bound in sockets:
                factory = partial(Session, self, implicit_tls=implicit)
                self._servers.append(await self.loop.create_server(factory, sock=bound, backlog=BACKLOG))

    async def close(self, grace: float) -> None:
        """Admits nobody, lets who is sending a message finish within `grace` seconds, then closes on the rest.

        But for those whose message is being stored: `part`, once it is.
        """
        self.closing = True
        for server in self._servers:
            server.close()
        for connection in list(self._inside):
            connection.retire()
        if not await self.emptied(grace):
            for connection in list(self._inside):
                if not connection.holds_message:
                    connection.give_up()
            await self.emptied(LINGER)

    async def part(self) -> None:
        """Lets those who waited for their message's answer have it."""
        await self.emptied(LINGER)

    def admit(self, connection: Connection) -> bool:
        if self.closing or len(self._inside) >= self.settings.smtp_connections:
            return False
        self._inside.add(connection)
        metrics.CONNECTIONS.labels("smtp", "in").inc()
        return True

    def shares(self, connection: Connection, client: Address) -> bool:
        """Whether a client we do not trust may have this connection too: no address takes the places of all others."""
        if self._strangers[client] >= max(SMALLEST_SHARE, int(self.settings.smtp_connections * SHARE)):
            return False
        connection.origin = client
        self._strangers[client] += 1
        return True

    def leave(self, connection: Connection) -> None:
        if connection in self._inside:
            self._inside.remove(connection)
            metrics.CONNECTIONS.labels("smtp", "in").dec()
            if connection.origin is not None:
                self._strangers[connection.origin] -= 1
                if not self._strangers[connection.origin]:
                    del self._strangers[connection.origin]
        if not self._inside:
            self._empty.set()

    def trusts(self, client: Address) -> bool:
        """Whether this client may send without AUTH."""
        return within(client, self.settings.trusted_networks)

    def proxies(self, peer: Address) -> bool:
        """Whether this peer is a load balancer, whose connections begin with a PROXY header."""
        return within(peer, self.settings.proxy_networks)

    async def emptied(self, seconds: float) -> bool:
        """Waits until nobody is inside; says whether that came within so many seconds."""
        self._empty.clear()
        if self._inside:
            await until(self._empty, seconds)
        return not self._inside


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The server's certificate; None without one."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = tempered(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context
