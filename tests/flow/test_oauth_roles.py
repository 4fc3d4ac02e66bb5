"""Mail of accounts that log in with OAuth2, through the real roles: sent, kept while the issuer is away, mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from relay.core.vault import Vault
from relay.store import accounts, db
from tests.conftest import MakeTenant
from tests.fakes.issuer import SECRET, Issuer
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant

ANN = "ann@here.example"


@dataclass
class Life:
    """A tenant whose upstream takes access tokens alone, and its issuer."""

    stack: Stack
    tenant: Tenant
    issuer: Issuer
    upstream: Upstream
    granted: list[str] = field(default_factory=list)  # refresh tokens

    async def account(self) -> dict[str, Any]:
        status, answer = await self.tenant.ask("GET", f"/v1/account/{self.tenant.id}")
        assert status == 200
        return dict(answer)

    async def becomes(self, state: str) -> dict[str, Any]:
        async def so() -> bool:
            return (await self.account())["state"] == state

        await until(so)
        return await self.account()

    async def refresh(self) -> str:
        """The refresh token as it is stored."""
        vault = Vault(self.tenant.settings.secret_keys)
        async with db.connection(self.tenant.pool) as conn:
            row = await accounts.find(conn, self.tenant.id)
        assert row is not None
        return str(row.fields(vault)["oauth2.refreshToken"])

    async def events(self) -> list[str]:
        rows = await self.tenant.rows("select type from events where account_id = %s order by id")
        return [row[0] for row in rows]


@pytest.fixture
async def life(stack: Stack, make_tenant: MakeTenant) -> AsyncIterator[Life]:
    async with Issuer(rotates=True) as issuer, Upstream(auth=("XOAUTH2",), users={}) as upstream:
        issuer.on_token = lambda token: upstream.users.update({ANN: token})
        first = issuer.grant(ANN)
        tenant = await make_tenant(stack, upstream, oauth2=issuer.settings(ANN, first))
        yield Life(stack, tenant, issuer, upstream, [first])


async def test_mail_is_sent_with_a_token_and_no_secret_is_logged(life: Life) -> None:
    await life.tenant.mail("bob@there.example")
    await life.tenant.becomes(sent=1)
    await life.tenant.mail("eve@there.example")
    await life.tenant.becomes(sent=2)
    assert {taken.user for taken in life.upstream.taken} == {ANN}
    assert len(life.issuer.asked) == 1
    rows = await life.tenant.rows(
        "select (select json_agg(a)::text from accounts a), (select json_agg(g)::text from grants g),"
        " (select json_agg(e)::text from events e), (select json_agg(t)::text from attempts t) where %s = %s",
        *("", ""),
    )
    told = f"{life.stack.said()} {rows} {await life.account()}"
    for secret in (SECRET, *life.granted, *life.issuer.access, await life.refresh()):
        assert secret not in told


async def test_while_the_issuer_is_away_mail_waits_and_spends_no_try(life: Life) -> None:
    await life.issuer.stop()
    await life.tenant.mail("bob@there.example")

    async def rests() -> bool:
        return "connection refused" in (await life.account())["reason"]

    await until(rests)
    assert await life.tenant.attempts() == []
    assert (await life.account())["state"] == "active"
    await life.issuer.start()
    await life.tenant.becomes(sent=1)
    assert await life.tenant.attempts() == ["sent"]
    assert await life.events() == ["connectError", "messageSent"]


async def test_a_withdrawn_grant_pauses_and_the_link_heals(life: Life) -> None:
    life.issuer.revoke()
    await life.tenant.mail("bob@there.example")
    stopped = await life.becomes("refused")
    tried = (await life.account())["retryAt"]

    async def probed() -> bool:
        return (await life.account())["retryAt"] > tried

    await until(probed)
    assert len(life.issuer.asked) == 1  # nobody asks again with what was refused
    assert await life.tenant.attempts() == []
    link = stopped["reason"].rpartition(" ")[2]
    async with life.tenant.http.get(link, headers={"Authorization": ""}, allow_redirects=False) as response:
        assert response.status == 302
        location = response.headers["Location"]
    back = await life.issuer.agree(location, ANN)
    async with life.tenant.http.get("/v1/oauth2/callback", params=back, headers={"Authorization": ""}) as response:
        assert response.status == 200, await response.text()
    await life.tenant.becomes(sent=1)
    assert (await life.account())["state"] == "active"
    assert await life.events() == ["authenticationError", "accountPaused", "accountResumed", "messageSent"]
    assert link.rpartition("/")[2] not in life.stack.said()


async def waits_for_a_lock(tenant: Tenant, query: str) -> bool:
    """Some other connection is in the midst of this query."""
    found = await tenant.rows(
        "select from pg_stat_activity where wait_event_type = 'Lock' and query like %s", f"%{query}%"
    )
    return len(found) > 0


async def test_a_worker_killed_between_rotation_and_commit_leaves_what_was(life: Life) -> None:
    """Given an issuer that lets an old refresh token be for a while, when the worker dies with the new one in its hand,
    then the old one is used again, and no mail is lost or sent twice."""
    go = asyncio.Event()
    life.issuer.when().wait(go)
    await life.tenant.mail("bob@there.example")
    await life.issuer.heard(1)
    async with db.connection(life.tenant.pool) as conn, conn.transaction():
        await conn.execute("select from grants where account_id = %s for update", (life.tenant.id,))
        go.set()
        await until(lambda: waits_for_a_lock(life.tenant, "update grants"))
        assert len(life.issuer.access) == 1
        await life.stack.kill("worker")
    assert await life.refresh() == life.granted[0]
    assert await life.tenant.rows("select from grants where account_id = %s and token is not null") == []
    life.issuer.lets(life.granted[0], ANN)
    await life.tenant.rows("update grants set claimed_until = now() where account_id = %s returning 1")
    await life.stack.start("worker")
    await life.tenant.becomes(sent=1)
    assert life.tenant.received() == {"bob@there.example": 1}
    assert await life.refresh() != life.granted[0]


async def test_a_worker_killed_after_the_commit_leaves_both_tokens(life: Life) -> None:
    life.upstream.when("EHLO", times=1).hang()
    await life.tenant.mail("bob@there.example")
    await life.upstream.heard("EHLO")
    await life.stack.kill("worker")
    assert await life.refresh() != life.granted[0]
    await life.stack.start("worker")
    await life.tenant.becomes(sent=1)
    assert len(life.issuer.asked) == 1
