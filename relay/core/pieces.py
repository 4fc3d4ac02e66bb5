"""The parts of a mail, found and decoded as a person's mail program would: tolerantly, within bounds, never raising.

`core/parts.py` stops where readers would disagree; this goes on and takes its best guess. Time is linear in the size,
for a bounded number of levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from relay.core import flowed, letter, parameters, words
from relay.core.address import CONTROLS
from relay.core.letter import Fields

DEPTH = 12  # levels of parts
PARTS = 300
HEADER = 256 << 10  # bytes of the header that are read
PART_HEADER = 16 << 10  # ... and of a part's
MOST_FIELDS = 2000
LONGEST = 998  # characters of a line: a subject, the name of a file

_FIELD = re.compile(rb"^([!-9;-~]{1,80}+)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
_END = re.compile(rb"(?:\A|\n)[ \t]*\r?(?:\n|\Z)")
_KIND = re.compile(r"(?!multipart/)[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_META = re.compile(rb"<meta\s[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE)
_ENCODED = re.compile(rb"filename\*(?:0\*)?[ \t]*=[ \t]*\"?([\w-]{1,40})'", re.IGNORECASE)
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufeff]")
_WESTERN = frozenset({"", "us-ascii", "ascii", "utf-8", "utf8", "iso-8859-1", "latin1", "iso8859-1", "windows-1252"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts; an enclosed message is one."""

    fields: Fields
    raw: bytes = field(repr=False)  # its body, as encoded
    kind: str  # type/subtype, lower case
    parameters: dict[bytes, bytes]  # of its type
    related: bool  # it is in a multipart/related
    alternative: bool  # it is in a multipart/alternative
    alone: bool = False  # it is the whole message

    @property
    def disposition(self) -> str:
        return self.fields.get("content-disposition").partition(";")[0].strip().lower()

    @property
    def said(self) -> bool:
        """It is what the message says, and no file."""
        shown = self.disposition in ("", "inline") and (self.alone or not self.filename)
        return self.kind in ("text/plain", "text/html") and shown

    @property
    def content(self) -> bytes:
        """Its bytes, out of their transfer encoding."""
        return letter.unpacked(self.fields.get("content-transfer-encoding").strip().lower(), self.raw)

    @property
    def text(self) -> str:
        """Out of its charset, whatever that is; lines end with LF, paragraphs are whole."""
        content = self.content
        charset = self.word(b"charset")
        if not charset and self.kind == "text/html" and (meta := _META.search(content[:4096])):
            charset = meta[1].decode("ascii").lower()
        text = _UNSHOWN.sub("", _decoded(content, charset).replace("\r\n", "\n").replace("\r", "\n"))
        if self.kind == "text/plain" and self.word(b"format") == "flowed":
            text = flowed.joined(text, delsp=self.word(b"delsp") == "yes")
        return text

    @property
    def filename(self) -> str:
        """RFC 2231's, else the encoded words that no standard allows there; "" = none."""
        value = self.fields.get("content-disposition").encode("utf-8", "replace")[:8192]
        raw = parameters.read(value).get(b"filename") or self.parameters.get(b"name", b"")
        charset = _ENCODED.search(value)
        return line(
            words.decoded(raw, charset[1].decode("ascii").lower()) if charset else words.decode(words.text_of(raw))
        )

    def word(self, name: bytes) -> str:
        """A parameter of its type that is one word; lower case."""
        return self.parameters.get(name, b"").decode("ascii", "replace").strip("'\" ").lower()[:100]


def read(raw: bytes) -> tuple[Fields, list[Leaf]]:
    """The header's fields, values unfolded but not decoded; and the leaves in their order."""
    fields, start = _head(raw, _begin(raw), len(raw), HEADER)
    return fields, list(islice(_walk(raw, fields, start, len(raw), 0, False, False), PARTS))


def line(text: str) -> str:
    """A text on one line, without what could be mistaken for the end of it."""
    return " ".join(CONTROLS.sub(" ", text).encode("utf-8", "replace").decode().split())[:LONGEST]


def _begin(raw: bytes) -> int:
    """Behind the line that mbox files have, and empty ones."""
    at = len(raw) - len(raw.lstrip(b"\r\n"))
    return raw.find(b"\n", at) + 1 or len(raw) if raw.startswith((b"From ", b">From "), at) else at


def _head(raw: bytes, start: int, end: int, most: int) -> tuple[Fields, int]:
    """The header fields of what begins there, values unfolded but not decoded; and where its body begins."""
    found = _END.search(raw[start : min(end, start + most)])
    if found is None:
        block, body = raw[start : min(end, start + most)], end
    else:
        block, body = raw[start : start + found.start()], start + found.end()
    pairs = []
    for match in _FIELD.finditer(block.replace(b"\r", b"")):
        pairs.append((match[1].decode("ascii").lower(), " ".join(words.text_of(match[2]).split())))
        if len(pairs) >= MOST_FIELDS:
            break
    return Fields(tuple(pairs)), body


def _walk(
    raw: bytes, fields: Fields, start: int, end: int, depth: int, related: bool, alternative: bool
) -> Iterator[Leaf]:
    """The leaves below a part, in their order. An enclosed message is a leaf."""
    value = fields.get("content-type").encode("utf-8", "replace")[:8192]
    kind = value.partition(b";")[0].strip().lower().decode("ascii", "replace")
    given = parameters.read(value)
    if kind.startswith("multipart/") and depth < DEPTH:
        boundary = given.get(b"boundary", b"").rstrip()
        pieces = _pieces(raw, start, end, boundary) if boundary else iter(())
        met = False
        for begin, finish in pieces:
            met = True
            inner, body = _head(raw, begin, finish, PART_HEADER)
            yield from _walk(
                raw,
                inner,
                body,
                finish,
                depth + 1,
                related or kind == "multipart/related",
                # In an alternative only what stands for the same thing: a related part of it brings its pictures.
                alternative or kind == "multipart/alternative",
            )
        if met:
            return
    yield Leaf(
        fields, raw[start:end], kind if _KIND.fullmatch(kind) else "text/plain", given, related, alternative, depth == 0
    )


def _pieces(raw: bytes, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each part of a multipart begins and ends; the last one may lack its delimiter."""
    mark = b"--" + boundary
    at, begun = start, -1
    while at < end:
        found = at if at == start and raw.startswith(mark, start) else raw.find(b"\n" + mark, at, end)
        if found < 0:
            break
        after = found + len(mark) + (0 if raw.startswith(mark, found) else 1)
        line_end = raw.find(b"\n", after, end)
        line_end = end if line_end < 0 else line_end
        rest = raw[after : min(line_end, after + 80)].strip()
        if rest in (b"", b"--"):
            if begun >= 0:
                yield begun, max(begun, found - raw.startswith(b"\r", found - 1))
            begun = -1 if rest else line_end + 1
            if rest:
                return
        at = line_end
    if begun >= 0 and begun <= end:
        yield begun, end


def _decoded(content: bytes, charset: str) -> str:
    """In its charset; what claims to be one of the West's is UTF-8 if it can be, else what Windows wrote."""
    if not charset and b"\x1b$" in content:
        charset = "iso-2022-jp"
    if charset not in _WESTERN:
        return words.decoded(content, charset)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
