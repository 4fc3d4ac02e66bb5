"""What the fakes that speak HTTP have in common: connections, requests, and moods that answer in place of the usual."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.fakes.moods import Steps
from tests.fakes.places import HOST, port_of
from tests.fakes.upstream import server_context

ENDLESS = 1 << 30
Writer = asyncio.StreamWriter


@dataclass(frozen=True)
class Request:
    """As it came; the names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int  # from 1


@dataclass
class Mood(Steps):
    """What to do in place of the usual answer; built by the verbs below."""

    about: str
    times: int | None = None

    def say(self, status: int, body: object = b"", **headers: str) -> Mood:
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.say_raw("\r\n".join([*lines, "", ""]).encode() + raw)

    def say_raw(self, raw: bytes) -> Mood:
        return self._then("write", raw)

    def endless(self, size: int = ENDLESS) -> Mood:
        return self._then("endless", size)


class Webserver:
    """Who inherits it says in `answer` what is done about a request."""

    def __init__(self, *, tls: bool = False) -> None:
        self.connections = self.written = 0
        self.host, self.port = HOST, port_of(self)
        self._tls = tls
        self._moods: list[Mood] = []
        self._server: asyncio.Server | None = None
        self._writers: set[Writer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
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

    async def stop(self) -> None:
        """Nothing listens any more."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def base(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def when(self, about: str = "", *, times: int | None = None) -> Mood:
        mood = Mood(about, times)
        self._moods.insert(0, mood)
        return mood

    def usual(self) -> None:
        """Forgets all moods."""
        self._moods.clear()

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def answer(self, request: Request, writer: Writer) -> None:
        raise NotImplementedError

    async def headed(self, method: str, path: str, writer: Writer) -> None:
        """Before the body is read."""

    def mood(self, about: str) -> Mood | None:
        """The one that is about this, once less."""
        mood = next((one for one in self._moods if one.about in ("", about) and one.times != 0), None)
        if mood is not None and mood.times is not None:
            mood.times -= 1
        return mood

    async def act(self, mood: Mood, writer: Writer) -> None:
        for step, value in mood.steps:
            await getattr(self, f"_{step}")(writer, value)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        number = self.connections
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # also the end of the test
                while True:
                    await self.answer(await self._request(reader, writer, number), writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: Writer, number: int) -> Request:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        await self.headed(method, path, writer)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, headers, body, number)

    async def _write(self, writer: Writer, raw: bytes) -> None:
        writer.write(raw)
        await writer.drain()

    async def _hang(self, writer: Writer, _: object) -> None:
        await asyncio.Event().wait()

    async def _pause(self, writer: Writer, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _wait(self, writer: Writer, event: asyncio.Event) -> None:
        await event.wait()

    async def _drop(self, writer: Writer, _: object) -> None:
        writer.close()
        await writer.wait_closed()  # what was said before is on its way, however slowly it is read
        raise ConnectionAbortedError

    async def _endless(self, writer: Writer, size: int) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        part = b"x" * 65536
        while self.written < size:
            writer.write(part)
            self.written += len(part)
            await writer.drain()

    async def _drip(self, writer: Writer, seconds: float) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(seconds)
