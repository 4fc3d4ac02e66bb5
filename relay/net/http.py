"""Posts to somebody's HTTP endpoint, trusting it little: judged addresses, no redirect, a few KB read, seconds at most.

Every address is judged as it is dialled (net/guard.py), whether the URL spells it or DNS answered it: a name that
changes its mind, or a connection that was kept, leads nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from relay.core.networks import Network
from relay.net import guard
from relay.net.tls import context

KEPT = 2000  # characters of an answer's body
LONGEST_ERROR = 500  # characters of why there is none; what is no HTTP is told with all that came
MOST_READ = 8192  # bytes of it; when more comes, the connection is dropped
BODY_SECONDS = 2.0  # that a body may take once the status is known
RECEIVED = 16_384  # bytes that the system holds for us: so much is read in one go, while nobody else is served
INTERIM = 10  # answers of 1xx before the one that counts
IDLE_SECONDS = 30.0  # that an unused connection is kept
AGAIN = 3  # tries on kept connections that turn out to be closed
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Exhausted(Exception):
    """This machine has no socket left: nothing was learnt about the endpoint."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a post."""

    status: int | None  # None: there was no answer
    error: str  # why not, or why the answer is no success; "" for 2xx
    seconds: float
    response: str  # the beginning of the body: storable text

    @property
    def good(self) -> bool:
        return not self.error

    @property
    def gone(self) -> bool:
        return self.status == HTTPStatus.GONE


class Poster:
    """Keeps connections. Made inside a running loop; `seconds` bound a post as a whole, `resolver` is for tests.

    `most`: bytes that are read of an answer, `kept`: characters of them that are told; `inside`: it goes to networks
    that the operator opened by name, and to no other.
    """

    def __init__(
        self,
        *,
        seconds: float,
        allowed: Sequence[Network],
        resolver: guard.Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        most: int = MOST_READ,
        kept: int = KEPT,
        inside: bool = False,
    ) -> None:
        self._seconds, self._allowed = seconds, allowed
        self._most, self._kept, self._inside = most, kept, inside
        self._loop = asyncio.get_running_loop()
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_reused)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # whoever posts bounds how many at once
                ssl=tls or context(True),
                resolver=_Judging(allowed, resolver),
                socket_factory=self._socket,
                keepalive_timeout=IDLE_SECONDS,
            ),
            response_class=Patient,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            read_bufsize=MOST_READ,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trace_configs=[tracing],
            trust_env=False,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Posts and tells what came of it; that is never an exception but Exhausted. `url` is ASCII, as it is sent."""
        return await self._ask("POST", url, body, headers)

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The same, asking for what is there."""
        return await self._ask("GET", url, None, headers)

    async def _ask(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        begun = self._loop.time()
        try:
            response = await self._send(method, URL(url, encoded=True), body, headers, begun + self._seconds)
        except Exception as fault:
            why = storable(self._why(fault)[:LONGEST_ERROR])
            return Answer(None, why, self._loop.time() - begun, "")
        try:
            beginning = await self._beginning(response, begun + self._seconds)
        finally:
            response.release() if response.content.at_eof() else response.close()
        return Answer(response.status, storable(_judged(response)), self._loop.time() - begun, beginning)

    async def close(self) -> None:
        await self._session.close()

    async def _send(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str], deadline: float
    ) -> aiohttp.ClientResponse:
        """The answer's status and headers. A kept connection that the other side has closed meanwhile is replaced."""
        async with asyncio.timeout_at(deadline):
            for attempt in range(AGAIN + 1):
                seen = SimpleNamespace(reused=False)
                try:
                    return await self._session.request(
                        method, url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=seen
                    )
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as fault:
                    if not seen.reused or isinstance(fault, aiohttp.ClientConnectorError) or attempt == AGAIN:
                        raise
        raise AssertionError("unreachable")

    async def _beginning(self, response: aiohttp.ClientResponse, deadline: float) -> str:
        """What came of the body in time; that it breaks off changes nothing about the status."""
        got = bytearray()
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout_at(min(deadline, self._loop.time() + BODY_SECONDS)):
                while len(got) < self._most and (part := await response.content.readany()):
                    got += part
        return storable(bytes(got[: self._most]).decode("utf-8", "replace"))[: self._kept]

    def _socket(self, info: Any) -> socket.socket:
        """The last look: literals in a URL come here without passing a resolver."""
        family, kind, protocol, _, sockaddr = info
        try:
            guard.check(family, sockaddr, self._allowed, inside=self._inside)
        except guard.Forbidden as fault:
            raise _NotAllowed(fault) from fault
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
        return made

    def _why(self, fault: Exception) -> str:
        """Why there is no answer, in words for the subscriber."""
        cause: Any = getattr(fault, "os_error", fault)
        match fault:
            case TimeoutError():
                return f"no answer within {self._seconds:g} s"
            case _ if isinstance(cause, _NotAllowed):
                return f"{cause.fault}. The operator can allow it with POSTFERRY_ALLOW_NETWORKS"
            case OSError() if cause.errno in OURS:
                raise Exhausted(os.strerror(cause.errno)) from fault
            case aiohttp.ClientConnectorCertificateError():
                return f"the certificate is refused: {_certificate_reason(fault.certificate_error)}"
            case aiohttp.ClientSSLError():
                return f"no TLS connection: {getattr(cause, 'reason', None) or cause}"
            case aiohttp.ClientConnectorDNSError():
                return f"no such host: {fault.host} ({getattr(cause, 'strerror', None) or cause})"
            case aiohttp.ClientConnectorError():
                return f"no connection to {fault.host} port {fault.port}: {_spelled(cause)}"
            case aiohttp.ServerDisconnectedError():
                return "the connection was closed before an answer came"
            case OSError():
                return f"the connection was lost before an answer came: {_spelled(fault)}"
            case aiohttp.InvalidURL():
                return "not a URL that can be posted to"
            case aiohttp.ClientResponseError():
                return f"the answer is not HTTP: {fault.message}"
            case _:
                return f"it cannot be posted: {fault or type(fault).__name__}"


