"""The Sent copy as bytes: what is written, and what is read of those that the provider wrote.

What is written is the stored message, whose bytes stay as they are, but for two things: a Bcc field of those whom the
sender gave, and the fields From, To and Cc in the provider's own words, where it wrote some.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

from relay.core import headers, words
from relay.core.address import Mailbox, parse_list

ADDRESSES = ("From", "To", "Cc")
LOOKED_AT = (
    *(*ADDRESSES, "Bcc", "Message-ID", "Subject"),
    *("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To"),
)
"""The fields that tell copies apart."""

_OURS = frozenset(name.lower().encode() for name in ADDRESSES)
_DELIVERED = frozenset((b"delivered-to", b"x-original-to", b"envelope-to", b"x-envelope-to"))
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)", re.MULTILINE)

_CHANGED = re.compile(r"[^a-z0-9]+")  # what servers may spell otherwise, or in another charset

_PIXEL = re.compile(rb"/t/([A-Za-z0-9_-]{32})\.gif")
_BASE64 = re.compile(rb"^(?:[A-Za-z0-9+/]++={0,2}+[ \t]*+(?:\r?\n|\Z))++", re.MULTILINE)
_SHORTEST = 48  # characters that a pixel's name has in base64: a shorter run has none


def write(content: bytes, bcc: Sequence[str], theirs: bytes = b"") -> bytes:
    """The copy of `content`. `theirs`: From, To and Cc as the provider wrote them (`addresses`), b"" for nowhere."""
    head, rest = _divide(content)
    given, left = _by_name(theirs), _by_name(theirs)
    pieces: list[bytes] = []
    at = place = 0
    for match in _FIELD.finditer(head):
        name = match[1].lower()
        if name in _OURS:
            pieces += [head[at : match.start()], left.pop(name, b"") if name in given else match[0]]
            at, place = match.end(), len(pieces)
    pieces.append(head[at:])
    pieces.insert(place or len(pieces), b"".join(left.values()) + _bcc(bcc))
    return b"".join(pieces) + rest


def addresses(header: bytes) -> bytes:
    """The fields From, To and Cc of a header, byte for byte. b"" where it was cut off in their midst."""
    if not header.endswith((b"\r\n\r\n", b"\n\n")):
        return b""
    return b"".join(match[0] for match in _FIELD.finditer(header) if match[1].lower() in _OURS)


def names_all(header: bytes, bcc: Sequence[str]) -> bool:
    """Whether its Bcc field has all of these addresses."""
    shown = {box.address.lower() for value in _values(header, b"bcc") for box in parse_list(value)}
    return {address.lower() for address in bcc} <= shown


def has_id(header: bytes, message_id: str) -> bool:
    """Whether this is its Message-ID, with or without its brackets."""
    return _id(message_id) in map(_id, _values(header, b"message-id")) and bool(_id(message_id))


def subject(mail: bytes) -> str:
    """What of its Subject every server leaves as it is: other mail under the same Message-ID has another."""
    head, _ = _divide(mail)
    return "".join(_CHANGED.sub("", words.decode(value).lower()) for value in _values(head, b"subject"))


def delivered(header: bytes) -> bool:
    """Whether it came in here: the sender is among the recipients, and this is what he received."""
    return any(match[1].lower() in _DELIVERED for match in _FIELD.finditer(header))


def pixels(raw: bytes) -> frozenset[bytes]:
    """The names of all pictures in it that may be pixels of ours, however it is encoded. Linear; never raises.

    Readers of MIME would differ on what a provider made of it. So it is read in every way: as it is, as quoted-
    printable, and each run of lines that may be base64.
    """
    texts = [raw, binascii.a2b_qp(raw)]
    texts += [_decoded(run[0]) for run in _BASE64.finditer(raw) if len(run[0]) >= _SHORTEST]
    found: set[bytes] = set()
    for text in texts:
        found.update(_PIXEL.findall(text))
        if b"\0" in text:  # UTF-16, UTF-32
            found.update(_PIXEL.findall(text.replace(b"\0", b"")))
    return frozenset(found)


def _decoded(run: bytes) -> bytes:
    flat = run.translate(None, b"\r\n\t =")
    return binascii.a2b_base64(flat[: len(flat) - (len(flat) % 4 == 1)] + b"==")


def _divide(content: bytes) -> tuple[bytes, bytes]:
    """The header block, and the rest from the empty line on."""
    at = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n") + 2
    return (content, b"") if at == 1 else (content[:at], content[at:])


def _by_name(fields: bytes) -> dict[bytes, bytes]:
    """Several fields of one name go together."""
    found: dict[bytes, bytes] = {}
    for match in _FIELD.finditer(fields):
        name = match[1].lower()
        found[name] = found.get(name, b"") + match[0]
    return found


def _bcc(bcc: Sequence[str]) -> bytes:
    return headers.mailboxes("Bcc", [Mailbox("", address) for address in bcc], "bcc") if bcc else b""


def _values(header: bytes, name: bytes) -> list[str]:
    """The fields of this name, unfolded."""
    return [
        words.text_of(match[2].replace(b"\r\n", b"").replace(b"\n", b""))
        for match in _FIELD.finditer(header)
        if match[1].lower() == name
    ]


def _id(value: str) -> str:
    inside = re.search(r"<([^<>]*)>", value)
    return "".join((inside[1] if inside else value).split())
