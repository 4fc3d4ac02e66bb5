"""Other people's upstream on a bad day: it takes mail in its own moods, and keeps a ledger of what it took."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.chaos.doubt import Mail

ADDRESS = re.compile(rb"<([^>]*)>")
NOBODY = "nobody"  # recipients beginning so are refused for good
LATER = "later"  # ... so are put off the first time they come
GONE = "gone"  # ... so are taken, and a bounce comes back
ANGRY = "angry"  # ... so are taken, and a complaint comes back
GREETING = b"220 sink ESMTP\r\n"
EXTENSIONS = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-AUTH PLAIN\r\n250 SMTPUTF8\r\n"
LIMIT = 1 << 20


class Cut(Exception):
    """The sink ends this connection without a word."""


@dataclass
class Odds:
    """How likely each mood is, for one occasion of its kind."""

    slow: float = 0.02  # it thinks for up to a second before it answers the dot
    later: float = 0.01  # 451 after the dot
    drop: float = 0.01  # it takes the mail, and cuts the line instead of saying so
    refuse_login: float = 0.01
    close: float = 0.01  # 421 at MAIL
    vanish: float = 0.002  # it cuts the line at any command


CALM = Odds(0, 0, 0, 0, 0, 0)


@dataclass
class Sink:
    """`mails` is the ledger; `moods` counts what it did to whom."""

    seed: int
    host: str = "127.0.0.1"
    odds: Odds = field(default_factory=Odds)
    mails: list[Mail] = field(default_factory=list)
    moods: Counter[str] = field(default_factory=Counter)
    port: int = 0
    takes: Callable[[Mail, bytes], None] | None = None  # told of each mail that is taken, and of its content

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._met: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def copies(self) -> int:
        """So many were taken."""
        return sum(len(mail.recipients) for mail in self.mails if mail.at is not None)

    def feels(self, mood: str) -> bool:
        felt = self._rng.random() < getattr(self.odds, mood)
        self.moods[mood] += felt
        return felt

    def hears(self, recipient: str) -> bytes:
        """The answer to RCPT: to one who is put off, another one the next time."""
        if recipient.startswith(NOBODY):
            return b"550 5.1.1 no such user\r\n"
        if recipient.startswith(LATER) and recipient not in self._met:
            self._met.add(recipient)
            return b"450 4.2.0 its mailbox is being moved\r\n"
        return b"250 2.1.5 ok\r\n"

    async def thinks(self) -> None:
        await asyncio.sleep(self._rng.random())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        session = Session(self, reader, writer)
        try:
            with suppress(OSError, EOFError, Cut, asyncio.LimitOverrunError):
                await session.run()
        finally:
            session.over()
            self._writers.discard(writer)
            writer.transport.abort()


class Session:
    """One connection. Its last mail stays in doubt until the next one's content begins, or the connection ends."""

    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink, self._reader, self._writer = sink, reader, writer
        self._host = ""
        self._mail: Mail | None = None
        self._last: Mail | None = None  # the one before, while it is in doubt

    async def run(self) -> None:
        self._writer.write(GREETING)
        while line := await self._reader.readline():
            if self._sink.feels("vanish"):
                raise Cut
            match line[:4].upper():
                case b"EHLO":
                    self._host = line[5:].strip().decode()
                    self._writer.write(EXTENSIONS)
                case b"AUTH":
                    no = self._sink.feels("refuse_login")
                    self._writer.write(b"535 5.7.8 not today\r\n" if no else b"235 2.7.0 ok\r\n")
                case b"MAIL":
                    await self._begin(_address(line))
                case b"RCPT":
                    self._recipient(_address(line))
                case b"DATA":
                    await self._data()
                case b"RSET" | b"NOOP":
                    self._writer.write(b"250 2.0.0 ok\r\n")
                case b"QUIT":
                    self._writer.write(b"221 2.0.0 bye\r\n")
                    await self._writer.drain()
                    return
                case _:
                    self._writer.write(b"500 5.5.2 what\r\n")
            await self._writer.drain()

    def over(self) -> None:
        for mail in (self._last, self._mail):
            if mail is not None:
                mail.next = time.time()

    async def _begin(self, sender: str) -> None:
        """Said behind the last dot, it says nothing of what became of that mail."""
        self._last, self._mail = self._mail or self._last, None
        if self._sink.feels("close"):
            self._writer.write(b"421 4.3.2 going away\r\n")
            await self._writer.drain()
            raise Cut
        self._mail = Mail(self._host, sender.partition("@")[0], time.time())
        self._sink.mails.append(self._mail)
        self._writer.write(b"250 2.1.0 ok\r\n")

    def _recipient(self, address: str) -> None:
        reply = self._sink.hears(address)
        if reply[:1] == b"2" and self._mail is not None:
            self._mail.recipients.append(address)
        self._writer.write(reply)

    async def _data(self) -> None:
        mail = self._mail
        if mail is None or not mail.recipients:
            self._writer.write(b"554 5.5.1 nobody to send to\r\n")
            return
        self._writer.write(b"354 go on\r\n")
        await self._writer.drain()
        line = await self._reader.readline()
        if self._last is not None:
            self._last.next, self._last = time.time(), None
        mail.began = time.time()
        content = bytearray()
        while line != b".\r\n":
            if not line:
                raise Cut
            content += line.removeprefix(b".")
            line = await self._reader.readline()
        dotted = time.time()
        if self._sink.feels("slow"):
            await self._sink.thinks()
        if self._sink.feels("later"):
            self._writer.write(b"451 4.3.0 not now\r\n")
            return
        if self._sink.takes:
            self._sink.takes(mail, bytes(content))
        mail.at, mail.told = dotted, not (self._sink.feels("drop") or self._writer.transport.is_closing())
        if not mail.told:
            raise Cut
        self._writer.write(b"250 2.0.0 ok: queued as SINK1\r\n")


def _address(line: bytes) -> str:
    found = ADDRESS.search(line)
    return found[1].decode("utf-8", "replace") if found else ""
