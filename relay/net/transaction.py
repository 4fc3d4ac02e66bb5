"""Mail over an open SMTP connection: pipelined where upstream offers it (RFC 5321, 2920)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.core.reply import Reply, Stage
from relay.net.envelope import Envelope, Words
from relay.net.stuffing import CHUNK, dot_stuffed, final_dot
from relay.net.wire import Lost, Wire

FRESH = 20.0  # seconds that an upstream waits for the content of what it was told of; later we begin anew
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

    `lost`: the content was handed over and no reply to it came: it may have been sent. `stale`: the kept connection was
    dead, or out of step, before upstream had all of the content: trying again on a new one repeats nothing.
    """

    recipient: str
    stage: Stage
    reply: Reply
    lost: bool = False
    stale: bool = False


class Withheld(Exception):
    """It was wanted no more when its final dot was about to be written: upstream sends nothing of it."""


def always() -> bool:
    return True


class Connection:
    """An upstream that is greeted and logged in to. One mail at a time, and behind its dot the envelope of the next."""

    greeted = True  # upstream has let us in

    def __init__(self, wire: Wire, extensions: Mapping[str, str], timeouts: Timeouts) -> None:
        self.extensions = extensions
        self.used = 0  # transactions so far
        self._wire = wire
        self._timeouts = timeouts
        self._pipelining = "pipelining" in extensions
        self._busy = False
        self._ahead: Words | None = None  # the envelope that was said behind the last mail's dot
        self._since = 0.0  # when that mail was answered; of time.monotonic()
        self._risked = self._proven = False  # one was said so; upstream took one said so

    @property
    def usable(self) -> bool:
        """Whether any transaction may be tried: upstream is there, as far as we know, and waits for a command."""
        return self._ahead is None and self._waits

    @property
    def told(self) -> bool:
        """Whether upstream waits for the content of an envelope that it was told of."""
        return self._ahead is not None and self._waits

    def takes(self, envelope: Envelope) -> bool:
        """Whether this one may be: as `usable`, or it is the one that upstream was told of, and not long ago."""
        if self._ahead is None:
            return self._waits
        return self._waits and self._ahead.envelope == envelope and time.monotonic() < self._since + FRESH

    @property
    def balked(self) -> bool:
        """Whether upstream left, fell silent or lost count over an envelope behind a dot, and never took one so."""
        return self._risked and not self._proven and not self._wire.alive

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
        self._busy = True
        words, self._ahead = self._ahead, None
        assert words is None or words.envelope == envelope, "another envelope than upstream was told of"
        transaction = _Transaction(
            self._wire,
            words or Words(envelope, self.extensions),
            self._timeouts,
            told=words is not None,
            proven=self._proven,
            pipelining=self._pipelining,
            reused=self.used > 0,
            wanted=wanted,
            following=Words(following, self.extensions) if following and self._pipelining else None,
        )
        self.used += 1
        results = await transaction.run(content)
        self._ahead, self._since = transaction.ahead, time.monotonic()
        self._risked = self._risked or transaction.ahead is not None
        self._proven = transaction.proven
        self._busy = False
        return results

    async def close(self) -> None:
        """Say QUIT if that is still possible; whatever comes of it, the connection is gone."""
        if self.usable:
            self._wire.send(b"QUIT\r\n", 1)
            with suppress(Lost):
                await self._wire.reply(min(BRIEF, self._timeouts.command))
        self._wire.abort("closed")


