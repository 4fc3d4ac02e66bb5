"""Content as it goes over the wire: dots doubled, and the dot that ends it (RFC 5321 4.5.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

CHUNK = 256 * 1024  # bytes

_LEADING = re.compile(rb"\n\.")  # of content with CRLF line ends; half the time of looking for three bytes


def dot_stuffed(content: Sequence[bytes]) -> Iterator[bytes]:
    """The content with a dot before each leading dot, in chunks."""
    before = b"\r\n"
    for piece in content:
        for start in range(0, len(piece), CHUNK):
            chunk = before + piece[start : start + CHUNK]
            before = chunk[-2:]
            yield (chunk.replace(b"\r\n.", b"\r\n..") if _LEADING.search(chunk) else chunk)[2:]


def final_dot(content: Sequence[bytes]) -> bytes:
    """What ends this content: a dot on a line of its own."""
    tail = b"".join(piece[-2:] for piece in content)[-2:]
    return b".\r\n" if tail in (b"", b"\r\n") else b"\r\n.\r\n"
