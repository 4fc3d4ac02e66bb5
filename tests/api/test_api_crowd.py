"""Who holds connections open and asks nothing, or drips: so many and so long, and the others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, cast

import pytest
from aiohttp import web

from api import __main__ as role
from api import crowd
from api.problems import Error
from relay.settings import Settings
from tests.fuzz.virtual import Line, Loop
from tests.stack import until

HALF = b"GET /t/abc.gif HTTP/1.1\r\nHost: x\r\n"
WHOLE = HALF + b"\r\n"


@dataclass
class Caller:
    """A client of bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def status(self) -> int:
        line = await asyncio.wait_for(self.reader.readline(), 10)
        return int(line.split()[1])

    async def closed(self) -> None:
        """The server has ended it."""
        await asyncio.wait_for(self.reader.read(), 10)
        assert self.reader.at_eof()

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


Call = Callable[[bytes], Awaitable[Caller]]


@asynccontextmanager
async def serving(settings: Settings, **given: Any) -> AsyncIterator[Call]:
    """The role's own server; a function that connects and says something."""
    settings = replace(settings, **given)
    stopping = asyncio.Event()
    serve = asyncio.create_task(role.serve(settings, stopping))
    callers: list[Caller] = []

    async def call(said: bytes = HALF) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", settings.api_port))
        callers.append(caller)
        caller.writer.write(said)
        return caller

    async def listens() -> bool:
        try:
            caller = await call(b"")
        except OSError:
            assert not serve.done()
            return False
        await caller.leave()
        return True

    try:
        await until(listens)
        yield call
    finally:
        for caller in callers:
            caller.writer.close()
        stopping.set()
        await serve


async def answered(call: Call, status: int) -> bool:
    """Whoever comes now is answered so."""
    caller = await call(WHOLE)
    found = await caller.status()
    await caller.leave()
    return found == status


@pytest.mark.parametrize("most", [1, 12])
async def test_connections_past_the_bound_are_told_so_and_a_free_place_is_given_again(
    settings: Settings, most: int
) -> None:
    async with serving(settings, api_connections=most) as call:
        await until(lambda: answered(call, 200))
        held = [await call(HALF) for _ in range(most)]
        await until(lambda: answered(call, 503))
        await held[0].leave()
        await until(lambda: answered(call, 200))


async def test_the_answer_says_when_to_come_again(settings: Settings) -> None:
    async with serving(settings, api_connections=1) as call:
        await until(lambda: answered(call, 200))
        await call(HALF)
        await until(lambda: answered(call, 503))
        caller = await call(b"")
        text = (await asyncio.wait_for(caller.reader.read(), 10)).decode()
    head, _, body = text.partition("\r\n\r\n")
    assert "Retry-After: 1" in head
    assert f"Content-Length: {len(body)}" in head
    error = json.loads(body)
    Error.model_validate(error)
    assert error["code"] == "TooManyConnections"
    assert f"X-Request-Id: {error['requestId']}" in head


async def test_one_address_has_its_share(settings: Settings) -> None:
    """Given nobody is trusted, when one address holds its share, then it gets no more; a load balancer may."""
    share = crowd.SMALLEST_SHARE
    for networks, status in (((), 503), ((ip_network("127.0.0.0/8"),), 200)):
        async with serving(settings, api_connections=50, trusted_networks=(), proxy_networks=networks) as call:
            await until(lambda: answered(call, 200))
            for _ in range(share):
                await call(HALF)
            await until(lambda status=status: answered(call, status))


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(b"no HTTP at all\r\n\r\n", 400, "InvalidHttp"), (b"GET / HTTP/1.1\r\na b: c\r\n\r\n", 400, "InvalidHttp")],
)
async def test_what_cannot_be_read_is_answered_in_the_shape_of_all_errors(
    settings: Settings, said: bytes, status: int, code: str
) -> None:
    async with serving(settings) as call:
        caller = await call(said)
        text = (await asyncio.wait_for(caller.reader.read(), 10)).decode()
    head, _, body = text.partition("\r\n\r\n")
    error = json.loads(body)
    Error.model_validate(error)
    assert (error["statusCode"], error["code"]) == (status, code)
    assert f"X-Request-Id: {error['requestId']}" in head


@pytest.mark.parametrize("said", [b"", b"GET", HALF])
async def test_who_never_asks_is_sent_away(settings: Settings, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(role, "IDLE", 0.2)
    async with serving(settings) as call:
        await (await call(said)).closed()


async def test_a_header_that_drips_gets_no_more_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "IDLE", 0.2)
    async with serving(settings) as call:
        caller = await call(HALF)
        gone = asyncio.create_task(caller.closed())
        while not gone.done():
            caller.writer.write(b"X-A: b\r\n")
            await asyncio.wait([gone], timeout=0.05)
        await gone


async def test_a_request_that_never_begins_is_bounded_as_a_whole(settings: Settings) -> None:
    """Though each of its headers may be long."""
    async with serving(settings) as call:
        caller = await call(HALF)
        for number in range(10):
            caller.writer.write(b"X-%d: " % number + b"x" * 100_000 + b"\r\n")
        text = (await asyncio.wait_for(caller.reader.read(), 10)).decode()
        assert text.startswith("HTTP/1.1 431 ")
        assert '"code": "HeadersTooLarge"' in text
        assert await answered(call, 200)


async def test_a_long_body_is_no_long_head(settings: Settings) -> None:
    async with serving(settings) as call:
        size = 2 * crowd.MOST_HEAD
        caller = await call(b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        caller.writer.write(b"x" * size)
        assert await caller.status() != 431


async def test_a_body_that_comes_before_the_server_begins_with_it_is_no_long_head() -> None:
    """A fast client: its head and much of its body are here in one turn of the loop, as uvloop reads them."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read())

    handler, line = web.Server(answer)(), Line(cast(Loop, asyncio.get_running_loop()), "192.0.2.1")
    guarded = crowd._Guarded(handler)
    line.set_protocol(guarded)
    guarded.connection_made(line)
    await until(lambda: handler._waiter is not None)
    guarded.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * crowd.MOST_HEAD))
    guarded.data_received(b"x" * crowd.MOST_HEAD)
    guarded.data_received(b"x" * crowd.MOST_HEAD)
    await until(lambda: b"\r\n\r\n" in line.written)
    assert line.written.startswith(b"HTTP/1.1 200 ")
    guarded.connection_lost(None)


async def test_who_reads_no_answers_is_sent_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more answers than the kernel holds, on a connection that has been forgotten about."""
    monkeypatch.setattr(crowd, "UNREAD", 0.2)
    stuck, pause = set(), crowd._Guarded.pause_writing

    def pauses(guarded: crowd._Guarded) -> None:
        stuck.add(guarded)
        pause(guarded)

    monkeypatch.setattr(crowd._Guarded, "pause_writing", pauses)
    async with serving(settings, api_connections=12) as call:
        await until(lambda: answered(call, 200))
        for _ in range(12):
            caller = await call(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            cast(asyncio.ReadTransport, caller.writer.transport).pause_reading()
        await until(lambda: len(stuck) == 12)
        await until(lambda: answered(call, 200))
