"""A message read as people write them: tolerantly, within bounds, and never raising. For reports, not for relaying.

`core/parts.py` stops where readers would disagree; this reader goes on and takes its best guess.
"""

from __future__ import annotations

import binascii
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.core import words

MOST = 1 << 20  # bytes that are read of one message
DEPTH = 6
PARTS = 60
HEADER = 64 << 10  # bytes of one part's header that are read
FIELD = 4096  # characters of one field that are kept
_HEADERS = {"text/rfc822-headers", "message/rfc822-headers", "message/global-headers"}
ENCLOSED = frozenset({"message/rfc822", "message/global", "message/partial"} | _HEADERS)
"""Another message, or its header (RFC 6533 has the international ones)."""

_END = re.compile(rb"\n[ \t]*\n")
_FIELD = re.compile(r"([!-9;-~]{1,80})[ \t]*:(.*)", re.DOTALL)
_PARAMETER = re.compile(r';\s*([\w*-]{1,40})\s*=\s*(?:"([^"]{0,500})"|([^\s;]{0,500}))')
_BREAK = re.compile(r"<(?:br|/?p|/?div|/?tr|/?td|/?li|/?h\d|/?table|hr)\b[^<>]{0,2000}>", re.IGNORECASE)
_HIDDEN = re.compile(r"<(style|script|head)\b", re.IGNORECASE)
_HIDDEN_ENDS = {name: re.compile(rf"</{name}\b[^<>]{{0,100}}>?", re.IGNORECASE) for name in ("style", "script", "head")}
_TAG = re.compile(
    r"<(?:[a-z][a-z0-9]{0,15}(?:\s[^<>]{0,2000})?/?|/[a-z][a-z0-9]{0,15}\s?|![^<>]{0,500}|\?[^<>]{0,500})>",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fields:
    """Header fields in their order; names in lower case, values unfolded."""

    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """The first of that name; "" when there is none."""
        return next((value for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf: its type, its fields, and its text (decoded; HTML as plain text)."""

    kind: str
    fields: Fields
    text: str
    enclosed: bool = False  # inside a message/rfc822 or the like


@dataclass(slots=True)
class Letter:
    """A message: its own fields, and its leaves in order."""

    fields: Fields
    kind: str
    parameters: dict[str, str]
    parts: list[Part] = field(default_factory=list)


def read(raw: bytes) -> Letter:
    """Reads a message, whatever it is: at most 1 MiB of it."""
    raw = raw[:MOST].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if raw.startswith((b"From ", b">From ")):
        raw = raw.partition(b"\n")[2]
    fields, body = _split(raw.lstrip(b"\n"))
    kind, parameters = _kind(fields)
    letter = Letter(fields, kind, parameters)
    for part in _parts(fields, body, 0, False):
        letter.parts.append(part)
        if len(letter.parts) >= PARTS:
            break
    return letter


def fields_of(text: str) -> Fields:
    """The header fields at the beginning of a text."""
    found: list[tuple[str, str]] = []
    for line in text[:HEADER].split("\n"):
        if line[:1] in " \t" and line.strip() and found:
            key, value = found[-1]
            if len(value) < FIELD:
                found[-1] = (key, f"{value} {line.strip()}"[:FIELD])
        elif match := _FIELD.match(line):
            found.append((match[1].lower(), match[2].strip()[:FIELD]))
        elif not line.strip():
            if found:
                break
        elif len(found) > 500:
            break
    return Fields(tuple(found))


def _split(raw: bytes) -> tuple[Fields, bytes]:
    end = _END.search(raw)
    head, body = (raw[: end.start() + 1], raw[end.end() :]) if end else (raw, b"")
    return fields_of(words.text_of(head[:HEADER])), body


def _kind(fields: Fields, default: str = "text/plain") -> tuple[str, dict[str, str]]:
    value = fields.get("content-type")
    kind = value.partition(";")[0].strip().lower()
    parameters = {m[1].lower().rstrip("*0"): m[2] or m[3] or "" for m in _PARAMETER.finditer(value[:FIELD])}
    return kind if "/" in kind else default, parameters


def _parts(fields: Fields, body: bytes, depth: int, enclosed: bool) -> Iterator[Part]:
    kind, parameters = _kind(fields)
    if depth < DEPTH and kind.startswith("multipart/"):
        pieces = list(_pieces(body, parameters.get("boundary", "").strip()))
        if pieces:
            for piece in pieces[:PARTS]:
                inner, rest = _split(piece.lstrip(b"\n")) if not piece.startswith(b"\n") else (Fields(), piece[1:])
                yield from _parts(inner, rest, depth + 1, enclosed)
            return
    content = unpacked(fields.get("content-transfer-encoding").strip().lower(), body)
    if kind in ENCLOSED:
        text = _text(content, parameters)
        yield Part(kind, fields, text, True)
        if depth < DEPTH and kind in ("message/rfc822", "message/global"):
            inner, rest = _split(content.lstrip(b"\n"))
            yield from _parts(inner, rest, depth + 1, True)
        return
    text = _text(content, parameters)
    if kind == "text/html":
        text = plain(text)
    yield Part(kind, fields, text, enclosed)


def _pieces(body: bytes, boundary: str) -> Iterator[bytes]:
    """The parts of a multipart. Without its boundary: whatever line of hyphens comes first."""
    if boundary:
        mark = b"--" + boundary.encode("utf-8", "replace")
    else:
        found = re.search(rb"(?:\A|\n)(--[^\n]{4,70})\n[Cc]ontent-", body)
        if not found:
            return
        mark = found[1]
    if not body.startswith(mark) and b"\n" + mark not in body:
        return
    chunks = (b"\n" + body).split(b"\n" + mark)
    for chunk in chunks[1 : PARTS + 1]:
        if chunk.startswith(b"--"):
            return
        yield chunk.partition(b"\n")[2]


def unpacked(encoding: str, body: bytes) -> bytes:
    """A part's content out of its transfer encoding (in lower case), as far as it can be read. Never raises."""
    try:
        if encoding == "base64":
            clean = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
            return binascii.a2b_base64(
                clean[: len(clean) // 4 * 4] + (clean[len(clean) // 4 * 4 :] + b"===")[: 4 * bool(len(clean) % 4 > 1)]
            )
        if encoding == "quoted-printable":
            return binascii.a2b_qp(body)
    except (binascii.Error, ValueError):
        return body
    return body


def _text(content: bytes, parameters: dict[str, str]) -> str:
    charset = parameters.get("charset", "").strip("'\" ")
    if not charset and b"\x1b$" in content:
        charset = "iso-2022-jp"
    return words.decoded(content, charset)


def plain(text: str) -> str:
    """HTML as text: blocks are lines, tags are gone. An address in angle brackets is no tag."""
    text = _shown(text)
    text = _TAG.sub("", _BREAK.sub("\n", text.replace("\n", " ")))
    return html.unescape(text).replace("\xa0", " ")


def _shown(text: str) -> str:
    """Without what HTML holds and does not show."""
    kept, at = [], 0
    while found := _HIDDEN.search(text, at):
        end = _HIDDEN_ENDS[found[1].lower()].search(text, found.end())
        if end is None:
            break
        kept.append(text[at : found.start()])
        at = end.end()
    return " ".join([*kept, text[at:]])
