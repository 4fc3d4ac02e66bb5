"""The SMTP ingress under fuzz: a whole session, in chunks, against a reader of RFC 5321 that fits on half a page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unittest.mock import patch

from relay.core.errors import StoreAway
from relay.core.model import Submission
from relay.ingress import session as sessions
from relay.ingress.connection import INBOX
from relay.ingress.content import EDGE, Content
from relay.ingress.door import Door
from relay.ingress.envelope import Envelope
from relay.ingress.session import Session
from relay.net.transaction import dot_stuffed, final_dot
from tests.fakes.ingress import MESSAGE, Acceptor, Directory, Token, account, sasl, settings_of
from tests.fuzz.target import Target
from tests.fuzz.virtual import Line, Loop

PART = b"\xff"  # what comes before and after it comes apart
SILENCE = b"\xfd"  # ... and with seconds between
SECONDS = 4.0
CHUNK = 64 << 10  # bytes that a socket gives at once
OUTBOX = 64 << 10  # bytes of replies that are held back while there is more to answer
MOST = 2000  # bytes of a message here
TRUSTED, STRANGER, BALANCER = "127.0.0.1", "192.0.2.7", "10.0.0.1"

SETTINGS = settings_of(max_message_size=MOST, max_recipients=5, smtp_auth_delay=1, proxy_networks="10.0.0.0/8")
_REPLY = re.compile(rb"(?:(\d\d\d)-[ -~]*\r\n(?:\1-[ -~]*\r\n)*\1 [ -~]*\r\n|\d\d\d [ -~]*\r\n)")
_BAD_ENDS = (rb"\r?\n", rb"\r\n?|\n", rb"\r", rb"[\r\n]+")  # what other servers take for the end of a line


class _Errors(logging.Handler):
    """What the session logs with a traceback: nobody foresaw it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(record.exc_info[1])


ERRORS = _Errors()
_log = logging.getLogger("postferry.smtp")
_log.addHandler(ERRORS)
_log.propagate = False


class Noted(Content):
    """Knows how much it keeps."""

    kept: list[Noted] = []  # noqa: RUF012

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.kept.append(self)


class Watched(Session):
    """Knows where in the client's bytes each content began."""

    def __init__(self, door: Door, stage: Stage, *, implicit_tls: bool) -> None:
        super().__init__(door, implicit_tls=implicit_tls)
        self.stage = stage

    def say(self, reply: str) -> None:
        super().say(reply)
        if reply.startswith("354"):
            self.stage.begun.append(self.stage.consumed)


class Witness:
    """Stands before the intake and sees what it is given."""

    def __init__(self, stage: Stage, intake: Any) -> None:
        self.stage, self.intake = stage, intake

    async def take(self, envelope: Envelope, content: bytes, login: Any, client: str) -> str:
        self.stage.judge(content)
        return str(await self.intake.take(envelope, content, login, client))


class Stage:
    """One session: the bytes given so far, and where the contents in them are."""

    def __init__(self, loop: Loop, flags: int) -> None:
        self.loop = loop
        self.peer = BALANCER if flags & 8 else STRANGER if flags & 1 else TRUSTED
        self.given = bytearray()
        self.begun: list[int] = []  # where each content begins
        self.taken = 0
        self.acceptor = Acceptor(error=StoreAway() if flags & 4 else None)
        self.loop.run_until_complete(self._open(tls=bool(flags & 2)))

    async def _open(self, *, tls: bool) -> None:
        directory = Directory({"a1": account("a1", email="a@one.example")}, {"t0ken": Token()})
        self.door = Door(SETTINGS, directory, self.acceptor)
        self.door.intake = Witness(self, self.door.intake)  # type: ignore[assignment]
        self.door.tls = object() if tls else None  # type: ignore[assignment]
        self.line = Line(self.loop, self.peer)
        self.session = Watched(self.door, self, implicit_tls=False)
        self.line.set_protocol(self.session)
        self.session.connection_made(self.line)

    @property
    def consumed(self) -> int:
        return len(self.given) - self.session.inbox.size

    def feed(self, chunk: bytes) -> None:
        """Some bytes, and all that comes of them at once."""
        for at in range(0, len(chunk), CHUNK):
            if self.line.closed or not self.session._hears:
                return
            assert not self.line.paused, "the client is not read from although everything could go on"
            self.given += chunk[at : at + CHUNK]
            self.session.data_received(chunk[at : at + CHUNK])
            self.loop.let_pass()
            self._bounded()

    def _bounded(self) -> None:
        assert self.session.inbox.size <= 2 * INBOX + CHUNK
        assert len(self.session._outbox) <= OUTBOX
        for content in Noted.kept:
            assert len(content._kept) <= MOST + EDGE + CHUNK, f"{len(content._kept)} bytes are kept"

    def finish(self) -> None:
        """The client goes, at last; nothing of it stays."""
        if not self.line.closed and self.session.eof_received() is False:
            self.line.close()
        self.loop.let_pass(3600)
        if not self.line.closed:
            self.line.close()
            self.loop.let_pass()
        assert not self.door._inside, "its place was not given back"
        assert self.session._handler_coroutine.done(), "the session goes on for ever"

    def judge(self, content: bytes) -> None:
        """The intake gets what RFC 5321 says, up to exactly there, and nothing in which another server sees an end."""
        assert self.taken < len(self.begun), "a content without its 354"
        start = self.begun[-1]
        self.taken = len(self.begun)
        raw = bytes(self.given[start : self.consumed])
        assert (content, len(raw)) == reference(bytes(self.given[start:])), "another reader reads another message"
        no_other_end(raw.removesuffix(b".\r\n"))


