"""The readers of the pixel's bench: a process of their own, `python -m tests.bench.readers`, from a Rush to Waits.

They ask at times that were set before, however late the answers are, and count from those times: a server that stalls
is not spared. Both are one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from relay.core import pixel
from tests.stack import until

CONNECTIONS = 50
SHARES = (0.5, 0.99, 0.999)
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)


@dataclass
class Rush:
    """What the readers ask for: so many a second, over and over these tokens, with one of these agents."""

    port: int
    rate: int
    seconds: float
    tokens: Sequence[str]
    agents: Sequence[str] = AGENTS


@dataclass
class Waits:
    """How long the pictures took, in ms: at 50, 99 and 99.9 of 100, and the longest. `wrong`: answers without one."""

    asked: int
    wrong: int
    p50: float
    p99: float
    p999: float
    longest: float


def ask(rush: Rush) -> Waits:
    """Runs the readers."""
    command = [sys.executable, "-m", "tests.bench.readers"]
    done = subprocess.run(command, input=json.dumps(asdict(rush)), capture_output=True, text=True, check=True)
    return Waits(**json.loads(done.stdout))


class Reader(asyncio.Protocol):
    """One connection: asks when it is told to, notes how long each answer took since the time it was meant for."""

    def __init__(self, waits: list[float], wrong: list[bytes]) -> None:
        self._waits, self._wrong = waits, wrong
        self._due: list[float] = []
        self._got = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        self._due.append(due)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (head := self._got.find(b"\r\n\r\n")) >= 0:
            end = head + 4 + len(pixel.GIF)
            if len(self._got) < end:
                return
            self._waits.append(time.monotonic() - self._due.pop(0))
            if not (self._got.startswith(b"HTTP/1.1 200 ") and self._got[head + 4 : end] == pixel.GIF):
                self._wrong.append(self._got[:end])
            self._got = self._got[end:]


async def read_all(rush: Rush) -> Waits:
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    wrong: list[bytes] = []
    readers: list[Any] = [
        (await loop.create_connection(lambda: Reader(waits, wrong), "127.0.0.1", rush.port))[1]
        for _ in range(CONNECTIONS)
    ]
    source = random.Random(0)
    count = int(rush.rate * rush.seconds)
    began = time.monotonic() + 0.1
    due = began
    for number in range(count):
        due += source.expovariate(rush.rate)  # as people come: not in step
        await asyncio.sleep(max(due - time.monotonic(), 0))
        path, agent = source.choice(rush.tokens), source.choice(rush.agents)
        request = f"GET /t/{path}.gif HTTP/1.1\r\nHost: t.example\r\nUser-Agent: {agent}\r\n\r\n".encode()
        readers[number % CONNECTIONS].ask(request, due)
    with suppress(AssertionError):  # what has not come by now is wrong
        await until(lambda: len(waits) == count)
    found = sorted(1000 * wait for wait in waits)
    half, most, nearly = (found[int(len(found) * share)] for share in SHARES)
    return Waits(count, count - len(waits) + len(wrong), half, most, nearly, found[-1])


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(read_all(Rush(**json.load(sys.stdin)))))))
