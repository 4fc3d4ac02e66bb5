"""Mail of an account's mailbox, by the ids that events and answers have: to follow a bounce, or quote a letter.

What is shown is data: HTML of strangers is never a page here, and a file is for keeping, not for opening.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from api.call import Call
from api.problems import Problem
from api.shapes import MAIL, AccountId, Answer, Instant, Query
from relay.core import cleaning, place
from relay.core.address import Mailbox
from relay.core.original import File, Original, read
from relay.mailview import Mail, TooLarge, view

MOST_TEXT = 5 << 20  # bytes of text, and of HTML, that are shown unless more are asked for
KEPT = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of what strangers wrote: no browser is to make anything of it."""

DOCUMENTED = (404, 502)

MessageId = Annotated[
    str, Field(max_length=place.LONGEST, description="Of the message, as an event or answer names it.")
]
FileId = Annotated[str, Field(max_length=place.LONGEST + 5, description="Of the attachment, as its message names it.")]


class Correspondent(Answer):
    name: str
    address: str


class Text(Answer):
    """What the message says."""

    plain: str | None = Field(default=None, examples=["Hello Ada"])
    html: str | None = Field(
        default=None, description="As it was sent: show it only in a sandbox, or ask for webSafeHtml."
    )
    has_more: bool = Field(description="There is more than `maxBytes` of it.")


class Attached(Answer):
    """A file of the message."""

    id: str = Field(examples=[f"{MAIL}.0"])
    content_type: str
    filename: str | None
    size: int = Field(description="Bytes of the file.", examples=[5])
    encoded_size: int = Field(description="Bytes that it takes in the message.", examples=[8])
    embedded: bool = Field(description="It belongs to the HTML.")
    inline: bool = Field(description="It asks to be shown with the message.")
    cid: str | None = Field(description="By which the HTML names it: `cid:…`.")
    content_id: str | None = Field(description="The same in brackets.")
    method: str | None = Field(description="Of a calendar's entry: request, reply, cancel …")


class Shown(Answer):
    """A message as it lies in the mailbox."""

    id: str = Field(examples=[MAIL])
    uid: int = Field(examples=[1])
    path: str = Field(description="Its folder.", examples=["INBOX"])
    message_id: str | None
    in_reply_to: str | None
    date: Instant = Field(description="When the mailbox got it.")
    flags: list[str] = Field(examples=[["\\Answered"]])
    unseen: bool
    flagged: bool
    draft: bool
    size: int = Field(description="Bytes.", examples=[4096])
    truncated: bool = Field(description="It is so large that only its beginning was read.")
    subject: str
    from_: Correspondent | None
    reply_to: list[Correspondent]
    to: list[Correspondent]
    cc: list[Correspondent]
    bcc: list[Correspondent]
    headers: dict[str, list[str]] = Field(
        description="Every field, by its name in lower case, not decoded.", examples=[{"subject": ["Hello"]}]
    )
    text: Text
    attachments: list[Attached]


class Showing(Query):
    text_type: Literal["plain", "html", "*"] = Field("*", description="Which form of the text to show.")
    max_bytes: int = Field(MOST_TEXT, ge=0, le=1 << 30, description="Most bytes of each form.")
    web_safe_html: bool = Field(False, description="The HTML without scripts, style sheets, forms and the like.")


async def show(call: Call, account: AccountId, message: MessageId, query: Showing) -> Shown:
    """Show a message of the mailbox. It is not marked as seen.

    404: it was deleted or moved, its folder was made anew (an id is good as long as the folder's UIDVALIDITY), or the
    account has no mailbox. 502 and 503: the mailbox cannot be used, or is away.
    """
    most = call.house.settings.max_message_size
    mail = await _view(call, account, message, most, whole=False)
    return await call.house.visits.read(lambda: _shown(mail, message, query))


async def source(call: Call, account: AccountId, message: MessageId) -> web.Response:
    """The message's own bytes, as a file. 413 where they are more than messages here may have."""
    mail = await _view(call, account, message, call.house.settings.max_message_size, whole=True)
    return _kept(mail.raw, "message/rfc822", "message.eml")


