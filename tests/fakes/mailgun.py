"""Mailgun's API, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with MailgunServer() as mailgun:                  # takes mail for mg.example.com with the key `key-good`
        ... mailgun.url, mailgun.settings ...               # base URL; an account's `mailgun` settings for it
        [taken] = await mailgun.wait(1)                     # until 1 mail was taken
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

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Any

from tests.fakes.webserver import Mood, Request, Webserver, Writer
from tests.stack import PATIENCE, until

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


class MailgunServer(Webserver):
    """The server; see above."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(tls=tls)
        self.taken: list[Taken] = []
        self.requests: list[tuple[str, str]] = []
        self.keys, self.sending = {KEY}, set[str]()
        self.domains: dict[str, dict[str, Any]] = {DOMAIN: {"name": DOMAIN, "state": "active"}}
        self._unread: str | int | None = None

    @property
    def url(self) -> str:
        return self.base

    @property
    def settings(self) -> dict[str, Any]:
        return {"domain": DOMAIN, "apiKey": KEY, "baseUrl": self.url}

    def unread(self, how: str | int | None) -> None:
        self._unread = how

    def usual(self) -> None:
        super().usual()
        self._unread = None

    async def wait(self, number: int, seconds: float = PATIENCE) -> list[Taken]:
        """The mail that was taken, once there is so much."""
        try:
            await until(lambda: len(self.taken) >= number, seconds)
        except AssertionError:
            raise AssertionError(f"{len(self.taken)} mails were taken, not {number}") from None
        return self.taken

    async def headed(self, method: str, path: str, writer: Writer) -> None:
        self.requests.append((method, path))
        if isinstance(self._unread, int):
            await self.act(Mood("").say(self._unread, {"message": "too much"}, Connection="close").hang(), writer)
        elif self._unread is not None:
            await self.act(getattr(Mood(""), self._unread)(), writer)

    async def answer(self, request: Request, writer: Writer) -> None:
        form = parsed(request.headers.get("content-type", ""), request.body)
        mood = self.mood(form.get("to", ""))
        if mood is None:
            mood = Mood("").say(*self._judge(request, form))
        await self.act(mood, writer)

    def _judge(self, request: Request, form: Mapping[str, Any]) -> tuple[int, object]:
        """As Mailgun answers."""
        given = request.headers.get("authorization", "").removeprefix("Basic ")
        user, _, key = base64.b64decode(given).decode().partition(":")
        get, post = GET.fullmatch(request.path), POST.fullmatch(request.path)
        if user != "api" or key not in self.keys | (self.sending if post else set()):
            return (401, "Forbidden") if key in self.sending else (401, {"message": "Invalid private key"})
        if not (get if request.method == "GET" else post):
            return 200, "Mailgun Magnificent API"
        name = (get or post)[1]  # type: ignore[index]
        if name not in self.domains:
            return 404, {"message": f"Domain not found: {name}"}
        if get:
            return 200, {"domain": self.domains[name]}
        if missing := [field for field in ("to", "message") if field not in form]:
            return 400, {"message": f"{missing[0]} parameter is missing"}
        rest = {name: value for name, value in form.items() if name not in ("to", "message")}
        self.taken.append(Taken(form["to"], form["message"], rest, request.connection))
        named = BytesParser().parsebytes(form["message"], headersonly=True)["Message-ID"]
        return 200, {"id": named or f"<{len(self.taken)}.made@{name}>", "message": "Queued. Thank you."}


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
