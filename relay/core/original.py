"""A mail as a person sees it: who, when, about what, its text and HTML, its files. Tolerant, bounded, never raising.

`core/letter.py` reads reports; here is everything that a reply, a forward and whoever looks at a mail need.
"""

from __future__ import annotations

import html as markup
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from relay.core import address, letter, pieces, words
from relay.core.address import Mailbox
from relay.core.letter import Fields
from relay.core.pieces import Leaf, line

MOST_MAILBOXES = 2000  # of one field
LONGEST_DATE = 100  # characters
LONGEST_HTML = 1 << 20  # ... of what is read as text

_CHARSET = re.compile(r"[a-z0-9._:+-]{1,60}")
_METHOD = re.compile(r"[a-z]{1,30}")
_GAP = re.compile(r"\n{3,}")
_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f-\x9f]{1,900}>")
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

    @property
    def described(self) -> str:
        """Its type, with what whoever opens it must know."""
        kind = self.kind
        if kind.startswith("text/") and _CHARSET.fullmatch(self.charset):
            kind += f"; charset={self.charset}"
        if self.kind == "text/calendar" and _METHOD.fullmatch(self.method):
            kind += f"; method={self.method.upper()}"
        return kind


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
        return self.text or _as_text(self.html)


def read(raw: bytes) -> Original:
    """Reads a message, whatever it is."""
    fields, leaves = pieces.read(raw)
    said = [leaf for leaf in leaves if leaf.said]
    text, html = _bodies([(leaf.kind, leaf.text, leaf.alternative) for leaf in said])
    return Original(
        fields=fields,
        subject=line(words.decode(fields.get("subject"))),
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
        files=tuple(_file(leaf) for leaf in leaves if not leaf.said and not _other_form(leaf)),
    )


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
                texts.append(_as_text(text))
    return "\n".join(texts).strip("\n"), "\n".join(htmls).strip()


def _as_text(html: str) -> str:
    """Without the white space that HTML is written with and nobody sees."""
    lines = (" ".join(line.split()) for line in letter.plain(html[:LONGEST_HTML]).split("\n"))
    return _GAP.sub("\n\n", "\n".join(lines)).strip()


def _other_form(leaf: Leaf) -> bool:
    """Another form of the text, which nobody is shown; an invitation is more than that."""
    return leaf.alternative and leaf.kind.startswith("text/") and leaf.kind != "text/calendar"


def _file(leaf: Leaf) -> File:
    return File(
        kind=leaf.kind,
        filename=leaf.filename,
        cid=line(leaf.fields.get("content-id").strip().removeprefix("<").removesuffix(">")),
        inline=leaf.disposition == "inline" or (leaf.related and not leaf.disposition),
        related=leaf.related,
        content=leaf.content,
        encoded=len(leaf.raw),
        charset=leaf.word(b"charset"),
        method=leaf.word(b"method"),
    )


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
