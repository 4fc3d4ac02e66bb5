"""An envelope, and the commands that say it to an upstream (RFC 5321 3.3, 1870, 6152, 6531)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from relay.core.address import ascii_domain
from relay.core.reply import Reply, Stage

LONGEST_SIZE = 20  # digits that SIZE may have (RFC 1870 5)
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f<>\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who a mail is from and for, and what upstream is told of its content; `size`: bytes, not dot-stuffed."""

    sender: str
    recipients: tuple[str, ...]
    size: int
    smtputf8: bool = False
    eightbit: bool = False


class Words:
    """An envelope as commands to this upstream: MAIL, and RCPT by the recipient's place.

    `refused`: what upstream would refuse, or cannot be told, by the recipient's place; those have no RCPT.
    """

    def __init__(self, envelope: Envelope, extensions: Mapping[str, str]) -> None:
        self.envelope = envelope
        self.refused: dict[int, tuple[Stage, Reply]] = {}
        self._extensions = extensions
        wide = envelope.smtputf8 or not all(map(str.isascii, (envelope.sender, *envelope.recipients)))
        self._utf8 = wide and "smtputf8" in extensions
        self.mail = self._mail()
        self.rcpts = self._rcpts()

    @property
    def of_use(self) -> bool:
        """Whether upstream may take it for somebody."""
        return len(self.refused) < len(self.envelope.recipients)

    @property
    def together(self) -> bytes:
        """The whole envelope in one write, up to DATA (RFC 2920)."""
        return b"".join((self.mail, *self.rcpts.values(), b"DATA\r\n"))

    @property
    def count(self) -> int:
        """The replies that `together` is owed."""
        return len(self.rcpts) + 2

    def _mail(self) -> bytes:
        limit, size = self._extensions.get("size", ""), self.envelope.size
        if limit.isdecimal() and len(limit) <= LONGEST_SIZE and 0 < int(limit) < size:
            self._refuse_all(Reply(552, "5.3.4", f"message size {size} is over upstream's limit of {limit} bytes"))
        try:
            command = b"MAIL FROM:<" + _path(self.envelope.sender, utf8=self._utf8) + b">"
        except _Unsayable as fault:
            self._refuse_all(fault.reply)
            return b""
        if "size" in self._extensions:
            command += b" SIZE=%d" % size
        # Without the extension the content goes as it is: re-encoding would break signatures, and the few servers
        # without it mostly pass the eighth bit on.
        if self.envelope.eightbit and "8bitmime" in self._extensions:
            command += b" BODY=8BITMIME"
        return command + (b" SMTPUTF8\r\n" if self._utf8 else b"\r\n")

    def _rcpts(self) -> dict[int, bytes]:
        commands = {}
        for place, recipient in enumerate(self.envelope.recipients):
            try:
                commands[place] = b"RCPT TO:<" + _path(recipient, utf8=self._utf8) + b">\r\n"
            except _Unsayable as fault:
                self.refused.setdefault(place, (Stage.RCPT, fault.reply))
        return commands

    def _refuse_all(self, reply: Reply) -> None:
        for place in range(len(self.envelope.recipients)):
            self.refused.setdefault(place, (Stage.MAIL, reply))


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
