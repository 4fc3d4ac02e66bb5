"""Other people's upstream on a bad day: it takes mail in its own moods, and keeps a ledger of what it took."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.chaos.ledger import Taken

ADDRESS = re.compile(rb"<([^>]*)>")
NOBODY = "nobody"  # recipients beginning so are refused for good
LATER = "later"  # ... so are put off the first time they come
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
    refuse_login: float = 0.0
    close: float = 0.01  # 421 at MAIL


@dataclass
class Sink:
    """`taken` is the ledger; `open` counts connections, `untold` the mails it took without saying so."""

    seed: int
    odds: Odds = field(default_factory=Odds)
    taken: list[Taken] = field(default_factory=list)
    open: int = 0
    untold: int = 0
    moods: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._met: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def calm(self) -> None:
        """From now on it does as it should."""
        self.odds = Odds(0, 0, 0, 0, 0)

    def _feels(self, mood: str) -> bool:
        felt = self._rng.random() < getattr(self.odds, mood)
        self.moods[mood] += felt
        return felt

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        try:
            with suppress(OSError, EOFError, Cut, asyncio.LimitOverrunError):
                await self._session(reader, writer)
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.transport.abort()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        account, recipients = "", list[str]()
        while line := await reader.readline():
            verb = line[:4].upper()
            match verb:
                case b"EHLO":
                    writer.write(EXTENSIONS)
                case b"AUTH":
                    if self._feels("refuse_login"):
                        writer.write(b"535 5.7.8 not today\r\n")
                    else:
                        writer.write(b"235 2.7.0 ok\r\n")
                case b"MAIL":
                    if self._feels("close"):
                        writer.write(b"421 4.3.2 going away\r\n")
                        await writer.drain()
                        raise Cut
                    account, recipients = _address(line).partition("@")[0], []
                    writer.write(b"250 2.1.0 ok\r\n")
                case b"RCPT":
                    writer.write(self._heard(_address(line), recipients))
                case b"DATA":
                    if recipients:
                        await self._content(reader, writer, account, recipients)
                    else:
                        writer.write(b"554 5.5.1 nobody to send to\r\n")
                case b"RSET" | b"NOOP":
                    writer.write(b"250 2.0.0 ok\r\n")
                case b"QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    await writer.drain()
                    return
                case _:
                    writer.write(b"500 5.5.2 what\r\n")
            await writer.drain()

    def _heard(self, recipient: str, recipients: list[str]) -> bytes:
        if recipient.startswith(NOBODY):
            return b"550 5.1.1 no such user\r\n"
        if recipient.startswith(LATER) and recipient not in self._met:
            self._met.add(recipient)
            return b"450 4.2.0 its mailbox is being moved\r\n"
        recipients.append(recipient)
        return b"250 2.1.5 ok\r\n"

    async def _content(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, account: str, recipients: list[str]
    ) -> None:
        writer.write(b"354 go on\r\n")
        await writer.drain()
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise Cut
        if self._feels("slow"):
            await asyncio.sleep(self._rng.random())
        if self._feels("later"):
            writer.write(b"451 4.3.0 not now\r\n")
            return
        cut = self._feels("drop") or writer.transport.is_closing()
        self.taken += [Taken(account, recipient, time.monotonic(), told=not cut) for recipient in recipients]
        if cut:
            self.untold += len(recipients)
            raise Cut
        writer.write(b"250 2.0.0 ok: queued as SINK1\r\n")


def _address(line: bytes) -> str:
    found = ADDRESS.search(line)
    return found[1].decode("utf-8", "replace") if found else ""
