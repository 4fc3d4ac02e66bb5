"""A message as it comes in, made fit to go out: control headers and Bcc come off, missing headers are put on.

Bytes are kept as they are: no parser rebuilds them, and only the header block is looked at line by line.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from relay.core import words
from relay.core.address import CONTROLS, Mailbox, parse_list
from relay.core.errors import Refused
from relay.core.model import Mail

MOST_HEADER = 1 << 20  # bytes
MOST_RECEIVED = 50  # more hops than that are a loop (RFC 5321 6.3)
MOST_LIST = 128 << 10  # bytes of a list of addresses that are read for their names: judging them takes its time
LONGEST = 998  # characters of a subject or a Message-ID

_CONTROL_NAMES = {
    b"x-account": "account",
    b"x-send-at": "send-at",
    b"x-delivery-attempts": "delivery-attempts",
    b"x-priority-class": "priority-class",
    b"x-track-opens": "track-opens",
    b"x-email-type": "email-type",
    b"x-reference-type": "reference-type",
    b"x-reference-id": "reference-id",
    b"x-idempotency-key": "idempotency-key",
    b"x-ee-tracking-enabled": "track-opens",
}
_FOREIGN = b"x-ee-"  # a sender made for EmailEngine: the rest of the name means what ours means
_REQUIRED = frozenset((b"message-id", b"date", b"mime-version"))
_WANTED = _REQUIRED | {b"from", b"sender", b"to", b"cc", b"subject"}

_BARE = "550 5.6.11"
_BARE_LF = re.compile(rb"\n(?<!\r\n)")  # a search for one byte and a look behind it: half the time of counting CRLF
_BARE_CR = re.compile(rb"\r(?!\n)")

_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)", re.MULTILINE)
_LEAD = re.compile(rb"(?:>?From [^\n]*\n)?(?:[ \t][^\n]*\n)*")
_ID = re.compile(r"<[^<>]*>")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def tidy(raw: bytes, *, now: datetime, domain: str, unique: str) -> Mail:
    """The message read and tidied; raises Refused for what no upstream should get.

    `unique` makes a missing Message-ID, in the domain of From, or in `domain` where From has none to use.
    """
    _judge(raw)
    head, rest = _divide(raw)
    kept, fields, controls, bcc = _read(head)
    sender = next(iter(_mailboxes(fields, b"from") or _mailboxes(fields, b"sender")), Mailbox("", "")).address
    message_id = _message_id(fields) if b"message-id" in fields else new_message_id(sender, domain, unique)
    head = _completed(kept, fields, message_id, now)
    return Mail(
        content=head + rest,
        message_id=message_id,
        sender=sender,
        subject=_subject(fields),
        controls=controls,
        names={box.address.lower(): box.name for box in _mailboxes(fields, b"to", b"cc") if box.name},
        bcc=tuple(box.address for value in bcc for box in parse_list(_text(value))),
        eightbit=not (head.isascii() and rest.isascii()),
        smtputf8=not head.isascii(),
    )


def addressed(raw: bytes) -> list[str]:
    """The addresses of all To and Cc fields, as `tidy` and upstreams read them."""
    head, _ = _divide(raw)
    fields = (match[2] for match in _FIELD.finditer(head) if match[1].lower() in (b"to", b"cc"))
    return [box.address for value in fields for box in parse_list(_text(value))]


def _judge(raw: bytes) -> None:
    """Bytes that servers read in different ways are refused before anything is computed (SMTP smuggling)."""
    if _BARE_LF.search(raw):
        raise Refused(
            "The message has a line feed without a carriage return before it; end lines with CRLF", smtp=_BARE
        )
    if _BARE_CR.search(raw):
        raise Refused("The message has a carriage return without a line feed after it; end lines with CRLF", smtp=_BARE)
    if b"\0" in raw:
        raise Refused("The message has a NUL byte in it; send it base64-encoded", smtp=_BARE)
    if not raw.strip(b" \t\r\n"):
        raise Refused("There is no message: neither a header field nor a line of text", smtp="550 5.6.0")


def _divide(raw: bytes) -> tuple[bytes, bytes]:
    """The header block, and the rest from the empty line on. A last line without its end is given one."""
    raw = raw if raw.endswith(b"\r\n") else raw + b"\r\n"
    at = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n") + 2
    head, rest = (raw, b"") if at == 1 else (raw[:at], raw[at:])
    if len(head) > MOST_HEADER:
        raise header_too_large()
    return head, rest


def header_too_large() -> Refused:
    return Refused(f"The header of the message is larger than {MOST_HEADER} bytes", smtp="552 5.3.4", status=413)


def _read(head: bytes) -> tuple[bytes, dict[bytes, bytes], dict[str, str], list[bytes]]:
    """The block without what is ours alone; the fields we read, each the first of its name; the controls; each Bcc."""
    kept: list[bytes] = []
    fields: dict[bytes, bytes] = {}
    controls: dict[str, str] = {}
    bcc: list[bytes] = []
    received = at = 0
    for match in _FIELD.finditer(head):
        name = match[1].lower()
        if name in _WANTED:
            fields.setdefault(name, match[2])
        elif name == b"received":
            received += 1
        elif name == b"bcc" or name in _CONTROL_NAMES or name.startswith(_FOREIGN):
            kept.append(head[at : match.start()])
            at = match.end()
            if name == b"bcc":
                bcc.append(match[2])
            else:
                _control(controls, name, match[2])
    if received > MOST_RECEIVED:
        raise Refused(f"More than {MOST_RECEIVED} Received headers: the message goes in circles", smtp="554 5.4.6")
    return b"".join(kept) + head[at:] if at else head, fields, controls, bcc


def _control(controls: dict[str, str], name: bytes, value: bytes) -> None:
    """Adds what the header says. Our own spelling and EmailEngine's mean the same; both may be there and agree."""
    header = name.decode("ascii").title().replace("X-Ee-", "X-EE-")
    known = _CONTROL_NAMES.get(name) or _CONTROL_NAMES.get(name.replace(_FOREIGN, b"x-"))
    text = _text(value).replace("\t", " ")
    if known is None or not text:
        return
    if CONTROLS.search(text):
        raise Refused(f"{header} has a line break or another control character in it", smtp="550 5.6.0", key=header)
    if controls.setdefault(known, text) != text:
        raise Refused(f"{header} is there more than once, with different values", smtp="550 5.6.0", key=header)


