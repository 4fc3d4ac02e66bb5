"""An SMTP connection as lines: commands out, replies in, each bounded in size and time (RFC 5321 4.2, 4.5.3)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque

from relay.core import reply as replies
from relay.core.reply import Reply

MOST_LINES = 100  # of one reply
MOST_BYTES = 64 * 1024  # of one reply


class Lost(Exception):
    """The connection is gone. `reply` is what upstream said last, out of turn, or our own words for what happened."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Wire(asyncio.Protocol):
    """Both directions of one connection. What upstream says unasked ends it: 421, or a reply gone astray."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.closing = False  # upstream said 421: it takes no more
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._awaited = 0  # replies that upstream owes us
        self._replies: deque[Reply] = deque()
        self._end: Reply | None = None  # why it is lost
        self._rest = b""
        self._lines: list[bytes] = []
        self._kept = 0  # bytes of the lines kept
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        transport.set_protocol(self)
        if transport.is_closing():
            self.connection_lost(None)

    @property
    def alive(self) -> bool:
        """Whether nothing is known against it."""
        return self._end is None and not self.closing and not self._transport.is_closing()

    @property
    def encrypted(self) -> bool:
        return self._transport.get_extra_info("ssl_object") is not None

    def send(self, data: bytes, awaited: int) -> None:
        """Write, and expect so many replies to it."""
        self._awaited += awaited
        if self._end is None:
            self._transport.write(data)

    async def reply(self, seconds: float) -> Reply:
        """The next reply, whole, within `seconds` however slowly its lines drip. Raises Lost."""
        while not self._replies:
            await self._wait(seconds)
        return self._replies.popleft()

    async def drained(self, seconds: float) -> None:
        """What was written is on its way, or nearly. Raises Lost."""
        while self._paused or self._end is not None:
            await self._wait(seconds)

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._lose(Reply(451, "4.4.2", why))

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._end is not None:
                return
            self._line(line.removesuffix(b"\r"))
        if len(self._rest) + self._kept > MOST_BYTES or len(self._lines) > MOST_LINES:
            self._lose(Reply(451, "4.5.0", "upstream's reply has no end"))

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(Reply(451, "4.4.2", "upstream closed the connection" + (f": {exc}" if exc else "")))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    # What happens inside.

    def _line(self, line: bytes) -> None:
        self._lines.append(line)
        self._kept += len(line)
        if not replies.is_last(line):
            return
        try:
            self._take(replies.parse(self._lines))
        except replies.NotAReply as fault:
            self._lose(Reply(451, "4.5.0", f"upstream does not speak SMTP: {fault}"))
        self._lines, self._kept = [], 0

    def _take(self, reply: Reply) -> None:
        self.closing = self.closing or reply.code == 421
        if self._awaited == 0:
            astray = Reply(451, "4.5.0", f"upstream spoke out of turn: {reply}")
            return self._lose(reply if reply.code >= 400 else astray)
        self._awaited -= 1
        self._replies.append(reply)
        return self._wake()

    def _lose(self, reply: Reply) -> None:
        if self._end is None:
            self._end = reply
            self._transport.abort()
        self._wake()

    def _silent(self, seconds: float) -> None:
        """What upstream has not got yet is taken back, else TCP says it again until the line is whole, and it comes
        beside the copy that was sent again meanwhile."""
        taken_back = struct.pack("ii", True, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, taken_back)
        self.abort(f"upstream did not answer within {seconds:g} seconds")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float) -> None:
        """Until something happens. A timer of the loop is cheaper than asyncio.timeout, and this runs for each mail."""
        if self._end is not None:
            raise Lost(self._end)
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._silent, seconds)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
