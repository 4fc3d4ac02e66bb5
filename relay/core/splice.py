"""Where one recipient's pixel goes, found once at accept; and one recipient's copy: two slices and the pixel between.

Exactly one leaf changes: the first text/html that is no file, and in it nothing but the <img> that is put in,
in that part's own transfer encoding and charset. Where it is not certain that every reader still finds the original
around it, there is no splice: a pixel is worth less than a message.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from relay.core import closing
from relay.core.model import Splice
from relay.core.parts import IDENTITY, Leaf, leaves

LINE = 76  # most characters of an encoded line (RFC 2045 6.7, 6.8)
LONG_LINE = 998  # most octets of any line (RFC 5322 2.1.1)
MOST_HTML = 2 << 20  # bytes, encoded: mail programs show no more, and finding the place in it keeps others waiting
MOST_LINES = 1_000_000  # of a base64 part: 76 MB in full lines
HELD_BACK = 6  # characters of a full quoted-printable line that move behind a soft line break

_QP_WINDOW = 512  # bytes at the end of the part, where </body> nearly always is
_QP_BODY = re.compile(
    rb"(?:=\r\n)*".join(rb"(?:%c|=%02X|=%02X)" % (c, c, c - 32 if c > 96 else c) for c in b"</body"), re.IGNORECASE
)


def find(content: bytes) -> Splice | None:
    """The splice of a tidied message; None: every recipient gets the same bytes. Never raises; linear time."""
    for leaf in leaves(content):
        if leaf.head.kind == b"text/html" and not leaf.file:
            if leaf.end - leaf.start > MOST_HTML or not _has_body(content, leaf):
                return None
            return _in_leaf(content, leaf)
    return None


def render(content: bytes, splice: Splice, tag: str) -> tuple[bytes, bytes, bytes]:
    """One recipient's copy, in three pieces. `tag` is the <img …>, in ASCII."""
    before, after = content[: splice.start], content[splice.end :]
    opens_line = splice.start == 0 or before.endswith(b"\n")
    ends_line = not after or after.startswith(b"\r\n")
    match splice.encoding:
        case "base64":
            pixel = _base64(splice, tag)
            pixel = (b"" if opens_line else b"\r\n") + pixel + (b"" if ends_line else b"\r\n")
        case "quoted-printable":
            pixel = _quoted(splice.before + tag.encode(splice.charset).replace(b"=", b"=3D"))
            pixel = (b"" if opens_line else b"=\r\n") + pixel + (b"" if ends_line else b"=\r\n")
        case _:
            pixel = tag.encode(splice.charset)
            if _column(content, splice.start) + len(pixel) + _remainder(content, splice.end) > LONG_LINE:
                pixel = pixel[:-1].replace(b" ", b"\r\n", 1) + b"\r\n>"
    return before, pixel, after


def dump(splice: Splice) -> dict[str, Any]:
    """As JSON."""
    found: dict[str, Any] = {
        "start": splice.start,
        "end": splice.end,
        "encoding": splice.encoding,
        "charset": splice.charset,
    }
    if splice.before or splice.after:
        found |= {"before": splice.before.hex(), "after": splice.after.hex()}
    return found


def load(found: Mapping[str, Any]) -> Splice:
    """What `dump` made."""
    return Splice(
        start=found["start"],
        end=found["end"],
        encoding=found["encoding"],
        charset=found["charset"],
        before=bytes.fromhex(found.get("before", "")),
        after=bytes.fromhex(found.get("after", "")),
    )


def _has_body(content: bytes, leaf: Leaf) -> bool:
    """Whether an empty line ends its header, and anything follows."""
    return leaf.start <= leaf.end and leaf.start < len(content) and content.endswith(b"\r\n\r\n", 0, leaf.start)


def _in_leaf(content: bytes, leaf: Leaf) -> Splice | None:
    encoding = leaf.head.encoding
    charset = leaf.head.parameter(b"charset").strip().lower() or b"us-ascii"
    body = content[leaf.start : leaf.end]
    if encoding.strip() in IDENTITY:
        return _in_plain(content, leaf.start, body, charset)
    if encoding == b"quoted-printable":
        return _in_quoted(leaf.start, body, charset)
    if encoding == b"base64":
        return _in_base64(leaf.start, body, charset)
    return None


