"""Header fields, written: folded, encoded where they must be, and never able to begin another field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from relay.core import words
from relay.core.address import CONTROLS, Mailbox
from relay.core.errors import Refused

LINE = 76  # characters after which a line is folded
LONGEST_VALUE = 32_768  # characters of a field whose meaning we do not know
LONG_LINE = 998  # octets that no line may exceed (RFC 5322 2.1.1)

_PLAIN = re.compile(r"[!-~]{1,900}(?: [!-~]{1,900})*")
_SIMPLE = re.compile(r"[A-Za-z0-9 ._()+,@&~#!-]{1,60}")
_PIECE = re.compile(r"(?:%..|[^%]){1,20}")  # at most 60 characters, no %XX divided


def checked(value: str, key: str) -> str:
    """The value, with a blank for each tab. Raises Refused when it could end its line, or is no Unicode."""
    value = value.replace("\t", " ")
    if CONTROLS.search(value):
        raise Refused(f"{key} has a line break or another control character in it", key=key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{key} has half a character in it (an unpaired surrogate)", key=key) from None
    return value


def text(name: str, value: str, key: str) -> bytes:
    """A field that people read, such as Subject."""
    value = checked(value, key)
    if value and ("=?" in value or not _PLAIN.fullmatch(value)):
        value = " ".join(words.encode(value, first=words.LONGEST - len(name) - 2))
    return fold(name, value, key)


def custom(name: str, value: str, key: str) -> bytes:
    """A field whose meaning we do not know: ASCII stays as it is, so that URLs and encoded words survive."""
    if len(value) > LONGEST_VALUE:
        raise Refused(f"{key} is longer than {LONGEST_VALUE} characters", key=key)
    value = checked(value, key).strip()
    return fold(name, value, key) if value.isascii() else text(name, value, key)


def mailboxes(name: str, boxes: Sequence[Mailbox], key: str) -> bytes:
    """A field of addresses. Each was judged before; names are judged here."""
    for number, box in enumerate(boxes):
        checked(box.name, f"{key}[{number}].name" if key != "from" else "from.name")
        checked(box.address, key)
    return fold(name, ", ".join(box.header() for box in boxes), key)


def fold(name: str, value: str, key: str) -> bytes:
    """Folded at blanks; unfolding gives `value` again. Raises Refused for a word that no line can hold."""
    lines, line = [], f"{name}:"
    for word in value.split(" "):
        if word and len(line) + 1 + len(word) > LINE and line.rstrip() not in ("", f"{name}:"):
            lines.append(line)
            line = ""
        line += f" {word}"
    lines.append(line)
    encoded = [line.encode() for line in lines]
    if max(map(len, encoded)) > LONG_LINE:
        raise Refused(f"{key} has more than {LONG_LINE} bytes without a blank in it", key=key)
    return b"\r\n".join(encoded) + b"\r\n"


def parameter(name: str, value: str) -> str:
    """A parameter behind its semicolon, on lines of its own: quoted, else percent-encoded in pieces (RFC 2231)."""
    if _SIMPLE.fullmatch(value):
        return f';\r\n {name}="{value}"'
    pieces = _PIECE.findall(quote(value, safe="")) or [""]
    if len(pieces) == 1:
        return f";\r\n {name}*=utf-8''{pieces[0]}"
    marked = [f"utf-8''{pieces[0]}", *pieces[1:]]
    return "".join(f";\r\n {name}*{number}*={piece}" for number, piece in enumerate(marked))


def old_parameter(name: str, value: str) -> str:
    """The same for readers that know no RFC 2231: encoded words between quotes, which no standard allows."""
    if _SIMPLE.fullmatch(value):
        return f';\r\n {name}="{value}"'
    encoded = "\r\n ".join(words.encode(value, first=words.LONGEST - len(name) - 4))
    return f';\r\n {name}="{encoded}"'
