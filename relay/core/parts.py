"""The skeleton of a MIME message, read from its raw bytes: which leaves it has, and where each begins and ends.

Readers differ on malformed mail. Where they would not agree what a part is or where it ends, reading stops, so that
whoever asks leaves such mail as it is. The time is linear in the size of the message, whatever is in it, and what only
an attacker writes (a part a line, megabytes of headers) ends the reading too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.core import parameters

IDENTITY = frozenset({b"7bit", b"8bit", b"binary", b""})
OPAQUE = (b"multipart/signed", b"multipart/encrypted")  # one changed byte inside would break them
PLAIN, ENCLOSED = b"text/plain", b"message/rfc822"  # what a part is that does not say; the second inside a digest

PATIENCE = 2 << 20  # for one message: a byte of a header costs one of it,
LINE, PART = 10, 100  # a line that may be a delimiter ten, a part a hundred

# A line that begins with two hyphens is never a header field, whatever boundary follows them.
_FIELDS = re.compile(rb"(?:(?!--)[!-9;-~]++:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)*+")
_VALUE = re.compile(rb"[^\n]*+\n(?:[ \t][^\n]*+\n)*+")
_MBOX = re.compile(rb"From [^\n]*\n")
_TELLING = re.compile(rb"\ncontent-(type|transfer-encoding|disposition):")


class Unclear(Exception):
    """Readers would not agree on this message."""


class Head:
    """The header fields of one part. Raises Unclear when one that tells how to read the part is there twice."""

    __slots__ = ("_values", "kind")

    def __init__(self, block: bytes, default: bytes) -> None:
        self._values: dict[bytes, bytes] = {}
        block = b"\n" + block
        for name in _TELLING.finditer(block.lower()):
            value = _VALUE.match(block, name.end())
            if name[1] in self._values or value is None:
                raise Unclear
            self._values[name[1]] = value[0][:-2].lstrip(b" \t")
        kind = self._value(b"type").partition(b";")[0].strip().lower()
        self.kind = default if not kind else kind if kind.count(b"/") == 1 else PLAIN

    def _value(self, name: bytes) -> bytes:
        return self._values.get(name, b"")

    @property
    def clear(self) -> bool:
        """Whether readers agree on its boundary and on where its parts begin."""
        return parameters.clear(self._value(b"type")) and self.encoding.strip() in IDENTITY

    def parameter(self, name: bytes) -> bytes:
        """Of Content-Type; b"" when missing."""
        return parameters.read(self._value(b"type")).get(name, b"")

    @property
    def encoding(self) -> bytes:
        """The transfer encoding in lower case. A blank or fold around it stays: some readers then decode nothing."""
        return self._value(b"transfer-encoding").lower()

    @property
    def attachment(self) -> bool:
        """Whether it asks not to be shown with the message; an unknown disposition means so too (RFC 2183 2.8)."""
        value = self._value(b"disposition").partition(b";")[0].strip().lower()
        return value not in (b"", b"inline")

    @property
    def named(self) -> bool:
        """Whether it has a file's name."""
        return bool(parameters.read(self._value(b"disposition")).get(b"filename") or self.parameter(b"name"))


@dataclass(slots=True)
class Leaf:
    """A part without parts: `content[start:end]` is its body, as encoded; `end` may lie before `start`."""

    head: Head
    start: int
    end: int
    alone: bool  # it is the whole message

    @property
    def file(self) -> bool:
        """Whether it goes with the message, and is not what it says: many programs show files as `inline` too."""
        return self.head.attachment or (not self.alone and self.head.named)


@dataclass(slots=True)
class _Walk:
    """Where the reader is: the multiparts it is in, outermost first, and their boundaries."""

    content: bytes
    kinds: list[bytes] = field(default_factory=list)
    boundaries: list[bytes] = field(default_factory=list)
    levels: dict[bytes, int] = field(default_factory=dict)
    patience: int = PATIENCE

    def spend(self, patience: int) -> None:
        """Raises Unclear when there is none left."""
        self.patience -= patience
        if self.patience < 0:
            raise Unclear

    def enter(self, head: Head) -> bool:
        """Steps into a multipart; False when it cannot be read as one, or may not be changed."""
        if not head.kind.startswith(b"multipart/") or head.kind.startswith(OPAQUE):
            return False
        if not head.clear:
            raise Unclear
        boundary = head.parameter(b"boundary").rstrip()
        if not boundary or boundary in self.levels:
            return False
        self.levels[boundary] = len(self.boundaries)
        self.boundaries.append(boundary)
        self.kinds.append(head.kind)
        return True

    def leave(self, level: int) -> None:
        """Steps out of every multipart deeper than `level`."""
        while len(self.boundaries) > level:
            del self.levels[self.boundaries.pop()]
            self.kinds.pop()

    def delimiter(self, at: int) -> tuple[int, int, int, bool]:
        """The next line from `at` on that is a delimiter here: (its CRLF, its end, its level, whether it closes)."""
        content, levels = self.content, self.levels
        while levels and (begin := content.find(b"\r\n--", at)) >= 0:
            self.spend(LINE)
            end = content.find(b"\r\n", begin + 4)
            end = len(content) if end < 0 else end
            line = content[begin + 4 : end].rstrip(b" \t")
            opens, closes = levels.get(line), levels.get(line[:-2]) if line.endswith(b"--") else None
            if opens is not None and closes is not None:
                raise Unclear
            if opens is not None:
                return begin, end, opens, False
            if closes is not None:
                return begin, end, closes, True
            at = end
        return len(content), len(content), 0, True

    def head(self, at: int, default: bytes) -> tuple[Head, int]:
        """The header that begins at `at`, and where the body begins."""
        found = _FIELDS.match(self.content, at)
        end = found.end() if found else at
        self.spend(PART + end - at)
        if self.content.startswith(b"\r\n", end):
            return Head(self.content[at:end], default), end + 2
        head = Head(self.content[at:end], default)
        stops = end in (at, len(self.content)) or self.content.startswith(b"--", end)
        if head.kind.startswith(b"multipart/") or not stops:
            raise Unclear
        return head, end


def leaves(content: bytes) -> Iterator[Leaf]:
    """The leaves in their order, as long as it is clear what they are. Enclosed messages and signed mail are leaves."""
    try:
        yield from _leaves(_Walk(content))
    except Unclear:
        return


def _leaves(walk: _Walk) -> Iterator[Leaf]:
    envelope = _MBOX.match(walk.content)
    head, start = walk.head(envelope.end() if envelope else 0, PLAIN)
    while True:
        entered = walk.enter(head)
        begin, end, level, closes = walk.delimiter(start - 2)
        if not entered:
            yield Leaf(head, start, begin, alone=not walk.kinds)
        while closes and begin < len(walk.content):
            walk.leave(level)
            begin, end, level, closes = walk.delimiter(end)
        if begin == len(walk.content):
            return
        walk.leave(level + 1)
        head, start = walk.head(end + 2, ENCLOSED if walk.kinds[level] == b"multipart/digest" else PLAIN)