def reference(raw: bytes) -> tuple[bytes, int] | None:
    """The content after DATA without its stuffing, and where it ended (RFC 5321 4.5.2); None: it has not."""
    lines, at = [], 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        line, at = raw[at:end], end + 2
        if line == b".":
            return b"".join(lines), at
        lines.append(line.removeprefix(b".") + b"\r\n")
    return None


def no_other_end(stuffed: bytes) -> None:
    """No server that reads line ends in its own way finds a dot alone before the true end."""
    for ends in _BAD_ENDS:
        for text in (stuffed, stuffed.replace(b"\0", b"")):
            assert b"." not in re.split(ends, text), f"mail can be smuggled: {stuffed[:200]!r}"


def onwards(submission: Submission) -> None:
    """What is sent to an upstream ends once, and is what was accepted."""
    content = submission.mail.content
    wire = b"".join((*dot_stuffed([content]), final_dot([content])))
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    assert reference(wire) == (content, len(wire)), "an upstream reads another message"
    no_other_end(wire.removesuffix(b".\r\n"))


def replies(written: bytes) -> None:
    """Whole lines of printable ASCII, of a length that every client takes (RFC 5321 4.2, 4.5.3.1.5)."""
    at = 0
    while at < len(written):
        match = _REPLY.match(written, at)
        assert match, f"this is no reply: {written[at : at + 100]!r}"
        assert all(len(line) <= 512 for line in match[0].splitlines(keepends=True)), "a reply line is too long"
        at = match.end()


def play(stage: Stage, said: bytes) -> None:
    """The whole of it."""
    stage.loop.let_pass()
    for part in said.split(PART):
        first, *later = part.split(SILENCE)
        stage.feed(first)
        for piece in later:
            stage.loop.let_pass(SECONDS)
            stage.feed(piece)
    stage.finish()


def check(data: bytes) -> None:
    """A session, whatever it is sent: replies are replies, each content is the right one, memory and time are kept."""
    Noted.kept.clear()
    ERRORS.found.clear()
    with patch.object(sessions, "Content", Noted), closing(Loop()) as loop:
        stage = Stage(loop, data[0] if data else 0)
        try:
            play(stage, data[1:])
        finally:
            stage.line.closed = True
    for fault in (*ERRORS.found, *loop.faults):
        raise fault
    replies(bytes(stage.line.written))
    for submission in stage.acceptor.taken:
        onwards(submission)


FALSE_ENDS = (
    *(b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n", b"\r.\r\n", b"\r\n.\0\r\n"),
)
"""What some servers have taken for the end of a message."""


def seeds() -> Iterator[bytes]:
    hello, mail = b"EHLO client.example\r\n", b"MAIL FROM:<a@one.example>\r\n"
    rcpt, data, end = b"RCPT TO:<b@two.example>\r\n", b"DATA\r\n", b".\r\n"
    whole = hello + mail + rcpt + data + MESSAGE + end
    login = b"AUTH PLAIN " + sasl("a1", "t0ken").encode() + b"\r\n"
    yield b"\0" + whole + b"QUIT\r\n"
    yield b"\0" + whole.replace(b"\r\n", b"\r\n\xff") + mail + rcpt + data + MESSAGE + end
    yield (
        b"\0"
        + whole.replace(b"body", b"\xff\r\n..\r\n.\xff.\r\n.x\xfd")
        + b"RSET\r\nNOOP\r\nVRFY x\r\nHELP\r\nQUIT\r\n"
    )
    yield b"\1" + hello + login + mail + rcpt + data + MESSAGE + end
    yield b"\1" + hello + b"AUTH LOGIN\r\n\xffYTE=\r\n\xffdDBrZW4=\r\n" + whole
    yield b"\2" + hello + b"STARTTLS\r\n\xff" + whole
    yield b"\2" + hello + b"STARTTLS\r\n" + whole
    yield b"\3" + hello + b"STARTTLS\r\n\xff" + hello + login + mail + rcpt + data + MESSAGE + end
    yield b"\4" + whole
    yield b"\x08PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + whole
    yield b"\x08\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\2" + whole
    for ending in FALSE_ENDS:
        yield b"\0" + whole.replace(b"body\r\n", b"body" + ending + mail + rcpt + data + b"x\r\n")
        yield b"\0" + whole.replace(b"body\r\n.\r\n", b"body" + ending + b"\xff" + mail + rcpt + data + b"x\r\n.\r\n")
    yield b"\0" + whole.replace(b"body", b"\xfe0123456789\r\n\xfe")
    yield b"\0" + hello + b"\xfex\xfe"
    yield b"\0" + hello + b"\xfeNOOP\r\n\xfe"
    yield b"\0" + hello + mail.replace(b"\r\n", b" SIZE=100 BODY=8BITMIME SMTPUTF8 AUTH=<>\r\n") + rcpt * 6
    yield b"\0" + hello + mail + "RCPT TO:<ü@exämple.de>\r\n".encode() + rcpt + b"\xfd\xfd\xfd" + data


WORDS = (
    *(b"EHLO ", b"HELO x", b"MAIL FROM:<", b"RCPT TO:<", b"DATA\r\n", b"RSET\r\n", b"NOOP", b"VRFY ", b"QUIT\r\n"),
    *(
        b"AUTH PLAIN ",
        b"AUTH LOGIN ",
        b"STARTTLS\r\n",
        b"\r\n.\r\n",
        b"\r\n..\r\n",
        b"\n.\n",
        b"\r.\r",
        b"\r\n.\n",
        b"\0",
    ),
    *(b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b"X-Account: a1\r\n", b"X-Send-At: ", b"\xff", b"\xfd", b"\xfe"),
    *(b"GET / HTTP/1.1", b"PROXY TCP4 ", b"<>", b'"a b"@x.example', b"@", b"\r\n", b">\r\n"),
)

TARGETS = (Target("session", check, seeds, WORDS, share=3),)
