"""The upstream of the bench: an SMTP server that counts and times every message, and stores none.

A process of its own (`python -m tests.bench.sink`). The first line it prints is its port. Then each line on stdin names
a run and is answered with one line of JSON: what was taken of that run so far. `NAME times` adds when each came; with
`forget` it knows nothing of the run from then on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from typing import Any

import uvloop

from tests.bench.mail import MARK, MARK_SIZE

GREETING = b"220 sink.bench ESMTP\r\n"
OFFERED = (b"PIPELINING", b"SIZE 104857600", b"8BITMIME", b"SMTPUTF8")
HELLO = b"250-sink.bench\r\n" + b"".join(b"250-%b\r\n" % offer for offer in OFFERED) + b"250 ENHANCEDSTATUSCODES\r\n"
REPLIES = {
    b"EHLO": HELLO,
    b"HELO": b"250 sink.bench\r\n",
    b"MAIL": b"250 2.1.0 ok\r\n",
    b"RCPT": b"250 2.1.5 ok\r\n",
    b"DATA": b"354 go on\r\n",
    b"RSET": b"250 2.0.0 ok\r\n",
    b"NOOP": b"250 2.0.0 ok\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}
UNKNOWN = b"502 5.5.1 unknown command\r\n"
TAKEN = b"250 2.0.0 taken\r\n"
END = b"\r\n.\r\n"


class Run:
    """What was taken of one run: how often each copy (a message for one recipient) came, and when."""

    def __init__(self) -> None:
        self.copies: dict[bytes, int] = {}
        self.taken = 0
        self.last = 0.0
        self.times: dict[bytes, float] = {}

    def take(self, mark: bytes, recipients: list[bytes], now: float) -> None:
        for recipient in recipients:
            copy = mark + b" " + recipient
            self.copies[copy] = self.copies.get(copy, 0) + 1
        self.taken += len(recipients)
        self.times.setdefault(mark, now)
        self.last = now

    def report(self, times: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"taken": self.taken, "unique": len(self.copies), "last": self.last}
        if times:
            found["times"] = {mark.decode(): at for mark, at in self.times.items()}
        return found


class Upstream(asyncio.Protocol):
    """One connection. Commands that came together are answered together."""

    connections = 0

    def __init__(self, runs: defaultdict[str, Run]) -> None:
        self.runs = runs
        self.buffer = bytearray()
        self.recipients: list[bytes] = []
        self.reading_content = False

    def connection_made(self, transport: Any) -> None:
        Upstream.connections += 1
        self.transport = transport
        transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        searched = max(len(self.buffer) - len(END), 0)
        self.buffer += data
        replies: list[bytes] = []
        while self._content(searched, replies) if self.reading_content else self._command(replies):
            searched = 0
        if replies:
            self.transport.write(b"".join(replies))
        if replies and replies[-1] is REPLIES[b"QUIT"]:
            self.transport.close()

    def _command(self, replies: list[bytes]) -> bool:
        end = self.buffer.find(b"\n")
        if end < 0:
            return False
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        verb = line[:4].upper()
        replies.append(REPLIES.get(verb, UNKNOWN))
        if verb == b"RCPT":
            self.recipients.append(line[line.find(b"<") : line.find(b">")])
        elif verb == b"DATA":
            self.reading_content = True
        elif verb in (b"MAIL", b"RSET"):
            self.recipients = []
        return True

    def _content(self, searched: int, replies: list[bytes]) -> bool:
        end = self.buffer.find(END, searched)
        if end < 0:
            return False
        start = self.buffer.find(MARK, 0, end)
        mark = bytes(self.buffer[start + len(MARK) : start + len(MARK) + MARK_SIZE]) if start >= 0 else b"unmarked"
        del self.buffer[: end + len(END)]
        self.runs[mark.partition(b"-")[0].decode()].take(mark, self.recipients, time.monotonic())
        self.recipients, self.reading_content = [], False
        replies.append(TAKEN)
        return True


async def serve() -> None:
    """Listen, say where, answer questions on stdin until it ends."""
    runs: defaultdict[str, Run] = defaultdict(Run)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(runs), "127.0.0.1", 0, backlog=512)
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    print(server.sockets[0].getsockname()[1], flush=True)
    while question := (await questions.readline()).split():
        answer = runs[question[0].decode()].report(times=b"times" in question)
        if b"forget" in question:
            del runs[question[0].decode()]
        print(json.dumps(answer | {"connections": Upstream.connections}), flush=True)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
