"""A reply or a forward of a message, as mail programs make them: subject, recipients, thread, quotation, files.

Headers by RFC 5322 3.6.3 and 3.6.4. Mail-Followup-To is not followed: it is no standard, and would let a writer take
others off a conversation unseen. List-Post is for answers to a list, which is none of the actions here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from enum import StrEnum
from itertools import count
from urllib.parse import quote, unquote

from relay.core import address, prefixes, quoting
from relay.core.address import Mailbox
from relay.core.compose import Attachment, Draft
from relay.core.errors import Refused
from relay.core.original import SIGNATURES, File, Original

MOST_REFERENCES = 30
LONGEST_FILENAME = 255
LONGEST_SUBJECT = 998

_CID = re.compile(r"[!-;=?-~]{1,500}")
_REFERENCE = re.compile(r"<[!-;=?-~]{1,498}>")


class Action(StrEnum):
    """What becomes of the original."""

    REPLY = "reply"
    REPLY_ALL = "reply-all"
    FORWARD = "forward"


ANSWERED, FORWARDED = "\\Answered", "$Forwarded"
FLAGS = {Action.REPLY: ANSWERED, Action.REPLY_ALL: ANSWERED, Action.FORWARD: FORWARDED}
"""The flag of a message that was answered (RFC 3501), and the keyword of one that was forwarded (RFC 5788)."""


@dataclass(frozen=True, slots=True)
class Mine:
    """What the caller gave, as far as what is made depends on it."""

    addresses: Collection[str]  # my own, lower case
    text: str | None = None
    html: str | None = None
    cids: Collection[str] = ()  # of my own pictures


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of the original."""

    action: Action
    inline: bool = False  # quote it
    files: bool = False  # forward its attachments
    zone: tzinfo | None = None  # in which times are told; None: as they were written
    ours: Callable[[str], bool] = lambda url: False  # a picture of ours, by which an earlier mail is told opened


@dataclass(frozen=True, slots=True)
class Made:
    """What follows from the original. `text` and `html` have in them what the caller gave."""

    subject: str
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    headers: dict[str, str]
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...] = field(repr=False)


def make(original: Original, mine: Mine, wish: Wish) -> Made:
    """The parts of a reply or forward. Never raises, whatever the original is."""
    to, cc = recipients(original, mine.addresses, wish.action)
    text, html, pictures = _quoted(original, mine, wish) if wish.inline else (mine.text, mine.html, ())
    files = _files(original, pictures) if wish.files and wish.action is Action.FORWARD else ()
    return Made(subject(original.subject, wish.action), to, cc, thread(original), text, html, (*pictures, *files))


def completed(draft: Draft, made: Made, *, everybody: bool, subject: bool) -> Draft:
    """The caller's draft, and what he left open. What he gave counts, as a field or as a header of that name.

    `everybody`: the recipients that he named come to those of the original, as an answer to all has both. `subject`: he
    gave one, though it be empty.
    """
    named = {name.lower() for name in draft.headers}
    to, cc = draft.to, draft.cc
    if everybody:
        to = _once((*(() if "to" in named else made.to), *draft.to))
        cc = _once((*(() if "cc" in named else made.cc), *draft.cc), {box.address.lower() for box in to})
    elif not to and "to" not in named:
        to = made.to
    return replace(
        draft,
        to=to,
        cc=cc,
        subject=draft.subject if subject or "subject" in named else made.subject,
        text=made.text,
        html=made.html,
        attachments=(*draft.attachments, *made.attachments),
        headers={name: value for name, value in made.headers.items() if name.lower() not in named} | {**draft.headers},
    )


def subject(original: str, action: Action) -> str:
    prefixed = prefixes.forwarding if action is Action.FORWARD else prefixes.answering
    return prefixed(original)[:LONGEST_SUBJECT]


def thread(original: Original) -> dict[str, str]:
    """In-Reply-To and References, as far as there is something to name."""
    parent = [original.message_id] if _REFERENCE.fullmatch(original.message_id) else []
    before = original.references or (original.in_reply_to if len(original.in_reply_to) == 1 else ())
    known = [one for one in dict.fromkeys((*before, *parent)) if _REFERENCE.fullmatch(one)]
    if parent:  # it is the last one, wherever it stood
        known = [*(one for one in known if one != parent[0]), parent[0]]
    if len(known) > MOST_REFERENCES:
        known = [known[0], *known[1 - MOST_REFERENCES :]]
    headers = {"In-Reply-To": parent[0]} if parent else {}
    return headers | ({"References": " ".join(known)} if known else {})


