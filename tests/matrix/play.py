"""One point played: a mail, a death, a restart, and what everybody saw."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp
import aiosmtplib

from tests.fakes.receiver import Receiver
from tests.matrix.points import Point
from tests.matrix.role import VARIABLE
from tests.stack import Stack, until
from tests.tenant import HTML, Tenant

TWO = ("bob@there.example", "cat@there.example")
THROUGH = "tests.matrix.role"


@dataclass(frozen=True)
class Row:
    """What came of one point. `seconds`: from the role's start until all was as it should be."""

    point: str
    client: str
    upstream: str  # copies that it had taken when the role died
    store: str  # ... and what the store said then
    after: str  # what the store says in the end
    copies: int
    unknowns: int
    webhooks: int  # posts of the event, where one is awaited
    seconds: float


async def play(point: Point, stack: Stack, tenant: Tenant, receiver: Receiver) -> Row:
    """Raises AssertionError when the role does not die there, or not all is well after it was started again."""
    await tenant.change(tracking={"opens": True})
    if point.needs == "webhook":
        await tenant.change(webhooks=receiver.url(f"/{tenant.id}"))
    if point.needs == "open":
        await tenant.submit(*TWO, html=HTML)
        await _sent(tenant, 2)
    await stack.kill(point.role)
    await stack.start(point.role, through=(THROUGH, f"{VARIABLE}={point.name}"))
    seen = await (_fetch(tenant) if point.needs == "open" else _hand_over(tenant, point.by))
    await until(lambda: not stack.runs(point.role))
    upstream, store = len(tenant.upstream.taken), await _store(tenant)
    began = time.monotonic()
    await stack.start(point.role)
    await _well(point, tenant, receiver, acknowledged=seen.startswith(("250", "200")))
    seconds = time.monotonic() - began
    return Row(
        point=point.name,
        client=seen,
        upstream=str(upstream),
        store=store,
        after=await _store(tenant),
        copies=tenant.received().total(),
        unknowns=(await tenant.attempts()).count("unknown"),
        webhooks=len([post for post in receiver.posts if post.path == f"/{tenant.id}"]),
        seconds=seconds,
    )


async def _hand_over(tenant: Tenant, by: str) -> str:
    """What the client is told; it never tries again, so that the row tells of one try."""
    try:
        if by == "smtp":
            return "250" if await tenant.mail(*TWO, html=True) else ""
        status, _ = await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", tenant.body(*TWO, html=HTML))
        return str(status)
    except (aiosmtplib.SMTPException, aiohttp.ClientError, OSError):
        return "no answer"


async def _fetch(tenant: Tenant) -> str:
    """A recipient's look at the first mail."""
    content = tenant.upstream.taken[0].content.replace(b"=\r\n", b"").decode()
    path = "/t/" + content.partition("/t/")[2].partition(".gif")[0] + ".gif"
    try:
        async with tenant.http.get(path, headers={"User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}) as response:
            return f"{response.status} and the GIF"
    except (aiohttp.ClientError, OSError):
        return "no answer"


async def _well(point: Point, tenant: Tenant, receiver: Receiver, *, acknowledged: bool) -> None:
    stored = sum((await tenant.states()).values())
    assert stored == 2 or not acknowledged, "what was acknowledged is not stored"
    await _sent(tenant, stored)
    if point.needs == "webhook":
        told = lambda: {post.json["data"]["recipient"] for post in receiver.posts if post.path == f"/{tenant.id}"}  # noqa: E731
        await until(lambda: told() == set(TWO))

    async def released() -> bool:
        return not await tenant.rows("select 1 from leases where account_id = %s")

    await until(released)


async def _sent(tenant: Tenant, number: int) -> None:
    await tenant.becomes(**({"sent": number} if number else {}))


async def _store(tenant: Tenant) -> str:
    states = await tenant.states()
    opens = await tenant.rows("select count(*) from fetches where account_id = %s")
    parts = [f"{count} {state}" for state, count in sorted(states.items())]
    return ", ".join(parts + ([f"{opens[0][0]} open"] if opens[0][0] else [])) or "nothing"
