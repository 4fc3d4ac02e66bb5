"""Endpoints on bad days: what hangs, fails, floods, leads astray or breaks off; and a role of ours that is killed."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from relay.core.errors import StoreAway
from relay.notify import EACH
from relay.settings import Settings
from relay.store import db
from tests.conftest import environment
from tests.fakes.receiver import Receiver
from tests.notifying import Told
from tests.stack import Machine, Stack, until
from tests.store.posting import events


@pytest.fixture
async def told(pool: db.Pool, settings: Settings) -> Told:
    told = Told(pool, settings)
    await told.account("a")
    return told


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def test_every_bad_answer_is_told_and_tried_again(told: Told, receiver: Receiver) -> None:
    receiver.when("/fails").say(500, b"\0\xff a traceback of theirs")
    receiver.when("/leads-astray").say(302, Location="http://127.0.0.1:1/inside")
    receiver.when("/breaks-off").say_raw(b"HTTP/1.1 2").drop()
    receiver.when("/is-no-http").say_raw(b"220 smtp.example ESMTP\r\n").drop()
    errors = await told_twice(told, receiver, "fails", "leads-astray", "breaks-off", "is-no-http", seconds=10.0)
    assert errors.pop(("is-no-http", None)).startswith("the answer is not HTTP")
    assert errors == {
        ("fails", 500): "it answered 500 Internal Server Error",
        ("leads-astray", 302): "it answered 302 Found; redirects are not followed (to http://127.0.0.1:1/inside)",
        ("breaks-off", None): "the connection was closed before an answer came",
    }


async def test_silence_is_told_and_tried_again(told: Told, receiver: Receiver) -> None:
    receiver.when("/hangs").hang()
    receiver.when("/stops").say_raw(b"HTTP/1.1 200 OK\r\n").hang()
    errors = await told_twice(told, receiver, "hangs", "stops", seconds=0.2)
    assert set(errors.values()) == {"no answer within 0.2 s"}


async def told_twice(told: Told, receiver: Receiver, *paths: str, seconds: float) -> dict[tuple[str, int | None], str]:
    """By path and status, the fault of each try to tell these of an event."""
    for path in paths:
        await told.endpoint(receiver.url(f"/{path}"))
    await told.event()
    async with told.running(webhook_timeout=seconds, webhook_retries=(0.02,)):
        await told.become(failed=len(paths))
    log = await told.rows("select url, status, error from posts")
    assert Counter(url for url, _, _ in log) == {receiver.url(f"/{path}"): 2 for path in paths}
    return {(url.rpartition("/")[2], status): error for url, status, error in log}


async def test_gigabytes_of_answers_cost_no_memory(told: Told, receiver: Receiver) -> None:
    receiver.when().endless(1 << 30)
    await told.endpoint(receiver.url())
    async with db.connection(told.pool) as conn:
        await events(conn, 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with told.running(webhook_timeout=5.0):
        await told.become(delivered=30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB; this process is both sides
    assert (await told.rows("select max(length(response)) from posts"))[0][0] <= 2000


async def test_an_address_inside_is_refused_at_dial_and_not_asked(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    await told.event()
    async with told.running(allow_networks=(), webhook_retries=()):
        await told.become(failed=1)
    ((error,),) = await told.rows("select error from posts")
    assert error == ("127.0.0.1 refused: loopback address. The operator can allow it with POSTFERRY_ALLOW_NETWORKS")
    assert not receiver.connections


async def test_what_fails_for_too_long_is_disabled_and_another_endpoint_told(told: Told, receiver: Receiver) -> None:
    receiver.when("/ill").say(500)
    ill = await told.endpoint(receiver.url("/ill"), "a", "messageSent")
    await told.endpoint(receiver.url("/witness"), None, "webhookDisabled")
    await told.event()
    async with told.running(webhook_failing=0.3, webhook_retries=(0.1,) * 50):
        (post,) = await receiver.wait(1, "/witness")
        seen = len(receiver.to("/ill"))
        await told.endpoint(receiver.url("/after"), "a", "messageSent")
        await told.event()
        await receiver.wait(1, "/after")
    assert post.json["account"] == "a"
    assert post.json["data"] == {
        "endpoint": ill,
        "url": receiver.url("/ill"),
        "reason": "nothing but failures for 0.3 s, the last of them: it answered 500 Internal Server Error",
    }
    assert seen >= 2
    assert len(receiver.to("/ill")) == seen
    assert await told.rows("select count(*) from events where type = 'webhookDisabled'") == [(1,)]


async def test_what_was_down_for_a_while_gets_everything_afterwards(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    await receiver.stop()
    async with db.connection(told.pool) as conn:
        await events(conn, 20)
    async with told.running(webhook_retries=(0.1,) * 100):
        await until(lambda: tried(told))
        await receiver.start()
        await told.become(delivered=20)
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 20
    assert await told.rows("select failures, failing_since, reason from endpoints") == [(0, None, "")]


async def tried(told: Told) -> bool:
    return (await told.rows("select count(*) > 20 from posts"))[0][0] is True


async def test_postgresql_is_gone_while_something_is_posted(postgres: Machine, apart: str, settings: Settings) -> None:
    """What was posted meanwhile is known as posted afterwards: once, with one try."""
    pool = await db.open_pool(replace(settings, database_url=apart), most=4)
    told = Told(pool, settings)
    async with Receiver() as receiver:
        reply = asyncio.Event()
        receiver.when("/pg").wait(reply).say(200)
        await told.account("a")
        number = await told.endpoint(receiver.url("/pg"))
        async with told.running(webhook_timeout=10.0):
            await told.event()
            await receiver.wait(1)
            await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
            reply.set()
            await asyncio.to_thread(postgres.start)
            await until(lambda: delivered(told, number))
        assert len(receiver.posts) == 1
    await pool.close()


async def delivered(told: Told, endpoint: int) -> bool:
    try:
        rows = await told.rows("select state::text, attempts from postings where endpoint_id = %s", endpoint)
    except StoreAway:
        return False
    return rows == [("delivered", 1)]


@pytest.fixture
async def role(database_url: str, redis_url: str, free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Stack]:
    """Processes of the notify role, in haste."""
    given = environment(database_url, redis_url, free_port)
    hasty = {"POSTFERRY_WEBHOOK_TIMEOUT": "0.5", "POSTFERRY_WEBHOOK_RETRIES": "0.1 0.1 0.1"}
    stack = Stack(given | hasty, tmp_path)
    yield stack
    stack.close()
    stack.tell()


async def test_a_killed_process_loses_nothing(role: Stack, receiver: Receiver) -> None:
    """What it had in hand comes again when its claim is over; what it had told is not told again."""
    pool = await db.open_pool(role.settings, most=4)
    told = Told(pool, role.settings)
    await told.account("a")
    await told.endpoint(receiver.url())
    receiver.when().pause(0.01).say(200)
    async with db.connection(pool) as conn:
        await events(conn, 300)
    await role.start("notify")
    await receiver.wait(50)
    await role.kill("notify")
    receiver.usual()
    known = (await told.states()).get("delivered", 0)
    in_hand = len(receiver.posts) - known
    assert (await told.states())["pending"] > 0
    await role.start("notify", "notify-2")
    await told.become(delivered=300)
    ids = Counter(post.headers["webhook-id"] for post in receiver.posts)
    assert len(ids) == 300
    assert ids.total() - 300 <= in_hand <= EACH
    await pool.close()


async def test_the_role_ends_in_good_order_in_the_middle_of_it(role: Stack, receiver: Receiver) -> None:
    pool = await db.open_pool(role.settings, most=4)
    told = Told(pool, role.settings)
    await told.account("a")
    await told.endpoint(receiver.url())
    async with db.connection(pool) as conn:
        await events(conn, 500)
    await role.start("notify")
    await receiver.wait(50)
    await role.stop("notify")
    states = await told.states()
    assert await told.rows("select count(*) from postings where state = 'pending' and due_at > now()") == [(0,)]
    assert len(receiver.posts) == states["delivered"] < 500
    await pool.close()
