"""How many connections a process has, and what each may hold: whoever asks nothing, asks at endless length, or reads no
answer, keeps nobody else out."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from api.problems import Problem, internal, new_id
from relay.core import networks
from relay.settings import Settings

SHARE, SMALLEST_SHARE = 0.2, 10  # of the connections, for one address that is no load balancer's and not trusted
MOST_HEAD = 384 << 10  # bytes of a request line and headers: each has a bound of its own, and these have one together
LINGER = 1.0  # s for last words to be read
UNREAD = 60.0  # s that a client may take none of its answer


FULL = Problem(
    503, "Too many connections; try again in a second", code="TooManyConnections", headers={"Retry-After": "1"}
)
ENDLESS = Problem(431, f"Request line and headers have more than {MOST_HEAD} bytes", code="HeadersTooLarge")
UNREADABLE = Problem(400, "This is no HTTP request that can be read", code="InvalidHttp")


def _said(problem: Problem) -> bytes:
    """The whole answer, before the server has a request that it could answer."""
    id = new_id()
    body = problem.body(id)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Request-Id": id,
        **problem.headers,
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Handler(web.RequestHandler):
    """The server's own, with our words for what never comes as far as the application."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which tells the log
        response = (UNREADABLE if status < 500 else internal()).response(new_id())
        response.force_close()
        return response


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
            transport.write(_said(FULL))
            transport.close()
            return
        handler = self._server()
        handler.__class__ = _Handler  # the server takes no other kind
        guarded = _Guarded(handler)
        transport.set_protocol(guarded)
        guarded.connection_made(transport)

    def _admits(self, peer: str) -> bool:
        """It is counted who has which only when somebody could have too many."""
        inside = self._server.connections
        if len(inside) >= self._most:
            return False
        return (
            len(inside) < self._share
            or networks.within(networks.read(peer), self._known)
            or sum(map(_from(peer), inside)) < self._share
        )


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
        self._handler.data_received(data)
        if not self._awaits_request():
            self._head = 0
            return
        self._head += len(data)
        if self._head > MOST_HEAD:
            self._ended = True
            self._transport.write(_said(ENDLESS))
            self._transport.write_eof()  # to close in front of what is coming would take the answer along
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def _awaits_request(self) -> bool:
        """Not from the moment a head is whole: its body comes before the server has had its turn to begin with it."""
        waiter = self._handler._waiter
        return waiter is not None and not waiter.done()


def _from(peer: str) -> Any:
    def same(handler: Any) -> bool:
        transport = handler.transport
        return transport is not None and (transport.get_extra_info("peername") or ("",))[0] == peer

    return same
