"""Reach an upstream: dial a permitted address, TLS, EHLO, AUTH. Mail over the connection is in transaction.py.

TLS: `implicit` and `starttls` never go on without it; `opportunistic` takes it when offered; `none` never asks. The
certificate must be valid for the configured host, unless the account says otherwise. A login goes over a connection in
the clear only where the account's own setting is `opportunistic` or `none`. Plaintext that was injected behind the
answer to STARTTLS is thrown away before the handshake, and what was learnt before TLS is forgotten (RFC 3207 4.2).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import cast

import aiosmtplib

from relay.core.masking import masked
from relay.core.networks import Network
from relay.core.reply import Reply, Stage, compose
from relay.core.tenant import Smtp, Tls
from relay.net import dial, guard, tls
from relay.net.dial import Passed, unwatched
from relay.net.login import login
from relay.net.transaction import Connection as Connection
from relay.net.transaction import Result as Result
from relay.net.transaction import Timeouts as Timeouts
from relay.net.wire import Wire

SANDBOX = "sandbox"
LOOPBACK = "127.0.0.1"
UNREACHED = {"forbidden": (550, "5.7.1"), "dns": (451, "4.4.3"), "unreachable": (451, "4.4.1")}
EHLO_NAME = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")


class UpstreamError(Exception):
    """An upstream that could not be reached. `kind`: forbidden, dns, unreachable, tls, certificate, lost or refused."""

    def __init__(self, stage: Stage, reply: Reply, kind: str) -> None:
        super().__init__(f"{stage}: {reply}")
        self.stage, self.reply, self.kind = stage, reply, kind


async def connect(
    smtp: Smtp,
    *,
    hostname: str,
    allowed: Sequence[Network],
    sandbox_port: int,
    timeouts: Timeouts,
    resolver: guard.Resolver | None = None,
    passed: Passed = unwatched,
) -> Connection:
    """A connection that is greeted, encrypted as the account says, and logged in. Raises UpstreamError.

    `hostname` is our name in EHLO where the account has none of its own; `allowed`: private networks that may be
    dialled; `passed` is told of the steps resolve, connect, tls, ehlo and auth, those that are taken.
    """
    host, port = smtp.host, smtp.port
    if sandbox_port and host == SANDBOX:
        host, port, allowed = LOOPBACK, sandbox_port, [ip_network(LOOPBACK)]
    sock = await _dial(host, port, allowed, timeouts.connect, resolver, passed)
    client = aiosmtplib.SMTP(
        sock=sock,
        hostname=host,
        local_hostname=_ehlo_name(smtp.name or hostname),
        use_tls=smtp.tls is Tls.IMPLICIT,
        start_tls=False,  # ours to ask for, below
        tls_context=tls.context(smtp.verify_certificate) if smtp.tls is not Tls.NONE else None,
        timeout=timeouts.connect,
    )
    try:
        await _open(client, smtp, passed)
        wire = Wire(cast(asyncio.Transport, client.transport))
    except BaseException:
        _abort(client, sock)
        raise
    return Connection(wire, client.esmtp_extensions, timeouts)


async def _dial(
    host: str, port: int, allowed: Sequence[Network], seconds: float, resolver: guard.Resolver | None, passed: Passed
) -> socket.socket:
    try:
        return await dial.dial(host, port, allowed, seconds, resolver=resolver, passed=passed)
    except dial.DialError as fault:
        raise UpstreamError(Stage.CONNECT, Reply(*UNREACHED[fault.kind], str(fault)), fault.kind) from fault


async def _open(client: aiosmtplib.SMTP, smtp: Smtp, passed: Passed) -> None:
    """Greeting, EHLO, STARTTLS and EHLO again, AUTH."""
    with _faults(Stage.CONNECT, smtp.host):
        await client.connect()
    if smtp.tls is Tls.IMPLICIT:
        passed("tls")
    with _faults(Stage.EHLO, smtp.host):
        await _hello(client)
    passed("ehlo")
    if smtp.tls is Tls.STARTTLS or (smtp.tls is Tls.OPPORTUNISTIC and "starttls" in client.esmtp_extensions):
        await _start_tls(client, smtp.host)
        passed("tls")
    if smtp.user:
        await _log_in(client, smtp)
        passed("auth")


async def _hello(client: aiosmtplib.SMTP) -> None:
    """EHLO; HELO for servers of before 1995."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as fault:
        if fault.code not in (500, 502, 504) or not client.is_connected:
            raise
        await client.helo()


async def _start_tls(client: aiosmtplib.SMTP, host: str) -> None:
    if "starttls" not in client.esmtp_extensions:
        raise UpstreamError(Stage.TLS, Reply(454, "4.7.0", f"{host} does not offer STARTTLS"), "tls")
    with _faults(Stage.TLS, host):
        await client.starttls()
    with _faults(Stage.EHLO, host):
        await client.ehlo()


async def _log_in(client: aiosmtplib.SMTP, smtp: Smtp) -> None:
    async def say(line: bytes) -> Reply:
        response = await client.execute_command(line)
        return compose(response.code, response.message.split("\n"))

    with _faults(Stage.AUTH, smtp.host):
        encrypted = client.get_transport_info("sslcontext") is not None
        reply = await login(say, smtp, client.server_auth_methods, encrypted=encrypted)
    if reply.code != 235:  # there are servers that repeat what they are told
        reply = replace(reply, text=masked(reply.text, (smtp.password, smtp.access_token)))
        raise UpstreamError(Stage.AUTH, reply, "refused")


@contextmanager
def _faults(stage: Stage, host: str) -> Iterator[None]:
    """What goes wrong becomes one UpstreamError, in words that a person can act on."""
    try:
        yield
    except aiosmtplib.SMTPResponseException as fault:
        raise UpstreamError(stage, _said(fault, host), "refused") from fault
    except (aiosmtplib.SMTPException, OSError) as fault:
        cause = fault.__cause__ if isinstance(fault.__cause__, OSError) else fault
        raise broken(stage, cause, host) from fault


def _said(fault: aiosmtplib.SMTPResponseException, host: str) -> Reply:
    if 200 <= fault.code < 600:
        return compose(fault.code, fault.message.split("\n"))
    return compose(451, [f"4.5.0 {host} does not speak SMTP: {fault.message[:80]}"])


def broken(stage: Stage, cause: BaseException, host: str) -> UpstreamError:
    """A connection that TLS, silence or a close ended at this stage."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UpstreamError(Stage.TLS, Reply(451, "4.7.5", tls.words(cause, host)), "certificate")
    if isinstance(cause, ssl.SSLError):
        return UpstreamError(Stage.TLS, Reply(451, "4.7.0", tls.words(cause, host)), "tls")
    if isinstance(cause, TimeoutError):
        return UpstreamError(stage, Reply(451, "4.4.2", f"{host} did not answer in time"), "lost")
    return UpstreamError(stage, Reply(451, "4.4.2", f"{host} closed the connection"), "lost")


def _abort(client: aiosmtplib.SMTP, sock: socket.socket) -> None:
    """At once, without TLS's farewell. The socket itself belongs to a transport by now, which the client may have let
    go of: closing it here would leave the loop watching a number that the next connection gets.
    """
    if client.transport is not None:
        cast(asyncio.Transport, client.transport).abort()
    client.close()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _ehlo_name(name: str) -> str:
    return name if EHLO_NAME.fullmatch(name) else "localhost"