def _completed(head: bytes, fields: dict[bytes, bytes], message_id: str, now: datetime) -> bytes:
    """The block with the missing fields on top, where no line that is not a header field stands before them."""
    if fields.keys() >= _REQUIRED:
        return head
    missing = b"".join(
        b"%b: %b\r\n" % (name, value.encode())
        for name, value in ((b"Message-ID", message_id), (b"Date", date(now)), (b"MIME-Version", "1.0"))
        if name.lower() not in fields
    )
    lead = _LEAD.match(head)
    at = lead.end() if lead else 0
    return head[:at] + missing + head[at:]


def _message_id(fields: dict[bytes, bytes]) -> str:
    text = CONTROLS.sub("", _text(fields[b"message-id"]))
    found = _ID.search(text)
    return (found[0] if found else text and f"<{text}>")[:LONGEST]


def _subject(fields: dict[bytes, bytes]) -> str:
    return CONTROLS.sub(" ", words.decode(_text(fields.get(b"subject", b"")))).strip()[:LONGEST]


def _mailboxes(fields: dict[bytes, bytes], *names: bytes) -> list[Mailbox]:
    return [box for name in names if name in fields for box in parse_list(_text(fields[name][:MOST_LIST]))]


def _text(value: bytes) -> str:
    """Unfolded (RFC 5322 2.2.3) and without the blanks around it."""
    return words.text_of(value.replace(b"\r\n", b"")).strip(" \t")


def is_control(name: str) -> bool:
    """Whether the header field `name`, in lower case, is read and taken off here."""
    return name.encode() in _CONTROL_NAMES or name.encode().startswith(_FOREIGN)


def new_message_id(sender: str, domain: str, unique: str) -> str:
    """In the domain of the sender's address, when a Message-ID can have it, else in `domain`."""
    host = sender.rpartition("@")[2]
    return f"<{unique}@{host if _HOST.fullmatch(host) else domain}>"


def date(now: datetime) -> str:
    """As header fields spell it (RFC 5322 3.3). Without strftime, which speaks the language of the process."""
    utc = now.astimezone(UTC)
    day = f"{_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year}"
    return f"{day} {utc.hour:02}:{utc.minute:02}:{utc.second:02} +0000"
