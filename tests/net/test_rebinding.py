"""DNS rebinding, at every kind of host that a tenant names, by the system's own look-up and with real servers.

127.0.0.1 stands for the permitted Internet, 127.0.0.2 for our own network, where a trap listens at the same port.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.oauth import Client, Denied, refresh_form
from relay.core.tenant import Imap, Mailgun, Smtp, Tls
from relay.net import imap, mailgun, smtp
from relay.net.http import Poster
from relay.net.oauth import Asker
from tests.fakes.imap import Mailserver
from tests.fakes.issuer import CLIENT, SECRET, Issuer
from tests.fakes.mailgun import MailgunServer
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.net.test_connect import TIMEOUTS

ALLOWED = [ip_network("127.0.0.1/32")]
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
CARRIED = ["::ffff:127.0.0.2", "64:ff9b::7f00:2", "2002:7f00:2::1", "::ffff:0:127.0.0.2", "::127.0.0.2"]
HOST = "host.tenant.example"


@dataclass
class Names:
    """What the system's look-up says: the answers one after the other, the last one for ever."""

    answers: list[list[str]] = field(default_factory=list)
    asked: int = 0

    def __call__(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[tuple[Any, ...]]:
        assert host in (HOST, HOST.encode()), host
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [_found(address, port) for address in answer]


def _found(address: str, port: Any) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, int(port), 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))


async def upstream(port: int) -> str:
    try:
        connection = await smtp.connect(
            Smtp(HOST, port, tls=Tls.NONE), hostname="us.example", allowed=ALLOWED, sandbox_port=0, timeouts=TIMEOUTS
        )
    except smtp.UpstreamError as fault:
        return fault.reply.text
    await connection.close()
    return ""


async def mailbox(port: int) -> str:
    settings = Imap(HOST, port, Tls.NONE, user="ann", password="secret")
    try:
        connection = await imap.connect(settings, allowed=ALLOWED, seconds=20)
    except imap.MailboxError as fault:
        return str(fault)
    await connection.close()
    return ""


async def webhook(port: int) -> str:
    poster = Poster(seconds=20, allowed=ALLOWED)
    answer = await poster.post(f"http://{HOST}:{port}/", b"{}", {})
    await poster.close()
    return answer.error


async def issuer(port: int) -> str:
    asker = Asker(seconds=20, allowed=ALLOWED)
    try:
        await asker.tokens(f"http://{HOST}:{port}/token", refresh_form("r"), Client(CLIENT, SECRET))
    except Denied as fault:
        return "" if fault.final else str(fault)  # it knows no such token: it was asked
    finally:
        await asker.close()
    return ""


async def provider(port: int) -> str:
    settings = Mailgun(domain="mg.example", api_key="key", base_url=f"http://{HOST}:{port}")
    try:
        connection = await mailgun.connect(settings, allowed=ALLOWED, timeouts=TIMEOUTS)
    except smtp.UpstreamError as fault:
        return fault.reply.text
    await connection.close()
    return ""


KINDS: dict[str, tuple[Callable[[], Any], Callable[[int], Awaitable[str]]]] = {
    "upstream": (Upstream, upstream),
    "mailbox": (Mailserver, mailbox),
    "webhook": (Receiver, webhook),
    "issuer": (Issuer, issuer),
    "mailgun": (MailgunServer, provider),
}


@dataclass
class Street:
    """A server of one kind outside, the trap inside, and the names that lead to them."""

    server: Any
    reach: Callable[[], Awaitable[str]]
    names: Names
    trapped: int = 0

    def spring(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trapped += 1
        writer.close()


@pytest.fixture(params=KINDS)
async def street(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Street]:
    made, reach = KINDS[request.param]
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(made())
        street = Street(server, lambda: reach(server.port), Names())
        await opened.enter_async_context(await asyncio.start_server(street.spring, INSIDE, server.port))
        monkeypatch.setattr(socket, "getaddrinfo", street.names)
        yield street
        assert street.trapped == 0


async def test_a_name_that_changes_its_mind_is_asked_once_and_its_next_answer_refused(street: Street) -> None:
    street.names.answers = [[OUTSIDE], [INSIDE]]
    assert await street.reach() == ""
    assert street.names.asked == 1
    assert f"{HOST} is {INSIDE}, refused: loopback address" in await street.reach()
    assert street.names.asked == 2


@pytest.mark.parametrize("inside", [INSIDE, *CARRIED])
async def test_of_a_mixed_answer_only_what_is_permitted_is_dialled(street: Street, inside: str) -> None:
    street.names.answers = [[inside, OUTSIDE, inside]]
    assert await street.reach() == ""


@pytest.mark.parametrize("inside", [INSIDE, *CARRIED])
async def test_where_what_is_permitted_does_not_answer_the_rest_is_not_tried(street: Street, inside: str) -> None:
    street.names.answers = [[OUTSIDE, inside]]
    await street.server.stop()
    assert "connection refused" in await street.reach()


@pytest.mark.parametrize("inside", [*CARRIED, "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"])
async def test_inner_addresses_in_other_clothes_are_refused(street: Street, inside: str) -> None:
    street.names.answers = [[inside]]
    assert f"{HOST} is {inside}, refused: " in await street.reach()
    assert street.names.asked == 1
