"""A conversation by all roles, with a real mailbox: answered, filed, flagged; what comes back ends it, and is shown."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.core import copytext, original
from relay.core.place import Place, spell
from relay.core.tenant import Imap
from relay.net.imap import Brief, Mailbox
from relay.settings import Settings
from tests.conftest import MakeTenant
from tests.dovecot import Dovecot
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant
from tests.watching import bounce, opened

SENT, ARCHIVE = "Verschickt & raus", "Ablage"
ADA = "ada@there.example"
QUESTION = """\
From: Ada <ada@there.example>
To: shop@here.example, Bob <bob@there.example>
Subject: AW: Hat
Message-ID: {id}
References: <first@there.example>
Date: Thu, 31 Jan 2030 09:30:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html; charset=utf-8

<p>In red?</p><script>alert(1)</script>
--b
Content-Type: image/png; name=hat.png
Content-Disposition: attachment; filename=hat.png
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--b--
"""


@pytest.fixture
async def mailbox(dovecot: Dovecot, settings: Settings) -> AsyncIterator[Mailbox]:
    """Its owner's own view."""
    async with opened(dovecot.imap("ann"), settings) as mailbox:
        yield mailbox


@pytest.fixture
async def tenant(stack: Stack, upstream: Upstream, make_tenant: MakeTenant, dovecot: Dovecot) -> Tenant:
    return await make_tenant(stack, upstream, imap=server(dovecot.imap("ann")), tracking={"opens": True})


def server(imap: Imap) -> dict[str, Any]:
    """As the API takes it; watched by a connection that stays."""
    login = {"user": imap.user, "pass": imap.password}
    return {"host": imap.host, "port": imap.port, "secure": False, "tls": {"mode": "none"}, "auth": login, "idle": True}


async def asked(mailbox: Mailbox) -> tuple[str, str]:
    """A question has come in: its Message-ID, and the id by which it is named here."""
    message_id = f"<{uuid.uuid4().hex}@there.example>"
    there = await mailbox.append(
        "INBOX", QUESTION.format(id=message_id).replace("\n", "\r\n").encode(), date=datetime.now(UTC)
    )
    assert there is not None
    return message_id, spell(Place("INBOX", there.uidvalidity, there.uid))


async def found(mailbox: Mailbox, path: str, message_id: str) -> list[tuple[Brief, bytes]]:
    await mailbox.select(path, readonly=True)
    briefs = await mailbox.briefs(await mailbox.find(message_id))
    return [(brief, await mailbox.content(uid, 1 << 20) or b"") for uid, brief in sorted(briefs.items())]


async def flags(mailbox: Mailbox, path: str, message_id: str) -> set[str]:
    ((brief, _),) = await found(mailbox, path, message_id)
    return {flag.lower() for flag in brief.flags} - {"\\recent"}


async def settled(tenant: Tenant) -> bool:
    rows = await tenant.rows("select state::text, flagged from sent_copies where account_id = %s")
    return bool(rows) and set(rows) == {("done", True)}


async def event(tenant: Tenant, kind: str) -> dict[str, Any]:
    async def told() -> bool:
        return bool(await tenant.rows("select 1 from events where account_id = %s and type = %s", tenant.id, kind))

    await until(told)
    ((data,),) = await tenant.rows("select data from events where account_id = %s and type = %s", tenant.id, kind)
    return dict(data)


async def test_a_reply_is_sent_filed_once_and_its_original_is_answered(tenant: Tenant, mailbox: Mailbox) -> None:
    message_id, id = await asked(mailbox)
    answer = await tenant.submit(
        reference={"message": id, "action": "reply", "inline": True},
        to=None,
        subject=None,
        text=None,
        html="<html><body>Yes.</body></html>",
    )
    assert answer["reference"] == {"message": id, "success": True}
    await tenant.all_sent_once([ADA])
    sent = original.read(tenant.upstream.taken[0].content)
    assert (sent.subject, sent.in_reply_to) == ("Re: Hat", (message_id,))
    assert sent.references == ("<first@there.example>", message_id)
    assert "In red?" in sent.html
    assert "alert" not in sent.html
    assert copytext.pixels(tenant.upstream.taken[0].content)

    await until(lambda: settled(tenant))
    ((brief, filed),) = await found(mailbox, SENT, answer["messageId"])
    assert "\\seen" in {flag.lower() for flag in brief.flags}
    assert not copytext.pixels(filed)
    assert original.read(filed).in_reply_to == (message_id,)
    assert await flags(mailbox, "INBOX", message_id) == {"\\answered"}


