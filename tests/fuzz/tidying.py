"""A message made fit to go out, under fuzz: what comes off and on, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from relay.core import mime
from relay.core.errors import Refused
from relay.core.model import Mail
from relay.core.options import read_options
from tests.fuzz.target import Target, one_line

NOW = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
ADDED = (b"message-id", b"date", b"mime-version")


def check(raw: bytes) -> None:
    """Refused, or tidied: ours comes off, what is missing comes on, every other byte stays; twice is once."""
    try:
        mail = tidied(raw)
    except Refused as refused:
        one_line(refused.reply())
        return
    assert mail.content.count(b"\r") == mail.content.count(b"\n") == mail.content.count(b"\r\n")
    assert b"\0" not in mail.content
    again = tidied(mail.content)
    assert again.content == mail.content, "tidied twice, it is another message"
    assert not again.controls, "a control header is left"
    assert not again.bcc, "Bcc is left"
    assert (again.message_id, again.sender, again.subject) == (mail.message_id, mail.sender, mail.subject)
    stays(raw if raw.endswith(b"\r\n") else raw + b"\r\n", mail)
    readable(mail)


def tidied(raw: bytes) -> Mail:
    return mime.tidy(raw, now=NOW, domain="relay.example", unique="u" * 32)


def stays(raw: bytes, mail: Mail) -> None:
    """By lines: the body is the same; of the header goes what is ours, and comes what was missing."""
    head, body = divided(raw)
    new_head, new_body = divided(mail.content)
    assert body == new_body, "the body changes"
    kept = [field for field in fields(head) if not _ours(field)]
    names = {_name(field) for field in kept}
    left = [field for field in fields(new_head) if _name(field) not in ADDED or _name(field) in names]
    assert b"".join(left) == b"".join(kept), "another header field changes"
    assert {_name(field) for field in fields(new_head)} >= set(ADDED), "what was missing is not there"


def divided(content: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines of the header, and the rest."""
    lines = content.split(b"\r\n")
    end = lines.index(b"") if b"" in lines else len(lines)
    return lines[:end], lines[end:]


def fields(lines: list[bytes]) -> list[bytes]:
    """Each with the lines that continue it."""
    found: list[bytes] = []
    for line in lines:
        if found and line[:1] in (b" ", b"\t") and _name(found[-1]):
            found[-1] += b"\r\n" + line
        else:
            found.append(line)
    return found


def _name(field: bytes) -> bytes:
    """In lower case; b"" for a line that is no field."""
    name, colon, _ = field.partition(b":")
    name = name.rstrip(b" \t")
    return name.lower() if colon and name and all(0x21 <= byte <= 0x7E for byte in name) else b""


def _ours(field: bytes) -> bool:
    name = _name(field).decode()
    return name == "bcc" or mime.is_control(name)


def readable(mail: Mail) -> None:
    """What is read of it can be stored, and stands on one line."""
    words = [mail.message_id, mail.sender, mail.subject, *mail.bcc, *mail.controls.values(), *mail.names.values()]
    for word in words:
        one_line(word)
    try:
        read_options(mail.controls, NOW)
    except Refused as refused:
        one_line(refused.reply())


def seeds() -> Iterator[bytes]:
    plain = b"From: Ada <a@one.example>\r\nTo: b@two.example\r\nSubject: =?utf-8?q?hell=C3=B6?=\r\n"
    yield plain + b"\r\nbody\r\n"
    yield plain + b"Message-ID: <m@x>\r\nDate: Thu, 31 Jan 2030 09:30:00 +0000\r\nMIME-Version: 1.0\r\n\r\nbody"
    yield plain + b"Bcc: c@three.example,\r\n d@four.example\r\nX-Account: a1\r\nX-EE-Account: a1\r\n\r\nbody\r\n"
    yield b"X-Send-At: 2030-02-01T00:00:00Z\r\nX-Delivery-Attempts: 3\r\nX-Priority-Class: high\r\n" + plain + b"\r\n"
    yield b"X-Track-Opens: yes\r\nX-Email-Type: a\r\nX-Reference-Type: b\r\nX-Reference-Id: c\r\n" + plain
    yield b"X-EE-Send-At: 1896082200\r\nX-EE-Idempotency-Key: k\r\nX-EE-Unknown: x\r\n" + plain + b"\r\nx\r\n"
    yield b"From a@one.example Thu\r\n" + plain + b"\r\nbody\r\n"
    yield b" folded first\r\n" + plain + b"no field\r\n\r\nbody\r\n"
    yield b"\r\nonly a body\r\n"
    yield b"no header\r\nat all\r\n"
    yield plain + b"X-Account : a1\r\nX-Account\t:a1\r\n\r\nb"
    yield plain + b"X-Account: a1\r\nX-Account: a2\r\n\r\nb"
    yield plain + b"\xfeReceived: by x\r\n\xfe\r\nb\r\n"
    for word in (b"a: b\r\n", b" \r\n", b"x", b"Bcc: a@b\r\n", b"X-EE-a: b\r\n", b"To: (\r\n ", b"\r\n"):
        yield plain + b"\xfe" + word + b"\xfe\r\n\r\nb\r\n"


WORDS = (
    *(b"X-Account: ", b"X-Send-At: ", b"X-EE-", b"Bcc: ", b"Bcc :", b"Message-ID: <", b"Date: ", b"MIME-Version: 1.0"),
    *(
        b"\r\n",
        b"\r\n ",
        b"\r\n\t",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"From ",
        b">From ",
        b": ",
        b"=?utf-8?b?",
        b"\xfe",
    ),
    *(b"Sender: ", b"Received: ", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8"),
)

TARGETS = (Target("tidy", check, seeds, WORDS, longest=2048),)
