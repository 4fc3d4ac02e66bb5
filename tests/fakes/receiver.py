"""A subscriber's endpoint, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with Receiver() as receiver:                            # everything is kept and answered with 204
        ... receiver.url("/hook") ...
        [post] = await receiver.wait(1)                           # until 1 has come
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

`receiver.posts` has all requests, `receiver.taken` those that got the 204; `receiver.connections` counts those that
came, `receiver.most_busy` the most requests that waited for their answers at once; `receiver.drop()` closes all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.webserver import Request, Webserver, Writer
from tests.stack import PATIENCE, until


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


class Receiver(Webserver):
    """The server; see above."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(tls=tls)
        self.posts: list[Post] = []
        self.taken: list[Post] = []
        self.busy = self.most_busy = 0

    def url(self, path: str = "/") -> str:
        return f"{self.base}{path}"

    async def wait(self, number: int, path: str = "", seconds: float = PATIENCE) -> list[Post]:
        """The requests to this path, once there are so many."""
        try:
            await until(lambda: len(self.to(path)) >= number, seconds)
        except AssertionError:
            raise AssertionError(f"{len(self.to(path))} posts to {path or 'any path'}, not {number}") from None
        return self.to(path)

    def to(self, path: str = "") -> list[Post]:
        return [post for post in self.posts if path in ("", post.path)]

    async def answer(self, request: Request, writer: Writer) -> None:
        assert request.method == "POST"
        post = Post(request.path, request.headers, request.body, request.connection, time.monotonic())
        self.posts.append(post)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            if (mood := self.mood(request.path)) is None:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                self.taken.append(post)
            else:
                await self.act(mood, writer)
        finally:
            self.busy -= 1