def naming(message_id: str) -> dict[str, str]:
    """The thread of a message of which no more is known than its Message-ID; {} where that is none."""
    known = _REFERENCE.fullmatch(message_id)
    return {"In-Reply-To": message_id, "References": message_id} if known else {}


def recipients(
    original: Original, own: Collection[str], action: Action
) -> tuple[tuple[Mailbox, ...], tuple[Mailbox, ...]]:
    """To and Cc. Nobody for a forward: whom it is for says the caller."""
    if action is Action.FORWARD:
        return (), ()
    first = _answered(original, own)
    if action is Action.REPLY:
        return first, ()
    to = _once((*first, *original.to), own) or first
    return to, _once(original.cc, {*own, *(box.address.lower() for box in to)})


def _answered(original: Original, own: Collection[str]) -> tuple[Mailbox, ...]:
    """Whom an answer is for: where a mail of my own went, else Reply-To, else From.

    A mail from me to me alone may be a form's, which has its visitor in Reply-To.
    """
    sender = _once(original.sender)
    if sender and all(box.address.lower() in own for box in sender):
        return _once(original.to, own) or _once(original.reply_to, own) or _once(original.to) or sender
    return _once(original.reply_to) or sender


def _once(boxes: Iterable[Mailbox], without: Collection[str] = ()) -> tuple[Mailbox, ...]:
    """Each address that mail can be sent to, the first time that it is named."""
    found: dict[str, Mailbox] = {}
    for box in boxes:
        try:
            judged = address.envelope(box.address)
        except Refused:
            continue
        if judged.lower() not in without:
            found.setdefault(judged.lower(), Mailbox(box.name, judged))
    return tuple(found.values())


# The quotation.


def _quoted(original: Original, mine: Mine, wish: Wish) -> tuple[str | None, str | None, tuple[Attachment, ...]]:
    """My text and HTML with the original in them, and the pictures that are shown there.

    In the form in which the caller writes; in the original's own where he writes nothing, or forwards what is HTML.
    """
    forward = wish.action is Action.FORWARD
    silent = not mine.text and not mine.html
    rich = bool(mine.html) or (bool(original.html) and (silent or forward))
    plain = bool(mine.text) or silent
    album = _Album(original, mine.cids, wish.ours)
    text, html = mine.text, mine.html
    if plain:
        text = (quoting.forwarded_text if forward else quoting.answered_text)(mine.text or "", original, wish.zone)
    if rich:
        above = mine.html or (quoting.as_html(mine.text) if mine.text else "")
        quote_html = quoting.forwarded_html if forward else quoting.answered_html
        html = quote_html(above, original, wish.zone, album.shown)
    return text, html, album.pictures()


class _Album:
    """The pictures that the original shows, by their cids; one that is mine too is given another."""

    def __init__(self, original: Original, taken: Collection[str], ours: Callable[[str], bool]) -> None:
        self._files = {file.cid: file for file in reversed(original.files) if file.cid}
        self._taken = {cid.strip("<>").lower() for cid in taken}
        self._ours = ours
        self._named: dict[str, str] = {}  # the original's cid: that in the new message

    def shown(self, url: str) -> str | None:
        """The URL that stands for this one; None for a picture that is not there, or tells us of an open."""
        if url[:4].lower() != "cid:":
            return None if self._ours(url) else url
        cid = unquote(url[4:]).strip("<>")
        if cid not in self._files:
            return None
        if cid not in self._named:
            free = _CID.fullmatch(cid) and cid.lower() not in self._taken
            self._named[cid] = cid if free else self._another()
        return "cid:" + quote(self._named[cid], safe="@!$&'()*+,;=:._~-")

    def _another(self) -> str:
        names = (f"quoted-{number}@original" for number in count(1))
        used = {*self._taken, *self._files, *self._named.values()}
        return next(name for name in names if name not in used)

    def pictures(self) -> tuple[Attachment, ...]:
        return tuple(_attachment(self._files[cid], "inline", name) for cid, name in self._named.items())


def _files(original: Original, pictures: Sequence[Attachment]) -> tuple[Attachment, ...]:
    """The original's attachments. Signatures signed something else; pictures that are shown are there already."""
    shown = {picture.content for picture in pictures}
    left = (file for file in original.files if file.kind not in SIGNATURES and not (file.cid and file.content in shown))
    return tuple(_attachment(file, "attachment", "") for file in left)


def _attachment(file: File, disposition: str, cid: str) -> Attachment:
    return Attachment(file.content, file.filename[:LONGEST_FILENAME], file.described, disposition, cid or None)