async def test_a_forward_by_message_id_takes_the_files_along_and_flags_what_was_moved(
    tenant: Tenant, mailbox: Mailbox
) -> None:
    message_id, _ = await asked(mailbox)
    await tenant.submit(
        "boss@there.example",
        reference={"message": message_id, "action": "forward", "inline": True, "forwardAttachments": True},
        subject=None,
        sendAt=f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
    )
    await mailbox.select("INBOX")
    await mailbox.move(await mailbox.find(message_id), ARCHIVE)
    await tenant.rows("update deliveries set due_at = now() where account_id = %s returning 1")
    await tenant.all_sent_once(["boss@there.example"])
    sent = original.read(tenant.upstream.taken[0].content)
    assert sent.subject == "Fwd: AW: Hat"
    assert [(file.filename, file.content) for file in sent.files] == [("hat.png", b"\x89PNG\r\n\x1a\n")]
    assert "In red?" in sent.readable

    await until(lambda: settled(tenant))
    assert await flags(mailbox, ARCHIVE, message_id) == {"$forwarded"}


async def test_what_fails_flags_nothing_and_files_nothing(tenant: Tenant, mailbox: Mailbox) -> None:
    message_id, id = await asked(mailbox)
    tenant.upstream.when("RCPT", ADA).say("550 5.1.1 no such user")
    answer = await tenant.submit(reference={"message": id}, to=None, subject=None)
    await tenant.becomes(failed=1)
    assert await tenant.rows("select 1 from sent_copies where account_id = %s") == []
    assert await flags(mailbox, "INBOX", message_id) == set()
    assert await found(mailbox, SENT, answer["messageId"]) == []


async def test_a_bounce_is_seen_followed_to_its_report_and_ends_the_mail_to_that_address(
    tenant: Tenant, mailbox: Mailbox
) -> None:
    answer = await tenant.submit(ADA, "bob@there.example")
    await tenant.becomes(sent=2)
    report = bounce(ADA, id=uuid.uuid4().hex, message_id=answer["messageId"])
    await mailbox.append("INBOX", report, date=datetime.now(UTC))
    await tenant.becomes(sent=1, bounced=1)
    told = await event(tenant, "messageBounce")
    assert (told["recipient"], told["response"]["recommendedAction"]) == (ADA, "remove")

    status, shown = await tenant.ask("GET", f"/v1/account/{tenant.id}/message/{told['bounceMessage']}")
    assert (status, shown["subject"], shown["unseen"]) == (200, "Undelivered Mail Returned to Sender", True)
    path = f"/v1/account/{tenant.id}/message/{told['bounceMessage']}/source"
    async with tenant.http.get(path) as response:
        assert await response.read() == report

    async def refused() -> bool:
        status, answer = await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", tenant.body(ADA, dryRun=True))
        return status == 422 and answer["code"] == "RecipientsSuppressed"

    await until(refused)  # within the two seconds in which a change shows
    status, _ = await tenant.ask("DELETE", f"/v1/suppressions/{tenant.id}/{ADA}")
    assert status == 200

    async def accepted() -> bool:
        return (await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", tenant.body(ADA)))[0] == 200

    await until(accepted)
    await tenant.becomes(sent=2, bounced=1)


async def test_an_original_that_is_gone_is_told_of(tenant: Tenant, mailbox: Mailbox) -> None:
    message_id, id = await asked(mailbox)
    await mailbox.select("INBOX")
    uids = await mailbox.find(message_id)
    assert uids
    await mailbox.flag(uids, "\\Deleted")
    await mailbox.expunge(uids)
    status, answer = await tenant.ask(
        "POST", f"/v1/account/{tenant.id}/submit", {"reference": {"message": id}, "text": "Yes."}
    )
    assert (status, answer["code"]) == (404, "MessageNotFound")
    assert (await event(tenant, "messageMissing"))["id"] == id
