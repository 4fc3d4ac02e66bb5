"""One point played: a mail, a death, a restart, and what everybody saw."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

import aiohttp
import aiosmtplib

from relay.store import db
from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.matrix.mailbox import Post
from tests.matrix.points import MAILBOX, Point
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


def broken(row: Row) -> list[str]:
    """What a death must not cost: mail, copies that nobody was told of, more than the one mail that was under way."""
    stored = row.after.startswith(("2 sent", "1 bounced, 1 sent"))
    checks = {
        "mail is lost": stored or (row.after == "nothing" and row.client == "no answer"),
        "copies came again, and nobody was told": row.copies <= len(TWO) + row.unknowns,
        "more was in doubt than one connection": row.unknowns <= 1,
    }
    return [fault for fault, kept in checks.items() if not kept]


async def play(point: Point, stack: Stack, tenant: Tenant, receiver: Receiver, dovecot: Dovecot | None = None) -> Row:
    """Raises AssertionError when the role does not die there, or not all is well after it was started again."""
    await tenant.change(tracking={"opens": True})
    if point.needs == "webhook":
        await tenant.change(webhooks=receiver.url(f"/{tenant.id}"))
    post = None
    if point.needs in MAILBOX:
        assert dovecot is not None
        post = await Post.of(tenant, dovecot, copy="replace" if point.needs == "copy" else "none")
    await stack.kill(point.role)
    if point.needs in ("open", "copy", "bounce"):
        await _prepare(point, stack, tenant, post)
    await stack.start(point.role, through=(THROUGH, f"{VARIABLE}={point.name}"))
    seen = "" if post else await (_fetch(tenant) if point.needs == "open" else _hand_over(tenant, point.by))
    await until(lambda: not stack.runs(point.role))
    assert stack.status(point.role) == -signal.SIGKILL, f"{point.role} ended, and not there"
    upstream, store = len(tenant.upstream.taken), await _store(tenant, post)
    await _end_claims(tenant)
    began = time.monotonic()
    await stack.start(point.role)
    await _well(point, tenant, receiver, post, acknowledged=seen.startswith(("250", "200")))
    seconds = time.monotonic() - began
    return Row(
        point=point.name,
        client=seen or "-",
        upstream=str(upstream),
        store=store,
        after=await _store(tenant, post),
        copies=tenant.received().total(),
        unknowns=(await tenant.attempts()).count("unknown"),
        webhooks=len([post for post in receiver.posts if post.path == f"/{tenant.id}"]),
        seconds=seconds,
    )


async def _prepare(point: Point, stack: Stack, tenant: Tenant, post: Post | None) -> None:
    """Mail was sent; the provider filed it, or a report about it has come."""
    if point.role == "api":
        await stack.start("api")
    answer = await tenant.submit(*TWO, html=HTML)
    await _sent(tenant, 2)
    if point.needs == "copy" and post:
        await post.filed(tenant)
    if point.needs == "bounce" and post:
        await post.bounced(TWO[0], answer["messageId"])
    if point.role == "api":
        await stack.kill("api")


async def _end_claims(tenant: Tenant) -> None:
    """What the dead process had claimed is free at once: else each row would tell of nothing but its claim's length."""
    for change in (
        "update sent_copies set claimed_until = null, due_at = now() where state = 'owed' and account_id = %s",
        "update postings set due_at = now() where state = 'pending' and account_id = %s",
        "update mailboxes set claimed_until = null, due_at = now() where account_id = %s",
    ):
        async with db.connection(tenant.pool) as conn:
            await conn.execute(change.encode(), (tenant.id,))


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


async def _well(point: Point, tenant: Tenant, receiver: Receiver, post: Post | None, *, acknowledged: bool) -> None:
    stored = sum((await tenant.states()).values())
    assert stored == 2 or not acknowledged, "what was acknowledged is not stored"
    if point.needs == "bounce":
        await tenant.becomes(sent=1, bounced=1)
        return
    await _sent(tenant, stored)
    if point.needs == "copy":
        await until(lambda: _settled(tenant))
        assert post is not None
        assert await post.copies() == (1, 0)
    if point.needs == "webhook":
        told = lambda: {post.json["data"]["recipient"] for post in receiver.posts if post.path == f"/{tenant.id}"}  # noqa: E731
        await until(lambda: told() == set(TWO))

        async def settled() -> bool:
            return not await tenant.rows("select 1 from postings where account_id = %s and state = 'pending'")

        await until(settled)

    async def released() -> bool:
        return not await tenant.rows("select 1 from leases where account_id = %s")

    await until(released)


async def _sent(tenant: Tenant, number: int) -> None:
    await tenant.becomes(**({"sent": number} if number else {}))


async def _settled(tenant: Tenant) -> bool:
    return await tenant.rows("select state::text from sent_copies where account_id = %s") == [("done",)]


async def _store(tenant: Tenant, post: Post | None) -> str:
    """... and what is in the Sent folder, where there is one to look at."""
    states = await tenant.states()
    ((opens,),) = await tenant.rows("select count(*) from fetches where account_id = %s")
    parts = [f"{count} {state}" for state, count in sorted(states.items())] + ([f"{opens} open"] if opens else [])
    if post:
        copies, pixels = await post.copies()
        parts += [f"{copies} in Sent, {pixels} with a pixel"] if copies else []
    return ", ".join(parts) or "nothing"
