"""A subscriber's endpoint, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with Receiver() as receiver:                            # everything is kept and answered with 204
        ... receiver.url("/hook") ...
        [post] = await receiver.wait(1)                           # until 1 has come, at most 10 s
        post.path, post.headers (lower case), post.body, post.json, post.at, post.connection

    Receiver(tls=True)                                            # self-signed certificate for localhost and 127.0.0.1

Moods answer in place of the 204, the one added last first; `when("/hook")` speaks of this path, `times=1` once:

    receiver.when("/a").say(500, b"oops", Location="...")         # any status, body and headers
    receiver.when().hang()                                        # no answer; the connection stays open
    receiver.when().pause(0.5).say(200)                           # an answer after so many seconds
    receiver.when().wait(event).say(200)                          # ... after the test sets the asyncio.Event
    receiver.when().drop()                                        # closes without an answer
    receiver.when().say_raw(b"HTTP/1.1 200 OK\\r\\nContent-Le").drop()  # mid-answer
    receiver.when().endless(1 << 30)                              # so many bytes, of which `receiver.written` went out
    receiver.when().drip(0.01)                                    # a byte of the body every so many seconds, for ever

`receiver.posts` has all requests, `receiver.connections` counts those that came, `receiver.most_busy` the most requests
that waited for their answers at once; `receiver.drop()` closes every connection.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.fakes.upstream import server_context
from tests.stack import until


@dataclass(frozen=True)
class Post:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int  # from 1
    at: float  # time.monotonic()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Mood:
    """What to do in place of the usual answer; built by the verbs below."""

    path: str
    times: int | None
    steps: list[tuple[str, Any]] = field(default_factory=list)

    def say(self, status: int, body: bytes = b"", **headers: str) -> Mood:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.say_raw("\r\n".join([*lines, "", ""]).encode() + body)

    def say_raw(self, raw: bytes) -> Mood:
        return self._then("write", raw)

    def hang(self) -> Mood:
        return self._then("hang")

    def pause(self, seconds: float) -> Mood:
        return self._then("pause", seconds)

    def wait(self, event: asyncio.Event) -> Mood:
        return self._then("wait", event)

    def drop(self) -> Mood:
        return self._then("drop")

    def endless(self, size: int) -> Mood:
        return self._then("endless", size)

    def drip(self, seconds: float) -> Mood:
        return self._then("drip", seconds)

    def _then(self, step: str, value: Any = None) -> Mood:
        self.steps.append((step, value))
        return self

    def applies(self, path: str) -> bool:
        return self.path in ("", path) and (self.times is None or self.times > 0)


class Receiver:
    """The server; see above."""

    def __init__(self, *, tls: bool = False) -> None:
        self.posts: list[Post] = []
        self.connections = self.busy = self.most_busy = self.written = 0
        self.host, self.port = "127.0.0.1", 0
        self._tls = tls
        self._moods: list[Mood] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the port it had, when it is started again."""
        context = server_context() if self._tls else None
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Nothing listens any more."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, path: str = "/") -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}{path}"

    def when(self, path: str = "", *, times: int | None = None) -> Mood:
        mood = Mood(path, times)
        self._moods.insert(0, mood)
        return mood

    def usual(self) -> None:
        """Forgets all moods."""
        self._moods.clear()

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def wait(self, number: int, path: str = "", seconds: float = 10) -> list[Post]:
        """The requests to this path, once there are so many."""
        try:
            await until(lambda: len(self.to(path)) >= number, seconds)
        except AssertionError:
            raise AssertionError(f"{len(self.to(path))} posts to {path or 'any path'}, not {number}") from None
        return self.to(path)

    def to(self, path: str = "") -> list[Post]:
        return [post for post in self.posts if path in ("", post.path)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # also the end of the test
                await self._requests(reader, writer, self.connections)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            assert method == "POST"
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.posts.append(Post(path, headers, body, number, time.monotonic()))
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            try:
                await self._answer(path, writer)
            finally:
                self.busy -= 1

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        mood = next((mood for mood in self._moods if mood.applies(path)), None)
        if mood is None:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if mood.times is not None:
            mood.times -= 1
        for step, value in mood.steps:
            await getattr(self, f"_{step}")(writer, value)

    async def _write(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        writer.write(raw)
        await writer.drain()

    async def _hang(self, writer: asyncio.StreamWriter, _: object) -> None:
        await asyncio.Event().wait()

    async def _pause(self, writer: asyncio.StreamWriter, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _wait(self, writer: asyncio.StreamWriter, event: asyncio.Event) -> None:
        await event.wait()

    async def _drop(self, writer: asyncio.StreamWriter, _: object) -> None:
        await writer.drain()
        writer.close()
        raise ConnectionAbortedError

    async def _endless(self, writer: asyncio.StreamWriter, size: int) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        part = b"x" * 65536
        while self.written < size:
            writer.write(part)
            self.written += len(part)
            await writer.drain()

    async def _drip(self, writer: asyncio.StreamWriter, seconds: float) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(seconds)