async def attachment(call: Call, account: AccountId, attachment: FileId) -> web.Response:
    """A file of a message, as it was before it was packed for the way. 413 as for the message itself."""
    message, _, number = attachment.rpartition(".")
    mail = await _view(call, account, message, call.house.settings.max_message_size, whole=True)
    files = (await call.house.visits.read(lambda: read(mail.raw))).files
    if not number.isascii() or not number.isdecimal() or len(number) > 4 or int(number) >= len(files):
        raise Problem(404, "The message has no such attachment", code="AttachmentNotFound")
    file = files[int(number)]
    return _kept(file.content, file.described, file.filename or "attachment")


async def _view(call: Call, account: str, message: str, most: int, *, whole: bool) -> Mail:
    await call.account(account)
    try:
        async with call.house.visits.to(account) as mailbox:
            mail = await view(mailbox, message, most, whole=whole)
    except TooLarge as large:
        text = f"The message has {large.size} bytes, more than the {most} that are given out here"
        raise Problem(413, text, code="MessageTooLarge") from None
    if mail is None:
        text = "There is no such message: it was deleted or moved, its folder was made anew, or this is no id of one"
        raise Problem(404, text, code="MessageNotFound")
    return mail


def _shown(mail: Mail, id: str, query: Showing) -> Shown:
    it, flags = read(mail.raw), {flag.lower() for flag in mail.brief.flags}
    headers: dict[str, list[str]] = {}
    for name, value in it.fields.pairs:
        headers.setdefault(name, []).append(value)
    return Shown(
        id=id,
        uid=mail.place.uid,
        path=mail.place.path,
        message_id=it.message_id or None,
        in_reply_to=it.in_reply_to[0] if it.in_reply_to else None,
        date=mail.brief.date,
        flags=sorted(mail.brief.flags),
        unseen="\\seen" not in flags,
        flagged="\\flagged" in flags,
        draft="\\draft" in flags,
        size=mail.brief.size,
        truncated=len(mail.raw) < mail.brief.size,
        subject=it.subject,
        from_=next(iter(_people(it.sender)), None),
        reply_to=_people(it.reply_to),
        to=_people(it.to),
        cc=_people(it.cc),
        bcc=_people(it.bcc),
        headers=headers,
        text=_text(it, query),
        attachments=[_attached(id, number, file) for number, file in enumerate(it.files)],
    )


def _people(boxes: tuple[Mailbox, ...]) -> list[Correspondent]:
    return [Correspondent(name=box.name, address=box.address) for box in boxes]


def _text(it: Original, query: Showing) -> Text:
    html = cleaning.clean(it.html) if query.web_safe_html else it.html
    plain, more = _cut(it.text, query.max_bytes)
    html, more_html = _cut(html, query.max_bytes)
    wants_plain, wants_html = query.text_type in ("plain", "*"), query.text_type in ("html", "*")
    return Text(
        plain=plain if wants_plain and it.text else None,
        html=html if wants_html and it.html else None,
        has_more=(wants_plain and more) or (wants_html and more_html),
    )


def _cut(text: str, most: int) -> tuple[str, bool]:
    """At most so many bytes of it, no character divided; and whether there is more."""
    raw = text.encode()
    return (text, False) if len(raw) <= most else (raw[:most].decode(errors="ignore"), True)


def _attached(id: str, number: int, file: File) -> Attached:
    return Attached(
        id=f"{id}.{number}",
        content_type=file.kind,
        filename=file.filename or None,
        size=len(file.content),
        encoded_size=file.encoded,
        embedded=file.related,
        inline=file.inline,
        cid=file.cid or None,
        content_id=f"<{file.cid}>" if file.cid else None,
        method=file.method or None,
    )


def _kept(content: bytes, kind: str, filename: str) -> web.Response:
    """A file to be kept, whatever it says it is."""
    ascii_name = "".join(char if (char.isascii() and char.isalnum()) or char in "._- " else "_" for char in filename)
    name = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='')}"
    return web.Response(body=content, headers={"Content-Type": kind, "Content-Disposition": name, **KEPT})
