"""The sandbox as a process: mail becomes files, failures on demand, and nothing that comes in does harm."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.core.tenant import Smtp, Tls
from relay.net.envelope import Envelope
from relay.net.smtp import Connection, Result, Timeouts, connect
from tests.keeping import kept

TIMEOUTS = Timeouts(connect=10, command=10, data=10)


@dataclass
class Sandbox:
    process: asyncio.subprocess.Process
    port: int
    folder: Path

    def mails(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))


async def start(folder: Path, port: int = 0) -> asyncio.subprocess.Process:
    arguments = ("-m", "relay.sandbox", "--dir", str(folder), "--port", str(port))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    process = await start(tmp_path / "mail")
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    with kept(process.pid):
        yield Sandbox(process, int(said.partition(",")[0].rpartition(":")[2]), tmp_path / "mail")
    if process.returncode is None:
        process.terminate()
    await process.communicate()


@pytest.fixture
async def connection(sandbox: Sandbox) -> AsyncIterator[Connection]:
    smtp = Smtp("sandbox", 25, tls=Tls.OPPORTUNISTIC)
    opened = await connect(smtp, hostname="us.example", allowed=(), sandbox_port=sandbox.port, timeouts=TIMEOUTS)
    yield opened
    await opened.close()


async def send(
    connection: Connection, *recipients: str, content: bytes = b"Subject: x\r\n\r\nbody\r\n"
) -> list[Result]:
    return list(
        await connection.transact(Envelope("me@example.com", tuple(recipients), len(content), eightbit=True), [content])
    )


async def talk(port: int, data: bytes) -> bytes:
    """Everything that is answered to this, until the sandbox or the QUIT in it ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(60):
        answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "content",
    [b"Subject: x\r\n\r\nbody\r\n", b".\r\n..\r\n.a\r\n", b"\xff\xfe\r\n", b"\r\n", b"x" * 3_000_000 + b"\r\n.y\r\n"],
    ids=lambda content: repr(content[:12]),
)
async def test_a_file_holds_exactly_what_was_sent(sandbox: Sandbox, connection: Connection, content: bytes) -> None:
    [result] = await send(connection, "ann@example.org", content=content)
    [mail] = sandbox.mails()
    assert mail.read_bytes() == content
    assert result.reply.text == f"kept as {mail.name}"


async def test_files_are_named_in_order_and_after_the_recipient(sandbox: Sandbox, connection: Connection) -> None:
    await send(connection, "ann@example.org")
    await send(connection, "../../etc/ärger x@example.org", "bob@example.org")
    first, second = sandbox.mails()
    assert first.name.endswith("-000001-ann@example.org.eml")
    assert second.name.endswith("-000002-.._.._etc_ärger_x@example.org+1.eml")


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("fail@example.org", "550 5.1.1"),
        ("Fail+1@example.org", "550 5.1.1"),
        ("defer@example.org", "451 4.3.0"),
        ("bounce@example.org", "550 5.1.1"),
        ("failure@example.org", "250 2.0.0"),
    ],
)
async def test_some_recipients_fail_on_demand(connection: Connection, recipient: str, reply: str) -> None:
    [result] = await send(connection, recipient)
    assert str(result.reply).startswith(reply)


async def test_commands_out_of_order_are_refused(sandbox: Sandbox) -> None:
    said = await talk(
        sandbox.port, b"RCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nRCPT TO:<>\r\nFOO\r\nQUIT\r\n"
    )
    assert [line[:3] for line in said.splitlines()] == [b"220", b"503", b"554", b"250", b"503", b"501", b"500", b"221"]


async def test_mail_that_comes_in_single_bytes_is_whole(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    for byte in b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
    await reader.read(-1)
    writer.close()
    assert sandbox.mails()[0].read_bytes() == b".x\r\n"


async def test_a_line_without_end_ends_the_connection(sandbox: Sandbox) -> None:
    assert b"421 4.5.2" in await talk(sandbox.port, b"x" * 5_000)


async def test_mail_over_the_limit_is_refused_and_forgotten(sandbox: Sandbox) -> None:
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
    large = (b"x" * 1022 + b"\r\n") * (65 * 1024)
    said = await talk(sandbox.port, envelope + large + b".\r\n" + envelope + b"small\r\n.\r\nQUIT\r\n")
    assert b"552 5.3.4" in said
    assert [mail.read_bytes() for mail in sandbox.mails()] == [b"small\r\n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_good_order(sandbox: Sandbox, connection: Connection, number: signal.Signals) -> None:
    sandbox.process.send_signal(number)
    async with asyncio.timeout(10):
        assert await sandbox.process.wait() == 0


async def test_a_port_that_is_taken_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    process = await start(tmp_path / "other", sandbox.port)
    _, said = await process.communicate()
    assert process.returncode == 69
    assert f"cannot listen on port {sandbox.port}".encode() in said
    assert b"Traceback" not in said


async def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    process = await start(tmp_path / "file")
    _, said = await process.communicate()
    assert process.returncode == 73
    assert b"Traceback" not in said
