"""What follows DATA: gathered chunk by chunk up to CRLF.CRLF, the one true end of data, within a hard limit."""

from __future__ import annotations

import re

END = b"\r\n.\r\n"
EDGE = 8  # bytes kept past the limit: the end of data, and what only looks like it, may straddle chunks

# A dot first on its line in some server's eyes; alone there it ends the data: what mail is smuggled with where two
# servers disagree. The search is for the dot, which is rare, and looks behind it: the other way costs ten times more.
DOT = re.compile(rb"\.(?<=[\r\n\0]\.)")
LOOKALIKE = re.compile(DOT.pattern + rb"[\r\n\0]")
LOOKALIKE_LAST = re.compile(DOT.pattern + rb"[\r\n\0]+\Z")


class Content:
    """Chunks in, one message out. Past `most` bytes it keeps nothing, but still looks for the end.

    A dot that was doubled for the way is no byte of the message (RFC 1870, section 3): lines of a dot alone come a
    third longer than they are.

    One bytearray grows in place: a list of chunks would cost fifty bytes for each that a hostile client sends.
    """

    def __init__(self, most: int) -> None:
        self._most, self._most_sent = most, most + most // 3 + len(b".\r\n")
        self._kept = bytearray(b"\r\n")  # the line end of DATA itself: an empty message is a dot alone
        self._dotted = False  # some line may begin with a dot, in some server's eyes
        self.received = 0

    def feed(self, chunk: bytes) -> bytes | None:
        """Takes a chunk; returns what came after the end of data, or None when that has not come yet."""
        unseen = max(0, len(self._kept) - len(END) + 1)
        self._kept += chunk
        self.received += len(chunk)
        dot = DOT.search(self._kept, unseen)  # there is no end without one
        end = self._kept.find(END, max(unseen, dot.start() - 2)) if dot else -1
        self._dotted = self._dotted or (dot is not None and dot.start() != end + 2)
        if end < 0:
            if self.endless:
                del self._kept[:-EDGE]
            return None
        rest = bytes(self._kept[end + len(END) :])
        self.received -= len(rest)
        del self._kept[end + 2 :]
        return rest

    @property
    def held(self) -> int:
        """Bytes that it keeps."""
        return len(self._kept)

    @property
    def endless(self) -> bool:
        """Too large, whatever dots are in it."""
        return self.received > self._most_sent

    @property
    def too_large(self) -> bool:
        """Asked when the end has come."""
        if self.received <= self._most + len(b".\r\n"):
            return False
        return self.endless or len(self._kept) - 2 - self._kept.count(b"\r\n.") > self._most

    @property
    def ends_falsely(self) -> bool:
        """What came so far ends like a message does, but not with CRLF.CRLF or a beginning of it."""
        edge = bytes(self._kept[-EDGE:])
        return LOOKALIKE_LAST.search(edge) is not None and not edge.endswith(END[:-1])

    @property
    def holds_false_end(self) -> bool:
        """Another server would have seen an end in it. That takes a bare CR, LF or NUL: no good mail does it."""
        return self._dotted and LOOKALIKE.search(self._kept) is not None

    def message(self) -> bytes:
        """The content without dot-stuffing (RFC 5321, section 4.5.2). It can be had once: nothing is kept here."""
        content = self._kept.replace(b"\r\n.", b"\r\n") if self._dotted else self._kept
        self._kept = bytearray()
        return bytes(memoryview(content)[2:])