class _OutOfStep(Exception):
    """Upstream's replies and what it was told of do not belong together, or may not."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class _Transaction:
    """One MAIL/RCPT/DATA exchange, and the results it has so far by the recipient's place."""

    def __init__(
        self,
        wire: Wire,
        words: Words,
        timeouts: Timeouts,
        *,
        told: bool,
        proven: bool,
        pipelining: bool,
        reused: bool,
        wanted: Callable[[], bool],
        following: Words | None,
    ) -> None:
        self.wire = wire
        self.words = words
        self.timeouts = timeouts
        self.told = told  # the envelope was said behind the last mail's dot
        self.proven = proven  # upstream took one that was
        self.pipelining = pipelining
        self.reused = reused
        self.wanted = wanted
        self.following = following if following and following.of_use else None
        self.ahead: Words | None = None  # `following`, once it is said
        self.recipients = words.envelope.recipients
        self.results = self._unsaid()
        self.stage = Stage.MAIL
        self.answered = False  # upstream said something about this transaction, and is not just leaving
        self.dotted = False  # the final dot is written: from here on it may have been sent

    async def run(self, content: Sequence[bytes]) -> Sequence[Result]:
        if self.pending:
            try:
                await self._exchange(content)
                await self._reset()
            except Lost as lost:
                stale = not self.dotted and (self.told or (self.reused and not self.answered))
                self._settle(self.stage, lost.reply, lost=self.dotted, stale=stale)
            except _OutOfStep as fault:
                self._forget(fault)
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
        self.answered = reply.code != 421
        if _good(reply):
            return
        if reply.code < 400 or (self.told and not self.proven and self.answered):
            raise _OutOfStep(reply)  # it may have lost MAIL, and mean what comes after
        self._settle(Stage.MAIL, reply, stale=self.reused and not self.answered)

    async def _recipients(self, commands: Mapping[int, bytes]) -> None:
        self.stage = Stage.RCPT
        for place, command in commands.items():
            if self.pipelining or self.pending:
                reply = await self._ask(command)
                if 300 <= reply.code < 400 or (self.told and not self.proven and _of_order(reply)):
                    raise _OutOfStep(reply)
                if not _good(reply):
                    self._refuse(place, reply)

    async def _data(self, content: Sequence[bytes]) -> None:
        self.stage = Stage.DATA
        reply = await self._ask(b"DATA\r\n")
        if reply.code != 354:
            if reply.code < 400 or (self.told and self.pending and not self.proven):
                raise _OutOfStep(reply)
            self._settle(Stage.DATA, reply)
            return
        self.proven = self.proven or self.told
        if self.pending:
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
        await self.wire.drained(self.timeouts.command)
        if not self.wanted():
            raise Withheld
        self.stage, self.dotted = Stage.DOT, True
        self.ahead = self.following
        if self.ahead:
            self.wire.send(end + self.ahead.together, 1 + self.ahead.count)
        else:
            self.wire.send(end, 1)
        reply = await self.wire.reply(self.timeouts.data)
        if 300 <= reply.code < 400:
            self.wire.abort("upstream is out of step")
        if reply.code == 421:  # it leaves, as it would have without what is behind the dot
            self.ahead = None
            self.wire.abort("upstream said 421")
        self._settle(Stage.DOT, reply, lost=300 <= reply.code < 400)

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

    def _unsaid(self) -> dict[int, Result]:
        """Those of recipients whom upstream was told nothing of."""
        refused = self.words.refused.items()
        return {place: Result(self.recipients[place], stage, reply) for place, (stage, reply) in refused}

    def _forget(self, fault: _OutOfStep) -> None:
        """Whose answers these are is not known, and nothing was handed over: all of it is asked anew, elsewhere."""
        self.results, self.proven = self._unsaid(), False
        self._settle(Stage.MAIL, Reply(451, "4.5.0", f"upstream is out of step: {fault.reply}"), stale=True)
        self.wire.abort("upstream is out of step")

    def _refuse(self, place: int, reply: Reply) -> None:
        self.results.setdefault(place, Result(self.recipients[place], Stage.RCPT, reply))

    def _settle(self, stage: Stage, reply: Reply, *, lost: bool = False, stale: bool = False) -> None:
        """The same result for every recipient that has none yet."""
        for place, recipient in enumerate(self.recipients):
            self.results.setdefault(place, Result(recipient, stage, reply, lost, stale))


def _good(reply: Reply) -> bool:
    return 200 <= reply.code < 300


def _of_order(reply: Reply) -> bool:
    """Whether it may speak of the order of the commands, and not of what this one said (RFC 5321 4.2.4, 3463 3.6)."""
    return reply.code == 503 or reply.enhanced in ("5.5.0", "5.5.1")
