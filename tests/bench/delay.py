"""A long way to the upstream: a proxy that keeps every byte for a while, each way, and limits nothing else.

A process of its own: `python -m tests.bench.delay PORT MILLISECONDS` leads to PORT of loopback. The first line it
prints is its own port. Then each line on stdin is answered with one line of JSON: what it did since the last one.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, ClassVar


class Half(asyncio.Protocol):
    """One end of a connection. What it hears it tells the other end, later."""

    late: ClassVar[list[float]] = []  # seconds over the delay that chunks were kept, of both ends and all connections

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: Half | None = None
        self.transport: Any = None
        self.kept: deque[tuple[float, bytes]] = deque()  # when it is to be told, and what; b"" for the end
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.kept.append((self.loop.time() + self.delay, data))
        if len(self.kept) == 1:
            self.loop.call_at(self.kept[0][0], self.tell)

    def connection_lost(self, fault: Exception | None) -> None:
        self.data_received(b"")

    def tell(self) -> None:
        assert self.other
        now = self.loop.time()
        while self.kept and self.kept[0][0] <= now:
            when, data = self.kept.popleft()
            self.late.append(now - when)
            if data:
                self.other.transport.write(data)
            else:
                self.other.transport.close()
        if self.kept:
            self.loop.call_at(self.kept[0][0], self.tell)


class Near(Half):
    """The end that was called: it hears nothing before the other end is there."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self.port = port

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()
        self.leading = self.loop.create_task(self.lead())

    async def lead(self) -> None:
        self.other = far = Half(self.delay)
        far.other = self
        await self.loop.create_connection(lambda: far, "127.0.0.1", self.port)
        self.transport.resume_reading()


class Delay:
    """The proxy's process, and what it is asked."""

    def __init__(self, port: int, seconds: float) -> None:
        command = [sys.executable, "-m", "tests.bench.delay", str(port), str(seconds * 1000)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def ask(self) -> dict[str, float]:
        """Since the last question: `busy`, its share of one core, and how late it was (ms): `late`, `late_p99`."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def __enter__(self) -> Delay:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(5)


async def serve(port: int, delay: float) -> None:
    """Listen, say where, answer questions on stdin until it ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(delay, port), "127.0.0.1", 0, backlog=512)
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    print(server.sockets[0].getsockname()[1], flush=True)
    since, used = time.monotonic(), time.process_time()
    while await questions.readline():
        late = sorted(Half.late) or [0.0]
        Half.late.clear()
        now, spent = time.monotonic(), time.process_time()
        answer = {
            "chunks": len(late),
            "busy": (spent - used) / (now - since),
            "late": statistics.mean(late) * 1000,
            "late_p99": late[len(late) * 99 // 100] * 1000,
        }
        since, used = now, spent
        print(json.dumps(answer), flush=True)
    server.close()


def main() -> None:
    # It stands for a network, which waits for no core: where that is allowed, it runs as soon as it has to.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    # select() takes its timeout in microseconds; epoll, and uvloop with it, would round each delay up by a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.run_until_complete(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
