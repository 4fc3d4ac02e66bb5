"""Suppressed recipients through real roles: refused at RCPT TO, after DATA, over HTTP; others get their mail."""

from __future__ import annotations

import aiosmtplib

from relay.store import db, suppressions, tokens
from relay.store.suppressions import Suppression
from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant

ADA, BOB, EVE = "Ada@there.example", "bob@there.example", "eve@there.example"
ELSE = "any@else.example"


async def suppress(tenant: Tenant, *addresses: str) -> None:
    async with db.connection(tenant.pool) as conn:
        items = [Suppression(address, "bounce", "550 5.1.1 No such user") for address in addresses]
        await suppressions.add(conn, tenant.id, items)


async def login(tenant: Tenant) -> tuple[str, str]:
    async with db.connection(tenant.pool) as conn:
        return tenant.id, await tokens.create(conn, ["smtp"], tenant.id)


async def asked(tenant: Tenant, to: str, credentials: tuple[str, str]) -> tuple[int, str]:
    """The answer to one RCPT TO; nothing is sent."""
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=tenant.settings.smtp_port, timeout=30) as client:
        await client.login(*credentials)
        await client.mail(ELSE)
        try:
            answer = await client.rcpt(to)
        except aiosmtplib.SMTPRecipientRefused as refused:
            return refused.code, refused.message
        return answer.code, answer.message


async def refused(tenant: Tenant, to: str, credentials: tuple[str, str] | None = None) -> str:
    """Waits until a recipient is refused at once: what changes is known within seconds."""
    said: list[str] = []
    credentials = credentials or await login(tenant)

    async def so() -> bool:
        code, message = await asked(tenant, to, credentials)
        said.append(message)
        return code == 550

    await until(so, 20)
    return said[-1]


async def test_who_logged_in_is_told_at_each_recipient(tenant: Tenant) -> None:
    await suppress(tenant, ADA)
    credentials = await login(tenant)
    said = await refused(tenant, ADA, credentials)
    assert said.startswith(f"5.7.1 <{ADA}> is suppressed since 20")
    assert "mail to it bounced (550 5.1.1 No such user); DELETE /v1/suppressions/" in said
    await tenant.mail(ADA, BOB, sender=ELSE, login=credentials)
    await tenant.all_sent_once([BOB])


async def test_who_sends_as_another_account_is_not_held_against_its_list(
    tenant: Tenant, stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    """Given a trusted client that writes for one account from the address of another."""
    other = await make_tenant(stack, upstream)
    await suppress(tenant, ADA)
    await refused(tenant, ADA)
    await other.mail(ADA, sender=tenant.sender, X_Account=other.id)
    await other.all_sent_once([ADA])


async def test_what_was_lifted_is_sent_to(tenant: Tenant) -> None:
    await suppress(tenant, ADA)
    await refused(tenant, ADA)
    assert (await tenant.ask("DELETE", f"/v1/suppressions/{tenant.id}/{ADA}"))[0] == 200
    await tenant.mail(ADA)
    await tenant.all_sent_once([ADA])


async def test_another_account_may_write_to_the_same_address(
    tenant: Tenant, stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    other = await make_tenant(stack, upstream)
    await suppress(tenant, ADA)
    await refused(tenant, ADA)
    await other.mail(ADA)
    await other.all_sent_once([ADA])


async def all_refused(tenant: Tenant) -> aiosmtplib.SMTPDataError:
    found: list[aiosmtplib.SMTPDataError] = []

    async def so() -> bool:
        try:
            await tenant.mail(ADA, EVE, sender=ELSE, X_Account=tenant.id)
        except aiosmtplib.SMTPDataError as error:
            found.append(error)
        return bool(found)

    await until(so, 20)
    return found[0]


async def test_who_did_not_log_in_is_told_after_the_message(tenant: Tenant) -> None:
    """One reply, of a line for each recipient and one with what to do."""
    await suppress(tenant, ADA, EVE)
    error = await all_refused(tenant)
    first, second, last = error.message.splitlines()
    assert error.code == 550
    assert first.startswith(f"5.7.1 <{ADA}> is suppressed since 20")
    assert second.startswith(f"5.7.1 <{EVE}> is suppressed since 20")
    assert last.startswith("5.7.1 Nobody is left to send to; DELETE /v1/suppressions/")


async def test_where_others_are_left_the_message_goes_to_them(tenant: Tenant) -> None:
    await suppress(tenant, ADA)
    await refused(tenant, ADA)
    reply = await tenant.mail(ADA, BOB, sender=ELSE, X_Account=tenant.id)
    assert f"; not to <{ADA}>, suppressed since 20" in reply
    await tenant.becomes(sent=1, failed=1)
    assert tenant.received() == {BOB: 1}
    ((data,),) = await tenant.rows("select data from events where account_id = %s and type = 'messageFailed'")
    assert (data["recipient"], data["errorCode"]) == (ADA, "suppressed")
    assert await tenant.attempts() == ["sent"]


async def test_over_http_and_replayed_when_lifted(tenant: Tenant) -> None:
    await suppress(tenant, ADA)
    answer = await tenant.submit(ADA, BOB)
    assert [(one["recipient"], one["reason"]) for one in answer["suppressed"]] == [(ADA, "bounce")]
    await tenant.becomes(sent=1, failed=1)
    status, refusal = await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", tenant.body(ADA))
    assert (status, refusal["code"]) == (422, "RecipientsSuppressed")
    replay = ("POST", "/v1/deadletters/replay", {"account": tenant.id})
    assert (await tenant.ask(*replay))[1]["suppressed"] == 1
    await tenant.ask("DELETE", f"/v1/suppressions/{tenant.id}/{ADA}")
    assert (await tenant.ask(*replay))[1]["replayed"] == 1
    await tenant.all_sent_once([ADA, BOB])


async def test_what_was_accepted_before_is_sent(tenant: Tenant) -> None:
    await tenant.change(limits={"perHour": 1})
    await tenant.submit(BOB)
    await tenant.all_sent_once([BOB])
    await tenant.submit(ADA)
    await suppress(tenant, ADA)
    await tenant.change(limits={"perHour": None})
    await tenant.all_sent_once([ADA, BOB])
