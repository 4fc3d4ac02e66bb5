"""A mail as a person sees it: who, when, about what, its text and HTML, its files. Tolerant, bounded, never raising.

`core/letter.py` reads reports, and `core/parts.py` stops where readers would disagree; this reader takes its best guess,
and keeps the files as they are. Time is linear in the size, for a bounded number of levels.
"""

from __future__ import annotations

import html as markup
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from relay.core import address, flowed, letter, parameters, words
from relay.core.address import CONTROLS, Mailbox
from relay.core.letter import Fields

DEPTH = 12  # levels of parts
PARTS = 300
HEADER = 256 << 10  # bytes of the header that are read
PART_HEADER = 16 << 10  # ... and of a part's
MOST_FIELDS = 2000
MOST_MAILBOXES = 2000  # of one field
LONGEST = 998  # characters of a subject, and of a file's name
LONGEST_DATE = 100

_FIELD = re.compile(rb"^([!-9;-~]{1,80}+)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
_END = re.compile(rb"(?:\A|\n)[ \t]*\r?(?:\n|\Z)")
_ID = re.compile(r"<[^<>\s]{1,900}>")
_META = re.compile(rb"<meta\s[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE)
_ENCODED = re.compile(rb"filename\*(?:0\*)?[ \t]*=[ \t]*\"?([\w-]{1,40})'", re.IGNORECASE)
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufeff]")
_WESTERN = frozenset({"", "us-ascii", "ascii", "utf-8", "utf8", "iso-8859-1", "latin1", "iso8859-1", "windows-1252"})
_ENCLOSED = frozenset({"message/rfc822", "message/global"})
SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})


@dataclass(frozen=True, slots=True)
class File:
    """An attachment, or a picture of the HTML; `content` as it was before it was packed for the way."""

    kind: str  # type/subtype, lower case
    filename: str  # "" = it has none
    cid: str  # without its brackets; "" = none
    inline: bool  # it asks to be shown with the message
    related: bool  # it belongs to the HTML
    content: bytes = field(repr=False)
    encoded: int = 0  # bytes as it travelled
    charset: str = ""  # of text
    method: str = ""  # of a calendar


@dataclass(frozen=True, slots=True)
class Original:
    """A message that was read."""

    fields: Fields
    subject: str
    sender: tuple[Mailbox, ...]  # From, else Sender
    reply_to: tuple[Mailbox, ...]
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    date: datetime | None
    message_id: str  # with its brackets; "" = it has none
    in_reply_to: tuple[str, ...]
    references: tuple[str, ...]
    text: str  # "" where there is only HTML
    html: str  # "" where there is only text
    files: tuple[File, ...]

    @property
    def readable(self) -> str:
        """Its text, or its HTML as text."""
        return self.text or letter.plain(self.html).strip()


@dataclass(frozen=True, slots=True)
class _Leaf:
    fields: Fields
    raw: bytes = field(repr=False)  # its body, as encoded
    kind: str
    parameters: dict[bytes, bytes]
    related: bool
    alternative: bool


def read(raw: bytes) -> Original:
    """Whatever it is."""
    fields, start = _head(raw, _begin(raw), len(raw), HEADER)
    shown: list[tuple[str, str, bool]] = []
    files: list[File] = []
    for leaf in _leaves(raw, fields, start):
        body = _is_body(leaf)
        if body:
            shown.append((leaf.kind, _text(leaf), leaf.alternative))
        elif not (leaf.alternative and leaf.kind.startswith("text/") and leaf.kind != "text/calendar"):
            files.append(_file(leaf))
    text, html = _bodies(shown)
    return Original(
        fields=fields,
        subject=_line(words.decode(fields.get("subject"))),
        sender=_mailboxes(fields, "from") or _mailboxes(fields, "sender"),
        reply_to=_mailboxes(fields, "reply-to"),
        to=_mailboxes(fields, "to"),
        cc=_mailboxes(fields, "cc"),
        bcc=_mailboxes(fields, "bcc"),
        date=_date(fields.get("date")),
        message_id=next(iter(_ids(fields, "message-id")), ""),
        in_reply_to=_ids(fields, "in-reply-to"),
        references=_ids(fields, "references"),
        text=text,
        html=html,
        files=tuple(files),
    )


# The skeleton.


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


