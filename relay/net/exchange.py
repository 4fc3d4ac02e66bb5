"""One HTTP/1.1 connection to a server of a tenant's: dialled as SMTP is, one request at a time, every answer bounded.

Whoever asks learns what a library that posts would hide: whether the whole request had left when something broke. What
was not sent whole cannot have been acted on (RFC 9112 8); what was may have been, although no answer came.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from relay.core.mailgun import Said
from relay.core.networks import Network
from relay.net import dial, guard, tls
from relay.net.dial import Passed, unwatched
from relay.net.http import Patient

MOST_READ = 64 * 1024  # bytes of an answer; of what has more, the rest is not waited for
BODY_SECONDS = 10.0  # that a body may take once the status is known
CHUNK = 256 * 1024  # written at once
KEPT = 3600.0  # s that the library may keep it: how long it idles is for whoever lends it out


class Unsent(Exception):
    """The request did not leave whole. `late`: upstream took too long, rather than that it was gone."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class Unanswered(Exception):
    """The whole request left, and no answer came."""


class Line:
    """The connection. A request that was cancelled or broke off leaves it unusable."""

    def __init__(self, url: str, protocol: ResponseHandler, stall: float, patience: float) -> None:
        """`stall`: seconds that a write may take; `patience`: ... and the answer to a whole request."""
        self._base, self._host = URL(url, encoded=True), urlsplit(url).hostname or ""
        self._protocol, self._stall, self._patience = protocol, stall, patience
        self._busy = False
        self._session = aiohttp.ClientSession(
            connector=_Single(protocol),
            response_class=Patient,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "Postferry/1"},
            read_bufsize=MOST_READ // 4,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trust_env=False,
        )

    @property
    def usable(self) -> bool:
        """Whether another request may be tried: the server is there, as far as we know."""
        return not self._busy and self._protocol.is_connected()

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: Sequence[bytes] = ()) -> Said:
        """The answer to one request, redirects not followed. Raises Unsent or Unanswered."""
        self._busy = True
        try:
            said = await _Request(self._session, self._host, self._stall, self._patience).run(
                method, self._base.joinpath(path.lstrip("/"), encoded=True), headers, body
            )
        except (Unsent, Unanswered):
            self._protocol.close()
            raise
        self._busy = False
        return said

    async def close(self) -> None:
        await self._session.close()
        self._protocol.close()


class _Request:
    """One request, and how far it has come."""

    def __init__(self, session: aiohttp.ClientSession, host: str, stall: float, patience: float) -> None:
        self.session, self.host, self.stall, self.patience = session, host, stall, patience
        self.clock = asyncio.get_running_loop().time
        self.sent = False

    async def run(self, method: str, url: URL, headers: Mapping[str, str], body: Sequence[bytes]) -> Said:
        try:
            async with asyncio.timeout(self.stall) as limit:
                response = await self.session.request(
                    method,
                    url,
                    headers={**headers, "Content-Length": str(sum(map(len, body)))},
                    data=self._pieces(body, limit),
                    allow_redirects=False,
                )
                limit.reschedule(None)
                return await self._read(response)
        except TimeoutError:
            raise self._fault(f"{self.host} did not answer in time", late=True) from None
        except (aiohttp.ClientError, _Gone, OSError) as fault:
            raise self._fault(_why(fault, self.host)) from fault

    async def _pieces(self, body: Sequence[bytes], limit: asyncio.Timeout) -> AsyncIterator[bytes | memoryview]:
        """The body as the server takes it. The request counts as sent from when its last piece may be on its way."""
        pieces = [piece for part in body for piece in _cut(part)] or [b""]
        for piece in pieces[:-1]:
            limit.reschedule(self.clock() + self.stall)
            yield piece
        limit.reschedule(self.clock() + self.patience)
        self.sent = True
        yield pieces[-1]

    async def _read(self, response: aiohttp.ClientResponse) -> Said:
        """That the body breaks off changes nothing about the status."""
        got, whole = bytearray(), False
        try:
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(min(self.patience, BODY_SECONDS)):
                    while len(got) <= MOST_READ and (part := await response.content.readany()):
                        got += part
                    whole = response.content.at_eof()
        finally:
            response.release() if whole and self.sent else response.close()
        # What is cut by us was no answer that anybody waits for: of a stranger's, the beginning is enough.
        return Said(
            response.status,
            bytes(got[:MOST_READ]),
            response.headers.get("Retry-After", ""),
            whole or len(got) > MOST_READ,
        )

    def _fault(self, text: str, *, late: bool = False) -> Unsent | Unanswered:
        return Unanswered(text) if self.sent else Unsent(text, late=late)


async def connect(
    url: str,
    *,
    allowed: Sequence[Network],
    seconds: float,
    stall: float,
    patience: float,
    resolver: guard.Resolver | None = None,
    context: ssl.SSLContext | None = None,
    passed: Passed = unwatched,
) -> Line:
    """A connection to the server of `url`, under TLS where it says https. Raises DialError, or TLS's own OSError.

    `passed` is told of the steps resolve, connect and tls.
    """
    parts = urlsplit(url)
    host, guarded = parts.hostname or "", parts.scheme == "https"
    sock = await dial.dial(
        host, parts.port or (443 if guarded else 80), allowed, seconds, resolver=resolver, passed=passed
    )
    loop = asyncio.get_running_loop()
    encryption: dict[str, Any] = {}
    if guarded:
        encryption = {
            "ssl": context or tls.context(True),
            "server_hostname": host,
            "ssl_handshake_timeout": seconds,
            "ssl_shutdown_timeout": 1.0,
        }
    try:
        _, protocol = await loop.create_connection(lambda: ResponseHandler(loop), sock=sock, **encryption)
    except BaseException:
        sock.close()
        raise
    if guarded:
        passed("tls")
    return Line(url, protocol, stall, patience)


class _Gone(Exception):
    """The one connection is in use or lost: no other is made."""


class _Single(aiohttp.BaseConnector):
    """Gives out the connection that it was given, and makes no other: what became of that one must be known."""

    def __init__(self, protocol: ResponseHandler) -> None:
        super().__init__(limit=1, keepalive_timeout=KEPT)
        self._protocol: ResponseHandler | None = protocol

    async def _create_connection(self, *_: object) -> ResponseHandler:
        protocol, self._protocol = self._protocol, None
        if protocol is None or not protocol.is_connected():
            raise _Gone
        return protocol


def _cut(part: bytes) -> list[bytes | memoryview]:
    if len(part) <= CHUNK:
        return [part] if part else []
    view = memoryview(part)
    return [view[start : start + CHUNK] for start in range(0, len(part), CHUNK)]


def _why(fault: Exception, host: str) -> str:
    match fault:
        case aiohttp.ClientResponseError():
            return f"{host} does not speak HTTP: {fault.message[:200]}"
        case OSError() if fault.errno and not isinstance(fault, aiohttp.ServerDisconnectedError):
            return f"{host}: {os.strerror(fault.errno).lower()}"
        case _:
            return f"{host} closed the connection"
