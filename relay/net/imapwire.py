"""An IMAP connection as bytes (RFC 3501): imaplib on a socket of ours, every answer bounded in size and in time.

It blocks: it belongs to a thread of its own. What imaplib logs and keeps of commands is switched off, for passwords are
among them.
"""

from __future__ import annotations

import base64
import imaplib
import itertools
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from relay.net.imapfaults import Ended, Misunderstood, OutOfTurn, Silent, TooMuch

T = TypeVar("T")
MOST_BYTES = 1 << 20  # of all lines that answer one command, literals among them, unless it is allowed more
DEEPEST = 100  # parentheses inside each other: imapclient reads each level by calling itself
CHUNK = 16 * 1024
LONGEST = 500  # characters of what a server says
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")
BRIEF = 5.0  # seconds for LOGOUT, whose answer changes nothing
KEPT = ("CAPABILITY", "BYE")  # what was said counts beyond the command that it came with


class Wire(imaplib.IMAP4):
    """Greeted when it is made. Each command has `seconds` for its whole answer, however slowly that drips."""

    literal: Any

    def __init__(self, sock: socket.socket, host: str, seconds: float) -> None:
        self._given, self._seconds, self._most, self._literals = sock, seconds, MOST_BYTES, 0
        self._buffer = bytearray()
        self.exists = 0  # mails in the selected folder
        self.changes = self.seen = 0  # how often mail came or went, as far as we were told, and as far as was looked
        self.renew()
        super().__init__(host)

    def renew(self) -> None:
        """A new command may take as long, and its answer be as large, as any."""
        self._until = time.monotonic() + self._seconds
        self._left, self._lines = self._most + self._literals, self._most

    @contextmanager
    def granted(
        self, *, seconds: float | None = None, more: float = 0, most: int = MOST_BYTES, literals: int = 0
    ) -> Iterator[None]:
        """Commands within may take `seconds`, or so many `more`, and be answered with `most` bytes.

        And with so many beside them in `literals`, which are kept as they come: of lines each word becomes an object.
        """
        kept = self._seconds, self._most, self._literals
        self._seconds, self._most = (self._seconds if seconds is None else seconds) + more, most
        self._literals = literals
        try:
            yield
        finally:
            self._seconds, self._most, self._literals = kept

    # What imaplib would do by itself: resolve, connect, buffer, log.

    def open(self, host: str = "", port: int = 0, timeout: float | None = None) -> None:
        self.host, self.port = host, port
        self.sock = self._given

    def readline(self) -> bytes:
        seen = 0
        while (end := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            self._receive()
        line = self._cut(end + 1)
        self._lines -= len(line)
        if self._lines < 0:
            raise TooMuch(f"lines of more than {self._most} bytes")
        if _depth(line) > DEEPEST:
            raise TooMuch(f"lists more than {DEEPEST} deep")
        return line

    def read(self, size: int) -> bytes:
        if size > len(self._buffer) + self._left:
            raise TooMuch(f"a literal of {size} bytes")
        while len(self._buffer) < size:
            self._receive()
        return self._cut(size)

    def send(self, data: Any) -> None:
        """In pieces: below TLS, each that is written would have all the time anew."""
        whole = memoryview(data)
        for start in range(0, len(whole), CHUNK):
            piece = whole[start : start + CHUNK]
            self._patiently(lambda piece=piece: self.sock.sendall(piece))  # type: ignore[misc]

    def shutdown(self) -> None:
        self.sock.close()

    @property
    def debug(self) -> int:
        return 0

    @debug.setter
    def debug(self, level: int) -> None:
        """No level shows commands."""

    def _log(self, line: str) -> None:
        """Nothing: imaplib would keep the last ten commands, the login among them."""

    def _new_tag(self) -> bytes:
        """A command begins. What was told unasked before is no part of its answer."""
        self.renew()
        self.untagged_responses = {kind: said for kind, said in self.untagged_responses.items() if kind in KEPT}
        return super()._new_tag()  # type: ignore[misc,no-any-return]

    def _append_untagged(self, kind: str, data: Any) -> None:
        """Any command's answer may tell that mail came or went (RFC 3501 7.3.1, 7.4.1).

        That a folder may only be read is for the server to say, when we write: imaplib would end the connection.
        """
        if kind == "READ-ONLY":
            return
        if kind in ("EXISTS", "EXPUNGE") and isinstance(data, bytes) and data.isdigit():
            before, self.exists = self.exists, int(data) if kind == "EXISTS" else max(0, self.exists - 1)
            self.changes += before != self.exists
        super()._append_untagged(kind, data)  # type: ignore[misc]

    def _connect(self) -> None:
        """The greeting, and what the server can. What imaplib does not take for IMAP is none."""
        try:
            super()._connect()  # type: ignore[misc]
        except self.abort:
            raise
        except self.error as fault:
            self._check_bye()
            raise self.abort(str(fault)) from None

    def _check_bye(self) -> None:
        if "BYE" in self.untagged_responses:
            raise Ended(spoken(self.untagged_responses["BYE"]))

    def _command_complete(self, name: str, tag: bytes) -> tuple[str, list[Any]]:
        """As imaplib's, but what ended the connection keeps its name."""
        typ, data = self._get_tagged_response(tag, expect_bye=name == "LOGOUT")
        if typ == "BAD":
            raise Misunderstood(spoken(data))
        return typ, data

    # What we ask for.

    def ask(self, name: str, *args: str | bytes, literal: bytes | None = None) -> tuple[str, str]:
        """A command's end: OK, NO or BAD, and the text behind it. `literal`: its last argument."""
        self.literal = literal
        typ, data = self._get_tagged_response(self._command(name, *args))
        return typ, spoken(data)

    def sasl(self, mechanism: str, answer: bytes, last: bytes = b"") -> tuple[str, str, bytes]:
        """AUTHENTICATE's end, and the last challenge behind the first, which alone is given the `answer`."""
        dialogue = _Dialogue(answer, last)
        self.literal = dialogue.answer  # imaplib knows by its being a method that it answers challenges
        typ, data = self._get_tagged_response(self._command("AUTHENTICATE", mechanism))
        return typ, spoken(data), dialogue.challenge

    def start_tls(self, context: ssl.SSLContext) -> None:
        """TLS over this connection. What was said before it is forgotten (RFC 3501 6.2.1, RFC 8314).

        Raises imaplib.IMAP4.error when the server does not want to.
        """
        typ, text = self.ask("STARTTLS")
        if typ != "OK":
            raise self.error(text)
        if self._buffer:
            raise OutOfTurn("more was said behind the answer to STARTTLS, where only TLS may follow")
        self.sock.settimeout(self._seconds)
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock.do_handshake()
        self.untagged_responses.clear()
        self._tls_established = True
        self.renew()
        self._get_capabilities()

    def stirs(self, until: float) -> bool:
        """Waits until somebody speaks, or until this time of the monotonic clock; whether somebody does."""
        self._until = until
        try:
            while not self._buffer:
                self._check_bye()
                self._receive()
        except Silent:
            return False
        finally:
            self._until = time.monotonic() + self._seconds
        return True

    def leave(self) -> None:
        """LOGOUT, briefly, and the end of the connection, whatever comes of it."""
        try:
            with self.granted(seconds=min(BRIEF, self._seconds)):
                self.logout()
        except (self.error, OSError, ValueError):
            pass
        finally:
            self.shutdown()

    def _receive(self) -> None:
        data = self._patiently(lambda: self.sock.recv(CHUNK))
        if not data:
            self._check_bye()
            raise Ended
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch(f"an answer of more than {self._most + self._literals} bytes")
        self._buffer += data

    def _cut(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _patiently(self, work: Callable[[], T]) -> T:
        """Blocks for as long as the command has left, at most."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise Silent
        self.sock.settimeout(left)
        try:
            return work()
        except TimeoutError:
            raise Silent from None
        except OSError as fault:
            self._check_bye()
            raise Ended from fault


class _Dialogue:
    """What we say in AUTHENTICATE, in base64: the answer once, then `last`, which asks for the end."""

    def __init__(self, answer: bytes, last: bytes) -> None:
        self._answers, self._last = [base64.b64encode(answer)], base64.b64encode(last)
        self.challenge = b""

    def answer(self, challenge: bytes | None) -> bytes:
        if self._answers:
            return self._answers.pop()
        self.challenge = challenge or b""
        return self._last


def _depth(line: bytes) -> int:
    if line.count(b"(") <= DEEPEST:
        return 0
    levels = itertools.accumulate(1 if one == b"(" else -1 for one in re.findall(rb"[()]", line))
    return max(levels, default=0)


def spoken(data: Any) -> str:
    """The last text of an answer, as one line."""
    last = data[-1] if data else b""
    if isinstance(last, tuple):
        last = b" ".join(part for part in last if isinstance(part, bytes))
    text = last.decode("utf-8", "replace") if isinstance(last, bytes) else str(last or "")
    return UNPRINTABLE.sub(" ", text).strip()[:LONGEST]