def _leaves(raw: bytes, fields: Fields, start: int) -> Iterator[_Leaf]:
    count = 0
    for leaf in _walk(raw, fields, start, len(raw), 0, False, False):
        yield leaf
        count += 1
        if count >= PARTS:
            return


def _walk(
    raw: bytes, fields: Fields, start: int, end: int, depth: int, related: bool, alternative: bool
) -> Iterator[_Leaf]:
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
    yield _Leaf(fields, raw[start:end], kind if _is_kind(kind) else "text/plain", given, related, alternative)


def _is_kind(kind: str) -> bool:
    return re.fullmatch(r"(?!multipart/)[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}", kind) is not None


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


# The leaves.


def _is_body(leaf: _Leaf) -> bool:
    """Whether it is shown as what the message says."""
    disposition = leaf.fields.get("content-disposition").partition(";")[0].strip().lower()
    return leaf.kind in ("text/plain", "text/html") and disposition in ("", "inline") and not _filename(leaf)


def _content(leaf: _Leaf) -> bytes:
    return letter.unpacked(leaf.fields.get("content-transfer-encoding").strip().lower(), leaf.raw)


def _text(leaf: _Leaf) -> str:
    content = _content(leaf)
    charset = _word(leaf, b"charset")
    if not charset and leaf.kind == "text/html" and (meta := _META.search(content[:4096])):
        charset = meta[1].decode("ascii").lower()
    text = _shown(_decoded(content, charset))
    if leaf.kind == "text/plain" and _word(leaf, b"format") == "flowed":
        text = flowed.joined(text, delsp=_word(leaf, b"delsp") == "yes")
    return text


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


def _shown(text: str) -> str:
    return _UNSHOWN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _bodies(shown: list[tuple[str, str, bool]]) -> tuple[str, str]:
    """The text, and the HTML. What there is in one form only stands in the other one too, where that is there."""
    plain = any(kind == "text/plain" for kind, _, _ in shown)
    rich = any(kind == "text/html" for kind, _, _ in shown)
    texts, htmls = [], []
    for kind, text, alternative in shown:
        if kind == "text/plain":
            texts.append(text)
            if rich and not alternative and text.strip():
                htmls.append(f'<div style="white-space:pre-wrap">{markup.escape(text.strip())}</div>')
        else:
            htmls.append(text)
            if plain and not alternative:
                texts.append(letter.plain(text).strip())
    return "\n".join(texts).strip("\n"), "\n".join(htmls).strip()


def _file(leaf: _Leaf) -> File:
    disposition = leaf.fields.get("content-disposition").partition(";")[0].strip().lower()
    cid = leaf.fields.get("content-id").strip().removeprefix("<").removesuffix(">").strip()
    return File(
        kind=leaf.kind,
        filename=_filename(leaf),
        cid=_line(cid),
        inline=disposition == "inline" or (leaf.related and not disposition),
        related=leaf.related,
        content=_content(leaf),
        encoded=len(leaf.raw),
        charset=_word(leaf, b"charset"),
        method=_word(leaf, b"method"),
    )


def _filename(leaf: _Leaf) -> str:
    """RFC 2231's, else the encoded words that no standard allows there."""
    value = leaf.fields.get("content-disposition").encode("utf-8", "replace")[:8192]
    raw = parameters.read(value).get(b"filename") or leaf.parameters.get(b"name", b"")
    charset = _ENCODED.search(value)
    text = words.decoded(raw, charset[1].decode("ascii").lower()) if charset else words.decode(words.text_of(raw))
    return _line(text)


def _word(leaf: _Leaf, name: bytes) -> str:
    return leaf.parameters.get(name, b"").decode("ascii", "replace").strip("'\" ").lower()[:100]


# The fields.


def _line(text: str) -> str:
    return " ".join(CONTROLS.sub(" ", text).encode("utf-8", "replace").decode().split())[:LONGEST]


def _mailboxes(fields: Fields, name: str) -> tuple[Mailbox, ...]:
    found: list[Mailbox] = []
    for value in fields.all(name):
        found += address.parse_list(value)
        if len(found) >= MOST_MAILBOXES:
            break
    return tuple(found[:MOST_MAILBOXES])


def _ids(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(_ID.findall(fields.get(name)))


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if 0 < len(text) <= LONGEST_DATE else None
        if found is None:
            return None
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found.astimezone(UTC)  # some offsets lead out of the calendar
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError):
        return None
    return found
