"""How many connections a process has, and what each may hold: whoever asks nothing, asks at endless length, or reads no
answer, keeps nobody else out."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from relay.settings import Settings

SHARE, SMALLEST_SHARE = 0.2, 10  # of the connections, for one address that is no load balancer's and not trusted
MOST_HEAD = 384 << 10  # bytes of a request line and headers: each has a bound of its own, and these have one together
LINGER = 1.0  # s for last words to be read
UNREAD = 60.0  # s that a client may take none of its answer


def _answer(status: HTTPStatus, message: str, code: str, more: str = "") -> bytes:
    """Said before the server has a request that it could answer."""
    told = {"statusCode": status, "error": status.phrase, "message": message, "code": code}
    body = json.dumps(told).encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}Connection: close\r\n\r\n".encode() + body


FULL = _answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many connections; try again in a second",
    "TooManyConnections",
    "Retry-After: 1\r\n",
)
ENDLESS = _answer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"Request line and headers have more than {MOST_HEAD} bytes",
    "HeadersTooLarge",
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
        guarded = _Guarded(self._server())
        transport.set_protocol(guarded)
        guarded.connection_made(transport)

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


class _Guarded(asyncio.Protocol):
    """Stands before the server's handler of one client."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._head = 0  # bytes of a request that is not whole yet
        self._unread: asyncio.TimerHandle | None = None
        self._ended = False  # we said our last words; what still comes is dropped, for a moment

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.resume_writing()
        self._handler.connection_lost(error)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._handler.eof_received())

    def pause_writing(self) -> None:
        """It reads more slowly than we answer."""
        self._unread = asyncio.get_running_loop().call_later(UNREAD, self._transport.abort)
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
            self._handler.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        handler = self._handler
        heads = handler._request_count
        handler.data_received(data)
        if handler._request_count != heads or handler._current_request is not None:
            self._head = 0
            return
        self._head += len(data)
        if self._head > MOST_HEAD:
            self._ended = True
            self._transport.write(ENDLESS)
            self._transport.write_eof()  # to close in front of what is coming would take the answer along
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)


def _from(peer: str) -> Any:
    def same(handler: Any) -> bool:
        transport = handler.transport
        return transport is not None and (transport.get_extra_info("peername") or ("",))[0] == peer

    return same