def _in_plain(content: bytes, start: int, body: bytes, charset: bytes) -> Splice | None:
    placed = closing.place(body, charset)
    if placed is None:
        return None
    at, codec = start + placed[0], placed[1]
    left, right = _column(content, at), _remainder(content, at)
    if left + right <= LONG_LINE and max(left + len("<img"), right + len(">")) > LONG_LINE:
        return None
    return Splice(at, at, "7bit", codec)


def _in_quoted(start: int, body: bytes, charset: bytes) -> Splice | None:
    """The place is found in the decoded text; that the encoded text before `at` means the same proves it."""
    decoded = binascii.a2b_qp(body)
    placed = closing.place(decoded, charset)
    if placed is None or placed[1] not in ("ascii", "utf-7"):
        return None
    offset, codec = placed
    if (rest := decoded[offset:].lower()).startswith(b"</body"):
        at = _quoted_body(body, rest.count(b"</body"))
        if at < 0 or binascii.a2b_qp(body[:at]) != decoded[:offset]:
            return None
    else:
        at = len(body.rstrip(b"\r\n").rstrip(b" \t").removesuffix(b"="))
        if body[:at].endswith(b"="):
            return None
    column = at - (body.rfind(b"\n", 0, at) + 1)
    if column < LINE:
        return Splice(start + at, start + at, "quoted-printable", codec)
    cut = at - HELD_BACK
    cut = max(body.rfind(b"=", cut - 2, cut), 0) or cut
    return Splice(start + cut, start + at, "quoted-printable", codec, before=body[cut:at])


def _quoted_body(body: bytes, number: int) -> int:
    """Where the encoded </body> begins that is the `number`th from the end; -1: there is none."""
    for window in (_QP_WINDOW, len(body)):
        found = [match.start() for match in _QP_BODY.finditer(body, max(0, len(body) - window))]
        if len(found) >= number:
            return found[-number]
    return -1


def _in_base64(start: int, body: bytes, charset: bytes) -> Splice | None:
    """Only the three bytes that the place divides are encoded anew; all other lines stay as they are."""
    if body.count(b"\n") > MOST_LINES:
        return None
    flat = body.translate(None, b"\r\n")
    try:
        decoded = binascii.a2b_base64(flat, strict_mode=True)
    except binascii.Error:
        return None
    placed = closing.place(decoded, charset) if decoded else None
    if placed is None:
        return None
    offset, codec = placed
    whole, opened = divmod(offset, 3)
    at = _from_end(body, len(flat) - 4 * whole)
    end = at + 4 if opened else at
    if b"\r" in body[at:end] or b"\n" in body[at:end]:  # the three bytes stand on two lines
        return None
    before, after = (decoded[offset - opened : offset], decoded[offset : offset - opened + 3]) if opened else (b"", b"")
    return Splice(start + at, start + end, "base64", codec, before, after)


def _from_end(body: bytes, characters: int) -> int:
    """Where the last `characters` begin, line ends not counted."""
    end = len(body.rstrip(b"\r\n"))
    while True:
        line = body.rfind(b"\n", 0, end) + 1
        if end - line >= characters:
            return end - characters
        characters -= end - line
        end = line - 2


def _base64(splice: Splice, tag: str) -> bytes:
    """Spaces in the tag make it a multiple of three bytes, so that what follows is encoded as it was."""
    pixel = tag.encode(splice.charset)
    while len(pixel) % 3:
        tag = f"{tag[:-1]} >"
        pixel = tag.encode(splice.charset)
    encoded = binascii.b2a_base64(splice.before + pixel + splice.after, newline=False)
    return b"\r\n".join(encoded[at : at + LINE] for at in range(0, len(encoded), LINE))


def _quoted(encoded: bytes) -> bytes:
    """In lines that leave room for the `=` of a soft line break, and divide no =3D."""
    lines = []
    while len(encoded) >= LINE:
        cut = LINE - 1
        cut = max(encoded.rfind(b"=", cut - 2, cut), 0) or cut
        lines.append(encoded[:cut])
        encoded = encoded[cut:]
    return b"=\r\n".join([*lines, encoded])


def _column(content: bytes, at: int) -> int:
    """Octets before `at` on its line; of a line that is over-long anyway, enough to say so."""
    floor = max(0, at - LONG_LINE - 1)
    return at - max(content.rfind(b"\n", floor, at) + 1, floor)


def _remainder(content: bytes, at: int) -> int:
    """Octets from `at` to the end of its line, likewise."""
    end = content.find(b"\r\n", at, at + LONG_LINE + 3)
    return (end if end >= 0 else min(len(content), at + LONG_LINE + 1)) - at
