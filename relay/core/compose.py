"""A message composed from its pieces, as the API takes them: text, HTML, attachments, headers -> RFC 5322 with MIME.

Text alone is text/plain, HTML alone text/html, both are alternatives; images that HTML names by cid are related to it,
other files are mixed in. What is refused names its field by its key.
"""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from relay.core import address, headers, mime
from relay.core.address import Mailbox
from relay.core.errors import Refused

LONGEST_FILENAME = 255
LONGEST_SUBJECT = 10_000
MOST_MAILBOXES = 1000  # in a field of `headers`
BASE64_LINE = 76

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"  # noqa: S105
_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?: *; *{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')
_FIELD_NAME = re.compile(r"[!-9;-~]{1,200}")
_ID = re.compile(r"[!-;=?-~]{1,500}")
_TYPES = {
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".ics": "text/calendar",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_OURS = re.compile(r"content-.*|mime-version|bcc|resent-bcc|received|return-path", re.IGNORECASE)
_OWN_FIELDS = {
    "from": "from",
    "reply-to": "replyTo",
    "to": "to",
    "cc": "cc",
    "subject": "subject",
    "message-id": "messageId",
}
_MAILBOX_FIELDS = frozenset(("sender", "reply-to", "to", "cc"))


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file. One with a `cid` belongs to the HTML, where there is any."""

    content: bytes = field(repr=False)
    filename: str | None = None
    content_type: str | None = None  # None: by the ending of the filename
    disposition: str | None = None  # attachment or inline; None: inline beside HTML that names its cid
    cid: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be composed. Bcc is not part of it: it belongs to the envelope, and no copy shows it."""

    sender: Mailbox
    to: Sequence[Mailbox] = ()
    cc: Sequence[Mailbox] = ()
    reply_to: Sequence[Mailbox] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    attachments: Sequence[Attachment] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    message_id: str | None = None  # None: made from `unique`


class _Part(NamedTuple):
    """The Content-… fields of a part, and its body."""

    head: bytes
    body: bytes

    def __bytes__(self) -> bytes:
        return b"%b\r\n%b" % self


def compose(draft: Draft, *, now: datetime, domain: str, unique: str) -> bytes:
    """The message, with CRLF line ends. Raises Refused, its `key` naming the field of the API.

    `unique` makes the Message-ID, in the domain of the sender (else in `domain`), and the boundaries.
    """
    return _fields(draft, now, domain, unique) + bytes(_content(draft, unique))


def _fields(draft: Draft, now: datetime, domain: str, unique: str) -> bytes:
    _judge_size(draft)
    given = {name.lower() for name in draft.headers}
    custom = b"".join(_custom(draft, name, value) for name, value in draft.headers.items())
    if len(given) < len(draft.headers):
        raise Refused("headers has a field twice, in different spellings", key="headers")
    if len(draft.subject) > LONGEST_SUBJECT:
        raise Refused(f"subject is longer than {LONGEST_SUBJECT} characters", key="subject")
    lists = (("Reply-To", draft.reply_to, "replyTo"), ("To", draft.to, "to"), ("Cc", draft.cc, "cc"))
    nobody = not draft.to and not draft.cc and not given & {"to", "cc"}
    return b"".join(
        (
            headers.mailboxes("From", (draft.sender,), "from"),
            *(headers.mailboxes(name, boxes, key) for name, boxes, key in lists if boxes),
            b"To: undisclosed-recipients:;\r\n" if nobody else b"",
            headers.text("Subject", draft.subject, "subject") if draft.subject else b"",
            b"" if "date" in given else headers.fold("Date", mime.date(now), "date"),
            b""
            if "message-id" in given
            else headers.fold("Message-ID", _message_id(draft, domain, unique), "messageId"),
            custom,
            b"MIME-Version: 1.0\r\n",
        )
    )


def _judge_size(draft: Draft) -> None:
    """Before anything is written: to encode megabytes of header, and refuse them then, would take seconds."""
    boxes = (draft.sender, *draft.reply_to, *draft.to, *draft.cc)
    size = sum(len(name) + len(value) for name, value in draft.headers.items())
    if size + sum(len(box.name) + len(box.address) for box in boxes) > mime.MOST_HEADER:
        raise mime.header_too_large()


def _custom(draft: Draft, name: str, value: str) -> bytes:
    """A field of `headers`: it may add, but neither contradict a field of the draft nor touch what makes the MIME."""
    key, lower = f"headers.{name[:80]}", name.lower()
    if not _FIELD_NAME.fullmatch(name):
        raise Refused(f"headers has {name[:80]!a}, which is no header field name", key="headers")
    if _OURS.fullmatch(lower):
        raise Refused(f"{key} cannot be set: it is written by the relay", key=key)
    if mime.is_control(lower):
        raise Refused(f"{key} is for mail by SMTP; here its field of the request says it", key=key)
    own = _OWN_FIELDS.get(lower)
    taken = {"from": True, "replyTo": draft.reply_to, "to": draft.to, "cc": draft.cc, "subject": draft.subject}
    if own and taken.get(own, draft.message_id):
        raise Refused(f"{key} is there already: {own} says it", key=key)
    if lower in _MAILBOX_FIELDS:
        boxes = address.parse_list(headers.checked(value, key))
        if len(boxes) > MOST_MAILBOXES:
            raise Refused(f"{key} has more than {MOST_MAILBOXES} addresses", key=key)
        judged = [Mailbox(box.name, address.envelope(box.address, key)) for box in boxes]
        if not judged:
            raise Refused(f"{key} has no address in it", key=key)
        return headers.mailboxes(name, judged, key)
    return headers.text(name, value, key) if lower == "subject" else headers.custom(name, value, key)


def _message_id(draft: Draft, domain: str, unique: str) -> str:
    if not draft.message_id:
        return mime.new_message_id(draft.sender.address, domain, unique)
    inside = headers.checked(draft.message_id, "messageId").strip().removeprefix("<").removesuffix(">")
    if not _ID.fullmatch(inside) or "@" not in inside:
        raise Refused("messageId is not of the form <name@domain>", key="messageId")
    return f"<{inside}>"


def _content(draft: Draft, unique: str) -> _Part:
    """The part that holds everything."""
    files = [_file(one, f"attachments[{at}]", bool(draft.html)) for at, one in enumerate(draft.attachments)]
    named = [bool(one.cid and draft.html) for one in draft.attachments]
    related = [part for part, shown in zip(files, named, strict=True) if shown]
    mixed = [part for part, shown in zip(files, named, strict=True) if not shown]
    body = _text("plain", draft.text or "", "text")
    if draft.html:
        shown = _text("html", draft.html, "html")
        if related:
            shown = _multipart("related", [shown, *related], f"=_{unique}_r", '; type="text/html"')
        body = _multipart("alternative", [body, shown], f"=_{unique}_a") if draft.text else shown
    return _multipart("mixed", [body, *mixed], f"=_{unique}_m") if mixed else body


def _multipart(kind: str, parts: Sequence[_Part], boundary: str, more: str = "") -> _Part:
    """Encoded parts cannot have the boundary in them: `=_` occurs neither in base64 nor in quoted-printable."""
    line = f"--{boundary}".encode()
    head = f'Content-Type: multipart/{kind}{more};\r\n boundary="{boundary}"\r\n'.encode()
    return _Part(head, b"".join(b"%b\r\n%b\r\n" % (line, bytes(part)) for part in parts) + line + b"--\r\n")


def _text(kind: str, text: str, key: str) -> _Part:
    """In the encoding that leaves it readable: 7bit, else quoted-printable, else base64 where that is shorter."""
    if "\0" in text:
        raise Refused(f"{key} has a NUL character in it", key=key)
    try:
        data = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    except UnicodeEncodeError:
        raise Refused(f"{key} has half a character in it (an unpaired surrogate)", key=key) from None
    charset = "us-ascii" if data.isascii() else "utf-8"
    encoding, body = "7bit", data.replace(b"\n", b"\r\n")
    if not data.isascii() or not _lines_fit(data):
        encoding, quoted = "quoted-printable", binascii.b2a_qp(data).replace(b"\n", b"\r\n")
        if len(quoted) > len(body) * 4 // 3 + 4:
            encoding, body = "base64", _base64(body)
        else:
            body = quoted
    head = f"Content-Type: text/{kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    return _Part(head.encode(), body)


def _file(given: Attachment, key: str, html: bool) -> _Part:
    filename = headers.checked(given.filename or "", f"{key}.filename")
    if len(filename) > LONGEST_FILENAME:
        raise Refused(f"{key}.filename is longer than {LONGEST_FILENAME} characters", key=f"{key}.filename")
    disposition = given.disposition or ("inline" if given.cid and html else "attachment")
    if disposition not in ("attachment", "inline"):
        raise Refused(f"{key}.contentDisposition is neither attachment nor inline", key=f"{key}.contentDisposition")
    cid = (given.cid or "").removeprefix("<").removesuffix(">")
    if cid and not _ID.fullmatch(cid):
        raise Refused(f"{key}.cid has characters that no Content-ID can have", key=f"{key}.cid")
    kind = _kind(given.content_type, filename, f"{key}.contentType")
    kind, encoding, body = (
        _enclosed(given.content) if kind == "message/rfc822" else (kind, "base64", _base64(given.content))
    )
    name = headers.old_parameter("name", filename) if filename and "name=" not in kind.lower() else ""
    shown = headers.parameter("filename", filename) if filename else ""
    head = (
        f"Content-Type: {kind}{name}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        f"Content-Disposition: {disposition}{shown}\r\n" + (f"Content-ID: <{cid}>\r\n" if cid else "")
    )
    return _Part(head.encode(), body)


def _kind(given: str | None, filename: str, key: str) -> str:
    """The content type that was given, else that of the filename's ending."""
    if given:
        if not _TYPE.fullmatch(given) or len(given) > 500:
            raise Refused(f"{key} is not a content type such as application/pdf", key=key)
        if given.lower().startswith("multipart/"):
            raise Refused(f"{key} cannot be a multipart: an attachment is one file", key=key)
        return given
    ending = "." + filename.lower().rpartition(".")[2]
    return _TYPES.get(ending) or mimetypes.types_map.get(ending) or "application/octet-stream"


def _enclosed(content: bytes) -> tuple[str, str, bytes]:
    """A message may not be encoded again (RFC 2046 5.2.1); one whose lines cannot travel goes as a mere file."""
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\0" in lines or not _lines_fit(lines):
        return "application/octet-stream", "base64", _base64(content)
    return "message/rfc822", "7bit" if lines.isascii() else "8bit", lines.replace(b"\n", b"\r\n")


def _lines_fit(data: bytes) -> bool:
    """Whether no line, they end with LF, is too long: from line to line in leaps, since there may be millions."""
    at = 0
    while len(data) - at > headers.LONG_LINE:
        at = data.rfind(b"\n", at, at + headers.LONG_LINE + 1) + 1
        if at == 0:
            return False
    return True


def _base64(content: bytes) -> bytes:
    encoded = binascii.b2a_base64(content, newline=False)
    return b"\r\n".join(encoded[at : at + BASE64_LINE] for at in range(0, len(encoded), BASE64_LINE))
