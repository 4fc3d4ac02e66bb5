"""Mail over an open SMTP connection: pipelined where upstream offers it (RFC 5321, 2920)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.core.reply import Reply, Stage
from relay.net.envelope import Envelope as Envelope
from relay.net.envelope import Words
from relay.net.wire import Lost, Wire

CHUNK = 256 * 1024
BRIEF = 5.0  # seconds for RSET and QUIT, whose answers change nothing


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
    eager = True  # says the next envelope behind a mail's dot
    balked = False  # upstream fell silent or hung up over that

    def __init__(self, wire: Wire, extensions: Mapping[str, str], timeouts: Timeouts) -> None:
        self.extensions = extensions
        self.used = 0  # transactions so far
        self._wire = wire
        self._timeouts = timeouts
        self._pipelining = "pipelining" in extensions
        self._busy = False
        self._ahead: Words | None = None  # the envelope that was said behind the last mail's dot

    @property
    def usable(self) -> bool:
        """Whether any transaction may be tried: upstream is there, as far as we know, and waits for a command."""
        return self._ahead is None and self._waits

    def takes(self, envelope: Envelope) -> bool:
        """Whether this one may be: as `usable`, or it is the one that upstream was told of."""
        return self._waits and (self._ahead is None or self._ahead.envelope == envelope)

    @property
    def _waits(self) -> bool:
        return self._wire.alive and not self._busy

    @property
    def encrypted(self) -> bool:
        return self._wire.encrypted

    async def transact(
        self,
        envelope: Envelope,
        content: Sequence[bytes],
        *,
        wanted: Callable[[], bool] = always,
        following: Envelope | None = None,
    ) -> Sequence[Result]:
        """One mail to these recipients: one result each, in their order. Never raises for what upstream does.

        `content` is RFC 5322 with CRLF line ends only, in slices, not dot-stuffed. `wanted` is asked before the final
        dot, which cannot be taken back; if not, Withheld is raised. That, and being cancelled, leaves the connection
        unusable.

        `following`, of the next call, is said behind the final dot where upstream offers pipelining (RFC 2920, 3.1), so
        that a mail takes one round trip instead of two. From then on the connection takes that one alone.
        """
        words, self._ahead = self._ahead, None
        assert words is None or words.envelope == envelope, "another envelope than upstream was told of"
        transaction = _Transaction(
            self._wire,
            words or Words(envelope, self.extensions),
            self._timeouts,
            told=words is not None,
            pipelining=self._pipelining,
            reused=self.used > 0,
            wanted=wanted,
            following=Words(following, self.extensions) if following and self.eager and self._pipelining else None,
        )
        self.used += 1
        self._busy = True
        results = await transaction.run(content)
        self._ahead, self.balked = transaction.ahead, transaction.balked
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
        words: Words,
        timeouts: Timeouts,
        *,
        told: bool,
        pipelining: bool,
        reused: bool,
        wanted: Callable[[], bool],
        following: Words | None,
    ) -> None:
        self.wire = wire
        self.words = words
        self.timeouts = timeouts
        self.told = told  # the envelope was said behind the last mail's dot
        self.pipelining = pipelining
        self.reused = reused
        self.wanted = wanted
        self.following = following if following and following.of_use else None
        self.ahead: Words | None = None  # `following`, once it is said
        self.recipients = words.envelope.recipients
        self.results = {
            place: Result(self.recipients[place], stage, reply) for place, (stage, reply) in words.refused.items()
        }
        self.stage = Stage.MAIL
        self.answered = False  # upstream said something about this transaction, and is not just leaving
        self.balked = told  # until it says something to what it was told of
        self.dotted = False  # the final dot is written: from here on it may have been sent

    async def run(self, content: Sequence[bytes]) -> Sequence[Result]:
        if self.pending:
            try:
                await self._exchange(content)
                await self._reset()
            except Lost as lost:
                stale = self.reused and not self.answered
                self._settle(self.stage, lost.reply, lost=self.dotted, stale=stale)
        return [self.results[place] for place in range(len(self.recipients))]

    @property
    def pending(self) -> bool:
        """Whether some recipient may still be sent to."""
        return len(self.results) < len(self.recipients)

    # The exchange.

    async def _exchange(self, content: Sequence[bytes]) -> None:
        if self.pipelining and not self.told:
            self.wire.send(self.words.together, self.words.count)
        await self._sender(self.words.mail)
        await self._recipients(self.words.rcpts)
        if self.pipelining or self.pending:
            await self._data(content)

    async def _ask(self, command: bytes) -> Reply:
        if not self.pipelining:
            self.wire.send(command, 1)
        return await self.wire.reply(self.timeouts.command)

    async def _sender(self, command: bytes) -> None:
        reply = await self._ask(command)
        self.balked = False
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

    async def _data(self, content: Sequence[bytes]) -> None:
        self.stage = Stage.DATA
        reply = await self._ask(b"DATA\r\n")
        if reply.code != 354:
            self._settle(Stage.DATA, reply)
            if reply.code < 400:
                self.wire.abort("upstream is out of step")
        elif self.pending:
            await self._content(content)
        else:  # it takes content for nobody: an empty one, whose answer says nothing (RFC 2920 3.1)
            self.wire.send(b".\r\n", 1)
            await self.wire.reply(self.timeouts.command)

    async def _content(self, content: Sequence[bytes]) -> None:
        """One write for small content; large content as upstream takes it, never copied whole."""
        chunks, end = dot_stuffed(content), final_dot(content)
        if self.words.envelope.size <= CHUNK:
            end = b"".join((*chunks, end))
        else:
            for chunk in chunks:
                self.wire.send(chunk, 0)
                await self.wire.drained(self.timeouts.command)
        if not self.wanted():
            raise Withheld
        self.stage, self.dotted = Stage.DOT, True
        self.ahead = self.following
        if self.ahead:
            self.wire.send(end + self.ahead.together, 1 + self.ahead.count)
        else:
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


def _good(reply: Reply) -> bool:
    return 200 <= reply.code < 300


def dot_stuffed(content: Sequence[bytes]) -> Iterator[bytes]:
    """The content with a dot before each leading dot (RFC 5321 4.5.2), in chunks."""
    before = b"\r\n"
    for piece in content:
        for start in range(0, len(piece), CHUNK):
            chunk = before + piece[start : start + CHUNK]
            before = chunk[-2:]
            yield (chunk.replace(b"\r\n.", b"\r\n..") if b"\r\n." in chunk else chunk)[2:]


def final_dot(content: Sequence[bytes]) -> bytes:
    """What ends this content: a dot on a line of its own."""
    tail = b"".join(piece[-2:] for piece in content)[-2:]
    return b".\r\n" if tail in (b"", b"\r\n") else b"\r\n.\r\n"
