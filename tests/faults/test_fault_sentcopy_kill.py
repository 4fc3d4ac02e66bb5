"""A real worker is killed (SIGKILL) at each step of the Sent copy, and started again: one copy in the end.

Each step has an account and a mailbox of its own, whose server stops answering there. So one kill is one at each step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from relay.core.tenant import Imap
from relay.settings import Settings
from relay.store import db
from tests.copying import Desk, message, theirs
from tests.dovecot import Dovecot
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import GMAIL, Labels
from tests.stack import Stack, until
from tests.watching import opened

HASTY = {
    "POSTFERRY_MAILBOX_CONNECTIONS": "400",
    "POSTFERRY_COPY_LOOKS": "3600",
    "POSTFERRY_COPY_RETRIES": "0.1 " * 8,
    "POSTFERRY_MAILBOX_TIMEOUT": "60",
}
GMAIL_SENT, GMAIL_TRASH = "[Gmail]/Sent Mail", "[Gmail]/Trash"
COMMAND = re.compile(rb"[A-P]{4}\d+ (?!CAPABILITY|LOGIN|AUTHENTICATE|LOGOUT)[A-Z]+[ \r]")


@asynccontextmanager
async def killed(
    environ: Mapping[str, str], folder: Path, desk: Desk, stuck: Callable[[], bool]
) -> AsyncIterator[None]:
    """A worker until it is stuck everywhere; it is killed, and another does the work."""
    stack = Stack({**environ, **HASTY}, folder)
    try:
        await stack.start("mailbox")
        await until(stuck)
        await stack.kill("mailbox")
        yield
        await desk.due()  # what it had claimed: nobody waits a minute here
        await stack.start("mailbox")
        await until(desk.rested)
        stack.tell()
    finally:
        stack.close()


async def owed(desk: Desk, step: int, imap: Imap) -> bytes:
    """An account whose message was sent; what it is."""
    content = message(f"{imap.port}-{step}@example.com")
    await desk.account(f"a{step}", at=imap)
    await desk.send(content, bcc=("eve@example.net",), account=f"a{step}")
    return content


def ours(content: bytes) -> bytes:
    """In the provider's words, and with Bcc."""
    return content.replace(b"<ann@example.com>", b"<ann@corp.example>").replace(
        b"\r\nSubject", b"\r\nBcc: eve@example.net\r\nSubject"
    )


async def commands_of(desk: Desk, make: Callable[[], MailboxServer], path: str) -> int:
    """How many it takes when nothing goes wrong."""
    async with make() as server:
        content = await owed(desk, 0, server.imap())
        server.put(path, theirs(content))
        await desk.work()
        return len(server.verbs)


@dataclass
class Case:
    """A mailbox whose server hangs at this command: before it is done, or before it is answered."""

    server: MailboxServer
    path: str
    step: int
    done: bool
    content: bytes = b""

    @property
    def stuck(self) -> bool:
        return len(self.server.verbs) > self.step

    def __str__(self) -> str:
        return f"killed {'after' if self.done else 'before'} the last of {self.server.verbs[: self.step + 1]}"


async def test_a_worker_killed_at_each_command_leaves_one_copy_in_the_end(
    pool: db.Pool, settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    desk = Desk(pool, settings, Imap("127.0.0.1"))
    async with AsyncExitStack() as held:
        cases = []
        for make, path in (MailboxServer, "Sent"), (lambda: MailboxServer(store=Labels(GMAIL)), GMAIL_SENT):
            for step in range(await commands_of(desk, make, path)):
                for done in False, True:
                    cases.append(Case(await held.enter_async_context(make()), path, step, done))
        for number, case in enumerate(cases):
            case.content = await owed(desk, number, case.server.imap())
            case.server.put(case.path, theirs(case.content))
            (case.server.when_done if case.done else case.server.when)("*", skip=case.step).hang()
        async with killed(environ, tmp_path, desk, lambda: all(case.stuck for case in cases)):
            for case in cases:
                assert case.server.mails(case.path), case  # never none
                case.server.calm()
        for case in cases:
            assert [mail.content for mail in case.server.mails(case.path)] == [ours(case.content)], case
            assert case.path != GMAIL_SENT or case.server.mails(GMAIL_TRASH) == [], case


class Gate:
    """A cable to a real server that holds still at its `step`th command: before it, or before its answer."""

    def __init__(self, port: int, step: int, done: bool) -> None:
        self.port, self._there, self._step, self._done = 0, port, step, done
        self.seen = 0
        self.open = False  # it holds nothing any more

    @property
    def stuck(self) -> bool:
        return self.seen > self._step

    def __str__(self) -> str:
        return f"killed {'after' if self._done else 'before'} command {self._step}"

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._there)
        answers = asyncio.create_task(_flow(there, writer))
        try:
            with suppress(OSError):
                while line := await reader.readline():
                    self.seen += bool(COMMAND.match(line))
                    if not self.open and self.seen > self._step:
                        answers.cancel()
                        if not self._done:
                            await reader.read(-1)
                            return
                    back.write(line)
                    await back.drain()
        finally:
            answers.cancel()
            for one in (writer, back):
                one.close()


async def _flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def test_a_real_server_has_one_copy_in_the_end_too(
    pool: db.Pool, settings: Settings, environ: dict[str, str], tmp_path: Path, dovecot: Dovecot
) -> None:
    sent, box = "Verschickt & raus", dovecot.imap("uml")
    desk = Desk(pool, settings, box)
    async with AsyncExitStack() as held:
        mailbox = await held.enter_async_context(opened(box, settings))

        async def filed(number: int, gate: Gate) -> bytes:
            content = await owed(desk, number, replace(box, port=gate.port))
            await mailbox.append(sent, theirs(content), date=desk.began)
            return content

        async with Gate(dovecot.port, 1000, False) as gate:
            await filed(0, gate)
            await desk.work()
        gates = [
            await held.enter_async_context(Gate(dovecot.port, step, done))
            for step in range(gate.seen)
            for done in (False, True)
        ]
        contents = [await filed(number, gate) for number, gate in enumerate(gates)]
        async with killed(environ, tmp_path, desk, lambda: all(gate.stuck for gate in gates)):
            for gate in gates:
                gate.open = True
        await mailbox.select(sent)
        for number, (gate, content) in enumerate(zip(gates, contents, strict=True)):
            uids = await mailbox.find(f"{gate.port}-{number}@example.com")
            assert [await mailbox.content(uid, 1 << 20) for uid in uids] == [ours(content)], gate
