"""What a client has sent and we have not read yet."""

from __future__ import annotations

import asyncio


class Inbox(asyncio.StreamReader):
    """A stream reader that can be looked into: replies wait for company as long as there is input left to answer."""

    _buffer: bytearray
    _eof: bool
    _exception: Exception | None
    _transport: asyncio.Transport | None

    @property
    def size(self) -> int:
        return len(self._buffer)

    @property
    def ended(self) -> bool:
        return self._eof

    def line(self) -> bytes | None:
        """The next line with its end, LF; None when it is not complete yet."""
        end = self._buffer.find(b"\n") + 1
        return self.take(end) if end else None

    def take(self, most: int | None = None) -> bytes:
        """What is here, at most so many bytes of it."""
        taken = bytes(self._buffer[:most])
        del self._buffer[:most]
        self._maybe_resume_transport()  # type: ignore[attr-defined]
        return taken

    def give_back(self, rest: bytes) -> None:
        """Bytes that were taken too many are the next to be read."""
        self._buffer[:0] = rest

    async def more(self) -> None:
        """Waits until something is received. Raises EOFError when nothing more will be."""
        if self._exception is not None:
            raise self._exception
        if self._eof:
            raise EOFError
        await self._wait_for_data("more")  # type: ignore[attr-defined]

    def follow(self, transport: asyncio.Transport) -> None:
        """From now on this transport feeds us, or already did: what is here came through TLS."""
        self._transport = transport
