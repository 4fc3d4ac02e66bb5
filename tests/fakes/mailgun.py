"""Mailgun's API, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with MailgunServer() as mailgun:                  # takes mail for mg.example.com with the key `key-good`
        ... mailgun.url, mailgun.settings ...               # base URL; an account's `mailgun` settings for it
        [taken] = await mailgun.wait(1)                     # until 1 mail was taken, at most 10 s
        taken.to, taken.content, taken.fields, taken.connection

    MailgunServer(tls=True)                                 # self-signed certificate for localhost and 127.0.0.1
    mailgun.domains["mg.example.com"]["state"] = "disabled"
    mailgun.sending.add("key-sending")                      # a key that may send, and nothing else

Moods answer in place of the usual, the one added last first; `when("a@x.example")` for this recipient, `times=1` once:

    mailgun.when().say(429, {"message": "Too Many Requests"}, Retry_After="7")
    mailgun.when().hang()                                   # reads the request, never answers
    mailgun.when().drop()                                   # reads the request, then closes
    mailgun.when().say_raw(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\n{").drop()
    mailgun.when().endless()                                # an answer without an end

Those of before the body is read are for every recipient:

    mailgun.unread("hang" | "drop"), mailgun.unread(413)    # the body stays unread; 413 is answered at once

`mailgun.requests` are all (method, path); `mailgun.connections` counts; `mailgun.drop()` closes every connection.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from types import TracebackType
from typing import Any

from tests.fakes.upstream import server_context
from tests.stack import until

DOMAIN, KEY = "mg.example.com", "key-good"
POST = re.compile(r"/v3/([^/]+)/messages\.mime")
GET = re.compile(r"/v4/domains/([^/]+)")


@dataclass(frozen=True)
class Taken:
    """A mail that was taken."""

    to: str
    content: bytes  # the file `message`, as it came
    fields: Mapping[str, str]  # the others
    connection: int  # from 1


@dataclass
class Mood:
    to: str
    times: int | None
    steps: list[tuple[str, Any]] = field(default_factory=list)

    def say(self, status: int, body: object = "", **headers: str) -> Mood:
        raw = body if isinstance(body, bytes) else str(body).encode() if isinstance(body, str) else encoded(body)
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.say_raw("\r\n".join([*lines, "", ""]).encode() + raw)

    def say_raw(self, raw: bytes) -> Mood:
        return self._then("write", raw)

    def hang(self) -> Mood:
        return self._then("hang")

    def wait(self, event: asyncio.Event) -> Mood:
        return self._then("wait", event)

    def drop(self) -> Mood:
        return self._then("drop")

    def endless(self) -> Mood:
        return self._then("endless")

    def _then(self, step: str, value: Any = None) -> Mood:
        self.steps.append((step, value))
        return self


class MailgunServer:
    """The server; see above."""

    def __init__(self, *, tls: bool = False) -> None:
        self.taken: list[Taken] = []
        self.requests: list[tuple[str, str]] = []
        self.connections = 0
        self.host, self.port = "127.0.0.1", 0
        self.keys, self.sending = {KEY}, set[str]()
        self.domains: dict[str, dict[str, Any]] = {DOMAIN: {"name": DOMAIN, "state": "active"}}
        self._tls = tls
        self._moods: list[Mood] = []
        self._unread: str | int | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> MailgunServer:
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

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"domain": DOMAIN, "apiKey": KEY, "baseUrl": self.url}

    def when(self, to: str = "", *, times: int | None = None) -> Mood:
        mood = Mood(to, times)
        self._moods.insert(0, mood)
        return mood

    def unread(self, how: str | int | None) -> None:
        self._unread = how

    def usual(self) -> None:
        """Forgets all moods."""
        self._moods.clear()
        self._unread = None

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def wait(self, number: int, seconds: float = 10) -> list[Taken]:
        """The mail that was taken, once there is so much."""
        try:
            await until(lambda: len(self.taken) >= number, seconds)
        except AssertionError:
            raise AssertionError(f"{len(self.taken)} mails were taken, not {number}") from None
        return self.taken

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        number = self.connections
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # also the end of the test
                while True:
                    await self._request(reader, writer, number)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        self.requests.append((method, path))
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if self._unread is not None:
            await self._act_unread(writer)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        form = parsed(headers.get("content-type", ""), body)
        mood = next((one for one in self._moods if one.to in ("", form.get("to")) and one.times != 0), None)
        if mood is None:
            status, answer = self._judge(method, path, headers, form, number)
            mood = Mood("", None).say(status, answer)
        elif mood.times is not None:
            mood.times -= 1
        for step, value in mood.steps:
            await getattr(self, f"_{step}")(writer, value)

    async def _act_unread(self, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._unread, int):
            steps = Mood("", None).say(self._unread, {"message": "too much"}, Connection="close").steps
            await self._write(writer, steps[0][1])
            await asyncio.Event().wait()
        await getattr(self, f"_{self._unread}")(writer, None)

    def _judge(
        self, method: str, path: str, headers: Mapping[str, str], form: Mapping[str, Any], number: int
    ) -> tuple[int, object]:
        """As Mailgun answers."""
        user, _, key = base64.b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode().partition(":")
        get, post = GET.fullmatch(path), POST.fullmatch(path)
        if user != "api" or key not in self.keys | (self.sending if post else set()):
            return (401, "Forbidden") if key in self.sending else (401, {"message": "Invalid private key"})
        if not (get if method == "GET" else post):
            return 200, "Mailgun Magnificent API"
        name = (get or post)[1]  # type: ignore[index]
        if name not in self.domains:
            return 404, {"message": f"Domain not found: {name}"}
        if get:
            return 200, {"domain": self.domains[name]}
        if missing := [field for field in ("to", "message") if field not in form]:
            return 400, {"message": f"{missing[0]} parameter is missing"}
        rest = {name: value for name, value in form.items() if name not in ("to", "message")}
        self.taken.append(Taken(form["to"], form["message"], rest, number))
        named = BytesParser().parsebytes(form["message"], headersonly=True)["Message-ID"]
        return 200, {"id": named or f"<{len(self.taken)}.made@{name}>", "message": "Queued. Thank you."}

    async def _write(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        writer.write(raw)
        await writer.drain()

    async def _hang(self, writer: asyncio.StreamWriter, _: object) -> None:
        await asyncio.Event().wait()

    async def _wait(self, writer: asyncio.StreamWriter, event: asyncio.Event) -> None:
        await event.wait()

    async def _drop(self, writer: asyncio.StreamWriter, _: object) -> None:
        await writer.drain()
        writer.close()
        raise ConnectionAbortedError

    async def _endless(self, writer: asyncio.StreamWriter, _: object) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def parsed(kind: str, body: bytes) -> dict[str, Any]:
    """The fields of multipart/form-data; a file's bytes untouched."""
    if "boundary=" not in kind:
        return {}
    found: dict[str, Any] = {}
    mark = b"--" + kind.partition("boundary=")[2].encode()
    for part in (b"\r\n" + body).split(b"\r\n" + mark)[1:]:
        if part.startswith(b"--"):
            break
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        assert name
        found[name[1].decode()] = value if b"filename=" in head else value.decode()
    return found
