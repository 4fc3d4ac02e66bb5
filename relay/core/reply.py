"""What an upstream answered: code, enhanced code and text, read tolerantly, within bounds (RFC 5321 4.2, RFC 2034)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_TEXT = 1_000  # characters kept; the longest refusals of the large providers are half of it

LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])[ \t]*")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\s]+")


class Stage(StrEnum):
    """How far a try had come when it got its reply. LEASE: it was never tried, the lease ended first."""

    CONNECT = "connect"
    TLS = "tls"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    LEASE = "lease"


class NotAReply(ValueError):
    """The upstream said something that is not SMTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `enhanced` is "" when there was none; `text` is one line, without the codes."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def is_last(line: bytes) -> bool:
    """Whether this line ends a reply: a hyphen after the code promises another one."""
    return line[3:4] != b"-"


def parse(lines: Sequence[bytes]) -> Reply:
    """Lines of one reply, without their line ends. The last line's code counts. Raises NotAReply."""
    texts = []
    code = b""
    for line in lines:
        read = LINE.fullmatch(line)
        if read is None:
            raise NotAReply(f"not an SMTP reply: {line[:80]!r}")
        code = read[1]
        texts.append((read[3] or b"").decode("utf-8", "replace"))
    if not code:
        raise NotAReply("an empty reply")
    return compose(int(code), texts)


def compose(code: int, texts: Sequence[str]) -> Reply:
    """A reply of its code and the texts of its lines, each of which may start with the enhanced code."""
    enhanced = ""
    kept = []
    for text in texts:
        found = ENHANCED.match(text)
        if found:
            enhanced = enhanced or found[1]
            text = text[found.end() :]
        kept.append(text)
    return Reply(code, enhanced, UNPRINTABLE.sub(" ", " ".join(kept)).strip()[:MOST_TEXT])
