"""Mail over an open SMTP connection: pipelined where upstream offers it (RFC 5321, 2920, 1870, 6152, 6531)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.core.address import ascii_domain
from relay.core.reply import Reply, Stage
from relay.net.wire import Lost, Wire

CHUNK = 256 * 1024
BRIEF = 5.0  # seconds for RSET and QUIT, whose answers change nothing
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f<>\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to reach an upstream, TLS and login each; for a reply; for the reply to the final dot."""

    connect: float
    command: float
    data: float


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recipient.

    `lost`: the content was handed over and no reply came: it may have been sent. `stale`: the kept connection was dead
    before upstream saw anything of this transaction: trying again on a new one repeats nothing.
    """

    recipient: str
    stage: Stage
    reply: Reply
    lost: bool = False
    stale: bool = False


class Withheld(Exception):
    """It was wanted no more when it was about to be handed over: upstream has nothing of it."""


def always() -> bool:
    return True


class Connection:
    """An upstream that is greeted and logged in to. One transaction at a time."""

    greeted = True  # upstream has let us in

    def __init__(self, wire: Wire, extensions: Mapping[str, str], timeouts: Timeouts) -> None:
        self.extensions = extensions
        self.used = 0  # transactions so far
        self._wire = wire
        self._timeouts = timeouts
        self._busy = False

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried: upstream is there, as far as we know, and waits for a command."""
        return self._wire.alive and not self._busy

    @property
    def encrypted(self) -> bool:
        return self._wire.encrypted

    async def transact(
        self,
        sender: str,
        recipients: Sequence[str],
        content: Sequence[bytes],
        *,
        smtputf8: bool,
        eightbit: bool,
        wanted: Callable[[], bool] = always,
    ) -> Sequence[Result]:
        """One mail to these recipients: one result each, in their order. Never raises for what upstream does.

        `content` is RFC 5322 with CRLF line ends only, in slices, not dot-stuffed. `wanted` is asked before the final
        dot, which cannot be taken back; if not, Withheld is raised. That, and being cancelled, leaves the connection
        unusable.
        """
        transaction = _Transaction(
            self._wire, self.extensions, self._timeouts, recipients, reused=self.used > 0, wanted=wanted
        )
        self.used += 1
        self._busy = True
        results = await transaction.run(sender, content, smtputf8=smtputf8, eightbit=eightbit)
        self._busy = False
        return results

    async def close(self) -> None:
        """Say QUIT if that is still possible; whatever comes of it, the connection is gone."""
        if self.usable:
            self._wire.send(b"QUIT\r\n", 1)
            with suppress(Lost):
                await self._wire.reply(min(BRIEF, self._timeouts.command))
        self._wire.abort("closed")


