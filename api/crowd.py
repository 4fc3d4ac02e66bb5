"""How many connections a process has: whoever holds many open, and asks nothing, keeps nobody else out."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from relay.settings import Settings

SHARE, SMALLEST_SHARE = 0.2, 10  # of the connections, for one address that is no load balancer's and not trusted
_STATUS = HTTPStatus.SERVICE_UNAVAILABLE
_WHY = json.dumps(
    {
        "statusCode": _STATUS,
        "error": _STATUS.phrase,
        "message": "Too many connections; try again in a second",
        "code": "TooManyConnections",
    }
).encode()
FULL = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\n%b\r\n\r\n%b" % (
    _STATUS,
    _STATUS.phrase.encode(),
    len(_WHY),
    b"Connection: close",
    _WHY,
)


class Crowd:
    """Makes a protocol for each client that comes: the server's own, while there is room for it."""

    def __init__(self, server: web.Server, settings: Settings) -> None:
        self._server, self._most = server, settings.api_connections
        self._share = max(SMALLEST_SHARE, int(self._most * SHARE))
        self._known = (*settings.proxy_networks, *settings.trusted_networks)

    def __call__(self) -> asyncio.Protocol:
        return _Arriving(self)

    def welcome(self, transport: asyncio.Transport) -> None:
        if not self._admits(str((transport.get_extra_info("peername") or ("",))[0])):
            transport.write(FULL)
            transport.close()
            return
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)

    def _admits(self, peer: str) -> bool:
        """It is counted who has which only when somebody could have too many."""
        inside = self._server.connections
        if len(inside) >= self._most:
            return False
        return len(inside) < self._share or self._knows(peer) or sum(map(_from(peer), inside)) < self._share

    def _knows(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._known)


class _Arriving(asyncio.Protocol):
    """A client that is let in, or not."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._crowd.welcome(cast(asyncio.Transport, transport))


def _from(peer: str) -> Any:
    def same(handler: Any) -> bool:
        transport = handler.transport
        return transport is not None and (transport.get_extra_info("peername") or ("",))[0] == peer

    return same
