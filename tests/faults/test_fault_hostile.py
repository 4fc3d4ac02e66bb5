"""A tenant's endpoints and token servers that mean harm, while the whole stack runs: the mail of others goes on."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import MakeTenant
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import people

ENDLESS = 1 << 40
GROWN = 64 << 10  # KiB that a role may take more than before
ASTRAY = ("/endless", "/drips", "/header-drips", "/bomb", "/headers", "/loop", "/inside", "/metadata", "/refuses")


@pytest.fixture
async def trap() -> AsyncIterator[Receiver]:
    """A server of our own network."""
    async with Receiver() as trap:
        yield trap
        assert trap.connections == 0


@pytest.fixture
async def hostile(trap: Receiver) -> AsyncIterator[Receiver]:
    async with Receiver() as hostile:
        hostile.when("/endless").endless(ENDLESS)
        hostile.when("/drips").drip(0.05)
        hostile.when("/header-drips").say_raw(b"HTTP/1.1 200 OK\r\nX: y").hang()
        hostile.when("/bomb").say(200, gzip.compress(bytes(256 << 20), 1), Content_Encoding="gzip")
        hostile.when("/headers").say_raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)
        hostile.when("/loop").say(307, Location=hostile.url("/loop"))
        hostile.when("/inside").say(307, Location=trap.url("/inside"))
        hostile.when("/metadata").say(302, Location="http://169.254.169.254/latest/meta-data/")
        hostile.when("/refuses").say(401)
        yield hostile


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def peak(stack: Stack, role: str) -> int:
    """KiB that it has taken at most so far."""
    (line,) = [
        line for line in Path(f"/proc/{stack.pid(role)}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1])


async def test_endpoints_that_mean_harm(
    stack: Stack, make_tenant: MakeTenant, upstream: Upstream, hostile: Receiver, receiver: Receiver
) -> None:
    async with Upstream() as another:
        evil, good = await make_tenant(stack, another), await make_tenant(stack, upstream)
        for path in ASTRAY:
            hook = {"url": hostile.url(path), "account": evil.id, "events": ["messageSent"]}
            assert (await evil.ask("POST", "/v1/webhooks", hook))[0] in (200, 201)
        hook = {"url": receiver.url("/good"), "account": good.id, "events": ["messageSent"]}
        assert (await good.ask("POST", "/v1/webhooks", hook))[0] in (200, 201)
        before = peak(stack, "notify")
        await evil.submit(*people(20))
        for path in ASTRAY:
            await hostile.wait(1, path)
        # When others' mail comes behind it
        await good.submit(*people(20))
        await good.all_sent_once(people(20))
        await receiver.wait(20, "/good")
        # Then the mail of the tenant itself goes too, and each post ends as a try on record
        await evil.all_sent_once(people(20))

        async def recorded() -> bool:
            rows = await evil.rows("select distinct url from posts where url like %s", hostile.url("%"))
            return {row[0] for row in rows} == {hostile.url(path) for path in ASTRAY}

        await until(recorded)
        assert peak(stack, "notify") - before < GROWN
        # And no redirect is followed, not even to where it came from
        loops = hostile.to("/loop")
        assert len(loops) == len({(post.headers["webhook-id"], post.headers["webhook-timestamp"]) for post in loops})


async def test_token_servers_that_mean_harm(
    stack: Stack, make_tenant: MakeTenant, upstream: Upstream, hostile: Receiver
) -> None:
    async with Upstream(auth=("XOAUTH2",), users={}) as another:
        before = peak(stack, "worker")
        evil = [await make_tenant(stack, another, oauth2=asking(hostile.url(path))) for path in ASTRAY]
        good = await make_tenant(stack, upstream)
        for tenant in evil:
            await tenant.submit("ann@there.example")
        for path in ASTRAY:
            await hostile.wait(1, path)
        await good.submit(*people(20))
        await good.all_sent_once(people(20))
        assert another.taken == []
        assert peak(stack, "worker") - before < GROWN
        for tenant in evil:  # nobody's mail is lost for it
            assert (await tenant.states())["failed"] == 0


def asking(url: str) -> dict[str, object]:
    """Settings of an account that has its tokens there."""
    return {
        "provider": "custom",
        "authorizeUrl": url,
        "tokenUrl": url,
        "clientId": "c",
        "clientSecret": "s",
        "refreshToken": "refresh-token",
        "auth": {"user": "ann@here.example"},
    }