class _Transaction:
    """One MAIL/RCPT/DATA exchange, and the results it has so far by the recipient's place."""

    def __init__(
        self,
        wire: Wire,
        extensions: Mapping[str, str],
        timeouts: Timeouts,
        recipients: Sequence[str],
        *,
        reused: bool,
        wanted: Callable[[], bool],
    ) -> None:
        self.wire = wire
        self.extensions = extensions
        self.timeouts = timeouts
        self.recipients = recipients
        self.reused = reused
        self.wanted = wanted
        self.pipelining = "pipelining" in extensions
        self.results: dict[int, Result] = {}
        self.stage = Stage.MAIL
        self.answered = False  # upstream said something about this transaction, and is not just leaving
        self.dotted = False  # the final dot is written: from here on it may have been sent

    async def run(self, sender: str, content: Sequence[bytes], *, smtputf8: bool, eightbit: bool) -> Sequence[Result]:
        wide = smtputf8 or not all(map(str.isascii, (sender, *self.recipients)))
        utf8 = wide and "smtputf8" in self.extensions
        size = sum(map(len, content))
        mail = self._mail(sender, size, utf8=utf8, eightbit=eightbit)
        rcpts = self._rcpts(utf8=utf8)
        if self.pending:
            try:
                await self._exchange(mail, rcpts, content, size)
                await self._reset()
            except Lost as lost:
                stale = self.reused and not self.answered
                self._settle(self.stage, lost.reply, lost=self.dotted, stale=stale)
        return [self.results[place] for place in range(len(self.recipients))]

    @property
    def pending(self) -> bool:
        """Whether some recipient may still be sent to."""
        return len(self.results) < len(self.recipients)

    # What is said before anything is written.

    def _mail(self, sender: str, size: int, *, utf8: bool, eightbit: bool) -> bytes:
        """The MAIL command; refuses for all recipients what upstream has said it would refuse."""
        limit = self.extensions.get("size", "")
        if limit.isdecimal() and 0 < int(limit) < size:
            self._settle(
                Stage.MAIL, Reply(552, "5.3.4", f"message size {size} is over upstream's limit of {limit} bytes")
            )
        try:
            command = b"MAIL FROM:<" + _path(sender, utf8=utf8) + b">"
        except _Unsayable as fault:
            self._settle(Stage.MAIL, fault.reply)
            return b""
        if "size" in self.extensions:
            command += b" SIZE=%d" % size
        # Without the extension the content goes as it is: re-encoding would break signatures, and the few servers
        # without it mostly pass the eighth bit on.
        if eightbit and "8bitmime" in self.extensions:
            command += b" BODY=8BITMIME"
        return command + (b" SMTPUTF8\r\n" if utf8 else b"\r\n")

    def _rcpts(self, *, utf8: bool) -> dict[int, bytes]:
        """The RCPT commands by the recipient's place; refuses the recipients whose address cannot be said."""
        commands = {}
        for place, recipient in enumerate(self.recipients):
            try:
                commands[place] = b"RCPT TO:<" + _path(recipient, utf8=utf8) + b">\r\n"
            except _Unsayable as fault:
                self._refuse(place, fault.reply)
        return commands

    # The exchange.

    async def _exchange(self, mail: bytes, rcpts: Mapping[int, bytes], content: Sequence[bytes], size: int) -> None:
        if self.pipelining:
            self.wire.send(b"".join((mail, *rcpts.values(), b"DATA\r\n")), len(rcpts) + 2)
        await self._sender(mail)
        await self._recipients(rcpts)
        if self.pipelining or self.pending:
            await self._data(content, size)

    async def _ask(self, command: bytes) -> Reply:
        if not self.pipelining:
            self.wire.send(command, 1)
        return await self.wire.reply(self.timeouts.command)

    async def _sender(self, command: bytes) -> None:
        reply = await self._ask(command)
        self.answered = reply.code != 421
        if not _good(reply):
            self._settle(Stage.MAIL, reply, stale=self.reused and not self.answered)

    async def _recipients(self, commands: Mapping[int, bytes]) -> None:
        self.stage = Stage.RCPT
        for place, command in commands.items():
            if self.pipelining or self.pending:
                reply = await self._ask(command)
                if not _good(reply):
                    self._refuse(place, reply)

    async def _data(self, content: Sequence[bytes], size: int) -> None:
        self.stage = Stage.DATA
        reply = await self._ask(b"DATA\r\n")
        if reply.code != 354:
            self._settle(Stage.DATA, reply)
            if reply.code < 400:
                self.wire.abort("upstream is out of step")
        elif self.pending:
            await self._content(content, size)
        else:  # it takes content for nobody: an empty one, whose answer says nothing (RFC 2920 3.1)
            self.wire.send(b".\r\n", 1)
            await self.wire.reply(self.timeouts.command)

    async def _content(self, content: Sequence[bytes], size: int) -> None:
        """One write for small content; large content as upstream takes it, never copied whole."""
        chunks, end = dot_stuffed(content), final_dot(content)
        if size <= CHUNK:
            end = b"".join((*chunks, end))
        else:
            for chunk in chunks:
                self.wire.send(chunk, 0)
                await self.wire.drained(self.timeouts.command)
        if not self.wanted():
            raise Withheld
        self.stage, self.dotted = Stage.DOT, True
        self.wire.send(end, 1)
        self._settle(Stage.DOT, await self.wire.reply(self.timeouts.data))

    async def _reset(self) -> None:
        """After a transaction that broke off, upstream forgets what it has of it. If not, the connection is no use."""
        if self.dotted or not self.wire.alive:
            return
        self.wire.send(b"RSET\r\n", 1)
        try:
            reply = await self.wire.reply(min(BRIEF, self.timeouts.command))
        except Lost:
            return
        if not _good(reply):
            self.wire.abort("upstream refused RSET")

    # Results.

    def _refuse(self, place: int, reply: Reply) -> None:
        self.results.setdefault(place, Result(self.recipients[place], Stage.RCPT, reply))

    def _settle(self, stage: Stage, reply: Reply, *, lost: bool = False, stale: bool = False) -> None:
        """The same result for every recipient that has none yet."""
        for place, recipient in enumerate(self.recipients):
            self.results.setdefault(place, Result(recipient, stage, reply, lost, stale))


class _Unsayable(Exception):
    """An address that this upstream cannot be told."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        self.reply = Reply(code, enhanced, text)


def _path(text: str, *, utf8: bool) -> bytes:
    """The address on the wire. Addresses were validated at accept; what could end the command is refused here again."""
    if UNSPEAKABLE.search(text):
        raise _Unsayable(553, "5.1.3", "the address has characters that no command can carry")
    try:
        return text.encode() if utf8 else ascii_domain(text).encode("ascii")
    except UnicodeError:
        fault = "upstream does not offer SMTPUTF8, and the address cannot be written in ASCII"
        raise _Unsayable(553, "5.6.7", f"{text}: {fault}") from None


def _good(reply: Reply) -> bool:
    return 200 <= reply.code < 300


def dot_stuffed(content: Sequence[bytes]) -> Iterator[bytes]:
    """The content with a dot before each leading dot (RFC 5321 4.5.2), in chunks."""
    before = b"\r\n"
    for piece in content:
        for start in range(0, len(piece), CHUNK):
            chunk = before + piece[start : start + CHUNK]
            yield chunk.replace(b"\r\n.", b"\r\n..")[2:]
            before = chunk[-2:]


def final_dot(content: Sequence[bytes]) -> bytes:
    """What ends this content: a dot on a line of its own."""
    tail = b"".join(piece[-2:] for piece in content)[-2:]
    return b".\r\n" if tail in (b"", b"\r\n") else b"\r\n.\r\n"
