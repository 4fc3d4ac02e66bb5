"""TLS, by STARTTLS and from the first byte, and the PROXY protocol in front of both."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ingress import PLAIN, House, Token, certificate, opened, sasl, trusting

V2 = b"\r\n\r\n\0\r\nQUIT\n"


@asynccontextmanager
async def guarded(folder: Path, **given: Any) -> AsyncIterator[House]:
    """A house with a certificate, whose clients are not trusted."""
    async with opened(trusted_networks="192.0.2.0/24", **certificate(folder), **given) as house:
        house.directory.tokens["any"] = Token()
        yield house


def v2(source: str, *, command: int = 1) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 1234, 25)
    return V2 + struct.pack("!BBH", 0x20 | command, 0x11, len(addresses)) + addresses


async def test_with_a_certificate_login_waits_for_tls(tmp_path: Path) -> None:
    async with guarded(tmp_path) as house:
        client = await house.client()
        offered = (await client.greet()).split("\n")
        assert "250 STARTTLS" in offered
        assert not any("AUTH" in line for line in offered)
        assert (await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")).startswith("538 5.7.11")


async def test_starttls_then_login_then_mail(tmp_path: Path) -> None:
    async with guarded(tmp_path) as house:
        client = await house.ready()
        assert (await client.ask("STARTTLS")).startswith("220 2.0.0")
        await client.start_tls()
        offered = (await client.ask("EHLO me")).split("\n")
        assert "250 AUTH PLAIN LOGIN" in offered
        assert not any("STARTTLS" in line for line in offered)
        assert (await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")).startswith("235")
        assert (await client.submit(PLAIN)).startswith("250 2.0.0")
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1")


async def test_tls_forgets_what_was_said_before_it(tmp_path: Path) -> None:
    async with opened(**certificate(tmp_path)) as house:
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
        await client.ask("STARTTLS")
        await client.start_tls()
        assert (await client.ask("RCPT TO:<b@two.example>")).startswith("503 5.5.1")
        assert (await client.ask("MAIL FROM:<a@one.example>")).startswith("503 5.5.1")


@pytest.mark.parametrize("injected", [b"EHLO evil\r\n", b"X"])
async def test_what_follows_starttls_in_the_clear_ends_the_session(tmp_path: Path, injected: bytes) -> None:
    async with guarded(tmp_path) as house:
        client = await house.ready()
        await client.send(b"STARTTLS\r\n" + injected)
        assert (await client.reply()).startswith("554 5.5.1")
        assert await client.closed()


@pytest.mark.parametrize("line", ["STARTTLS now"])
async def test_starttls_stands_alone(tmp_path: Path, line: str) -> None:
    async with guarded(tmp_path) as house:
        client = await house.ready()
        assert (await client.ask(line)).startswith("501 5.5.4")


async def test_a_handshake_that_fails_ends_the_session_and_frees_its_place(tmp_path: Path) -> None:
    async with guarded(tmp_path, smtp_connections=1) as house:
        client = await house.ready()
        await client.ask("STARTTLS")
        await client.send(b"this is no handshake\r\n" * 10)
        with_alert = await client.reader.read()
        assert b"250" not in with_alert
        assert await house.door.emptied(5)


async def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    async with guarded(tmp_path) as house:
        client = await house.tls_client()
        offered = await client.greet()
        assert "STARTTLS" not in offered
        assert "AUTH PLAIN LOGIN" in offered
        assert (await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")).startswith("235")
        assert (await client.submit(PLAIN)).startswith("250 2.0.0")
        assert (await client.ask("QUIT")).startswith("221")
        assert await client.closed()


async def test_a_trusted_client_may_log_in_without_tls(tmp_path: Path) -> None:
    async with opened(**certificate(tmp_path)) as house:
        assert "AUTH PLAIN LOGIN" in await (await house.client()).greet()


# ---- PROXY


@pytest.mark.parametrize(
    ("header", "trusted"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\n", True),
        (b"PROXY TCP4 198.51.100.7 127.0.0.1 1234 25\r\n", False),
        (b"PROXY TCP6 2001:db8::1 ::1 1234 25\r\n", False),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1234 25\r\n", True),
        (b"PROXY UNKNOWN\r\n", False),
        (v2("192.0.2.7"), True),
        (v2("198.51.100.7"), False),
        (v2("192.0.2.7", command=0), False),
    ],
)
async def test_trust_goes_by_the_client_behind_the_load_balancer(header: bytes, trusted: bool) -> None:
    async with opened(proxy_networks="127.0.0.0/8", trusted_networks="127.0.0.0/8 192.0.2.0/24") as house:
        client = await house.client(first=header + b"EHLO me\r\nMAIL FROM:<a@one.example>\r\n")
        assert (await client.reply()).startswith("220")
        await client.reply()
        assert (await client.reply()).startswith("250" if trusted else "530 5.7.0")


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO me\r\n",
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1234\r\n",
        b"PROXY TCP4 192.0.2.7 ::1 1234 25\r\n",
        b"PROXY TCP9 192.0.2.7 127.0.0.1 1234 25\r\n",
        b"PROXY " + b"x" * 200 + b"\r\n",
        V2 + b"\x11\x11\0\x0c" + b"\0" * 12,
        V2 + b"\x21\x11\0\x04" + b"\0" * 4,
        b"\r\n\r\n\0\r\nQUIX\n" + b"\x21\x11\0\x0c" + b"\0" * 12,
    ],
)
async def test_a_load_balancer_without_its_header_is_not_heard(header: bytes) -> None:
    async with opened(proxy_networks="127.0.0.0/8") as house:
        client = await house.client(first=header)
        assert await client.closed()


async def test_a_load_balancer_that_says_nothing_is_not_waited_for() -> None:
    async with opened(proxy_networks="127.0.0.0/8", smtp_timeout=0.1) as house:
        client = await house.client()
        assert (await client.reply()).startswith("421")
        assert await client.closed()


async def test_a_client_cannot_speak_for_another() -> None:
    async with opened(proxy_networks="192.0.2.1") as house:
        client = await house.client(first=b"PROXY TCP4 127.0.0.1 127.0.0.1 1234 25\r\n")
        await client.reply()
        assert (await client.reply()).startswith("500 5.5.1")


async def test_proxy_then_tls_in_one_segment(tmp_path: Path) -> None:
    """The load balancer's header and the client's first TLS record may arrive together."""
    async with guarded(tmp_path, proxy_networks="127.0.0.0/8") as house:
        assert "AUTH PLAIN LOGIN" in await _tls_after(house.tls_port, v2("198.51.100.7"))


async def _tls_after(port: int, header: bytes) -> str:
    """Sends the header and the ClientHello in one segment, then EHLO; returns its reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting().wrap_bio(incoming, outgoing)
    first = header

    async def through(step: Any) -> Any:
        nonlocal first
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                writer.write(first + outgoing.read())
                first = b""
                incoming.write(await asyncio.wait_for(reader.read(65536), 10))
            else:
                writer.write(first + outgoing.read())
                return done

    try:
        await through(tls.do_handshake)
        assert (await through(lambda: tls.read(4096))).startswith(b"220")
        await through(lambda: tls.write(b"EHLO me\r\n"))
        return (await through(lambda: tls.read(4096))).decode()
    finally:
        writer.close()


async def test_over_its_share_an_address_hears_no_word_in_the_clear_where_tls_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.ingress.door.SMALLEST_SHARE", 1)
    async with guarded(tmp_path, smtp_connections="5") as house:
        first = await house.client()
        assert (await first.reply()).startswith("220")
        second = await house._connect(house.tls_port)  # and no word of TLS from it
        assert await second.closed()