class Patient(aiohttp.ClientResponse):
    """An answer that others may precede, but not for ever: reading them keeps everybody else waiting."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        protocol, left = connection.protocol, INTERIM + 1
        read = protocol.read

        async def counted() -> Any:
            nonlocal left
            message, payload = await read()
            left -= 1
            if left < 0:
                raise HttpProcessingError(message=f"more than {INTERIM} interim answers (1xx)")
            return message, payload

        protocol.read = counted
        try:
            return await super().start(connection)
        finally:
            del protocol.read


class _NotAllowed(OSError):
    """Forbidden as aiohttp passes it on: as the reason of a failed look-up or connection."""

    def __init__(self, fault: guard.Forbidden) -> None:
        super().__init__(errno.EACCES, str(fault))
        self.fault = fault


class _Judging(AbstractResolver):
    """Answers the permitted addresses of a name."""

    def __init__(self, allowed: Sequence[Network], look_up: guard.Resolver | None) -> None:
        self._allowed, self._look_up = allowed, look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            targets = await guard.resolve(host, port, self._allowed, resolver=self._look_up)
        except guard.Forbidden as fault:
            raise _NotAllowed(fault) from fault
        return [
            ResolveResult(hostname=host, host=target.address, port=port, family=target.family, proto=0, flags=0)
            for target in targets
        ]

    async def close(self) -> None:
        return None


async def _reused(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.reused = True


def _judged(response: aiohttp.ClientResponse) -> str:
    """Why the answer is no success; "" when it is one."""
    status = response.status
    if 200 <= status < 300:
        return ""
    try:
        said = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    if 300 <= status < 400:
        where = response.headers.get("Location", "")[:200]
        return f"it answered {said}; redirects are not followed" + (f" (to {where})" if where else "")
    return f"it answered {said}"


def storable(text: str) -> str:
    """What PostgreSQL can hold: no NUL, no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


def _spelled(fault: BaseException) -> str:
    number = getattr(fault, "errno", None)
    return os.strerror(number).lower() if number else str(fault) or type(fault).__name__


def _certificate_reason(fault: BaseException) -> str:
    return str(getattr(fault, "verify_message", "") or fault)
