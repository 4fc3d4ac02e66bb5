"""TLS once the handshake is over: nobody begins another one, and records without data have an end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which

import pytest

from relay.core.tenant import Smtp, Tls
from relay.ingress import connection
from relay.net import http, tls
from relay.net.smtp import Timeouts
from tests.fakes.ingress import certificate, opened, trusting
from tests.fakes.places import HOST
from tests.fakes.updates import Updates, secret_of
from tests.fakes.upstream import certificate as upstream_certificate
from tests.fakes.upstream import server_context
from tests.net.test_connect import LOCAL, refusal
from tests.stack import PATIENCE

ALLOW_CLIENT_RENEGOTIATION = 1 << 8  # of OpenSSL 3; what 1.1.1 always does
CHUNK = 65_536
LONG = 10 * PATIENCE  # who is patient for so long is not what ends it


@asynccontextmanager
async def openssl(*args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Its command line, which takes single letters for orders."""
    if which("openssl") is None:
        pytest.skip("openssl is not installed")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "openssl", *args, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def heard(process: asyncio.subprocess.Process, words: bytes) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readuntil(words), PATIENCE)


def order(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")


# ---- another handshake


@pytest.mark.parametrize("implicit", [True, False])
async def test_a_client_begins_no_other_handshake(tmp_path: Path, implicit: bool) -> None:
    """Given an OpenSSL that would let it, as 1.1.1 does."""
    async with opened(**certificate(tmp_path)) as house:
        assert house.door.tls is not None
        house.door.tls.options |= ALLOW_CLIENT_RENEGOTIATION
        way = ["-connect", f"{HOST}:{house.tls_port}"]
        if not implicit:
            way = ["-connect", f"{HOST}:{house.port}", "-starttls", "smtp"]
        async with openssl("s_client", "-tls1_2", *way) as client:
            await heard(client, b"ESMTP Postferry" if implicit else b"Verify return code")
            order(client, b"R")
            await heard(client, b"no renegotiation")


@pytest.mark.parametrize("verified", [True, False])
async def test_an_upstream_begins_no_other_handshake(trusted: None, tmp_path: Path, verified: bool) -> None:
    chain = tmp_path / "both.pem"
    chain.write_bytes(b"".join(upstream_certificate()))
    async with openssl("s_server", "-tls1_2", "-accept", f"{HOST}:0", "-cert", str(chain)) as server:
        port = int((await heard(server, b"ACCEPT 127.0.0.1:") + await heard(server, b"\n"))[-6:])
        smtp = Smtp(HOST, port, tls=Tls.IMPLICIT, verify_certificate=verified)
        reaching = asyncio.create_task(refusal(smtp))
        await heard(server, b"CIPHER is")
        order(server, b"r")
        await heard(server, b"no renegotiation")
        assert (await reaching).kind in ("tls", "lost")


# ---- records without data


@pytest.mark.parametrize("asking", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
async def test_a_client_that_says_nothing_in_ever_so_many_records_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool, asking: bool
) -> None:
    monkeypatch.setattr(connection, "STRANGER_SECONDS", LONG)
    async with opened(trusted_networks="192.0.2.0/24", smtp_timeout=LONG, **certificate(tmp_path)) as house:
        port = house.tls_port if implicit else house.port
        await asyncio.to_thread(flooding, port, tmp_path / "keys.log", implicit=implicit, asking=asking)
        assert await house.door.emptied(PATIENCE)


async def test_what_was_said_before_pays_for_no_flood(tmp_path: Path) -> None:
    async with opened(smtp_timeout=LONG, **certificate(tmp_path)) as house:
        much = b"NOOP " + b"x" * 10_000 + b"\r\n"
        await asyncio.to_thread(flooding, house.tls_port, tmp_path / "keys.log", much)
        assert await house.door.emptied(PATIENCE)


def flooding(port: int, log: Path, before: bytes = b"", *, implicit: bool = True, asking: bool = False) -> None:
    """A client, until its connection ends; `before`: what it says first, in one record."""
    context = trusting()
    context.keylog_filename = str(log)
    with socket.create_connection((HOST, port), PATIENCE) as plain:
        if not implicit:
            for line in (b"EHLO me\r\n", b"STARTTLS\r\n"):
                plain.recv(CHUNK)
                plain.sendall(line)
            assert plain.recv(CHUNK).startswith(b"220 2.0.0")
        inside = context.wrap_socket(plain)
        inside.sendall(before)
        with bare(inside) as wire:
            flood(wire, Updates(secret_of("CLIENT", log), said=bool(before)), asking=asking)


def flood(wire: socket.socket, updates: Updates, *, asking: bool) -> None:
    with suppress(ConnectionError):
        wire.sendall(updates.flood(3 * tls.IDLE // 27, asking=asking))
        while wire.recv(CHUNK):
            pass


def bare(wrapped: ssl.SSLSocket) -> socket.socket:
    """What is below TLS, once hands are shaken."""
    below = socket.socket(fileno=wrapped.detach())
    below.settimeout(PATIENCE)
    return below


async def test_bytes_that_come_one_by_one_are_read(tmp_path: Path) -> None:
    async with opened(**certificate(tmp_path)) as house:
        client = await house.tls_client()
        await client.greet()
        await client.begin()
        for byte in b"Subject: x\r\n\r\n" + b"one by one\r\n" * (tls.IDLE // 200) + b".\r\n":
            client.writer.write(bytes([byte]))
        assert (await client.reply()).startswith("250 2.0.0")


@asynccontextmanager
async def flooded(log: Path) -> AsyncIterator[int]:
    """The port of a server that does the same to one client."""
    context = server_context()
    context.keylog_filename, context.num_tickets = str(log), 0
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(PATIENCE)

        def serve() -> None:
            client, _ = listening.accept()
            with client, bare(context.wrap_socket(client, server_side=True)) as wire:
                flood(wire, Updates(secret_of("SERVER", log)), asking=True)

        serving = asyncio.create_task(asyncio.to_thread(serve))
        yield listening.getsockname()[1]
        await serving


async def test_an_upstream_that_says_nothing_in_ever_so_many_records_is_left(trusted: None, tmp_path: Path) -> None:
    async with flooded(tmp_path / "keys.log") as port:
        fault = await refusal(Smtp(HOST, port, tls=Tls.IMPLICIT), Timeouts(60, 60, 60))
    assert fault.kind != "silent"
    assert "in time" not in fault.reply.text


async def test_an_endpoint_that_does_so_is_left(trusted: None, tmp_path: Path) -> None:
    async with flooded(tmp_path / "keys.log") as port:
        poster = http.Poster(seconds=60, allowed=LOCAL)
        answer = await poster.post(f"https://{HOST}:{port}/", b"{}", {})
        await poster.close()
    assert answer.error == "the connection was lost before an answer came: protocol error"
