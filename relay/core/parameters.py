"""Parameters of a header field such as Content-Type: plain, quoted, continued, encoded (RFC 2231). Over raw bytes."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_PARAMETER = re.compile(rb';\s*+([^\s=;]++)\s*+=\s*+("(?:[^"\\]++|\\.)*+"|[^;]*+)', re.DOTALL)
_CLEAR = re.compile(
    rb'[^;"]*+(?:;\s*+(?:[^\s=;"]++\s*+=\s*+(?:"(?:[^"\\\r\n]++|\\[^\r\n])*+"\s*+|[^;"(\r\n]*+\s*+))?)*+'
)
_CONTINUED = re.compile(rb"([^*]+)\*(?:(\d{1,4})(\*?))?")


def read(value: bytes) -> dict[bytes, bytes]:
    """Names in lower case, values unquoted and decoded to bytes. Of two with one name the first counts."""
    found: dict[bytes, bytes] = {}
    pieces: dict[bytes, list[tuple[int, bytes]]] = {}
    for match in _PARAMETER.finditer(value.replace(b"\r\n", b"")):
        name, text = match[1].lower(), _unquoted(match[2].strip())
        continued = _CONTINUED.fullmatch(name)
        if continued is None:
            found.setdefault(name, text)
        else:
            number, encoded = int(continued[2] or 0), continued[2] is None or bool(continued[3])
            pieces.setdefault(continued[1], []).append((number, _decoded(text, number) if encoded else text))
    for name, parts in pieces.items():
        found.setdefault(name, b"".join(text for _, text in sorted(parts, key=lambda part: part[0])))
    return found


def clear(value: bytes) -> bool:
    """Whether every reader takes the same parameters from it: no stray quote, no comment or fold inside a value."""
    return _CLEAR.fullmatch(value) is not None


def _unquoted(text: bytes) -> bytes:
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = text[1:-1]
        return re.sub(rb"\\(.)", rb"\1", text) if b"\\" in text else text
    return text


def _decoded(text: bytes, number: int) -> bytes:
    """Percent-decoded; the first piece begins with charset'language'."""
    return unquote_to_bytes(text.rpartition(b"'")[2] if number == 0 else text)
