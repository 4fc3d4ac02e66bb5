"""The Sent copy in a real mailbox: by the room alone, and by all roles from the submission on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core import copytext
from relay.core.tenant import Imap
from relay.net.imap import Brief, Mailbox
from relay.settings import Settings
from relay.store import db
from tests.conftest import MakeTenant
from tests.copying import Desk, message, theirs
from tests.dovecot import Dovecot
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant
from tests.watching import opened

SENT, OLD_SENT = "Verschickt & raus", "INBOX.Gesendet"


@pytest.fixture
async def mailbox(dovecot: Dovecot, settings: Settings) -> AsyncIterator[Mailbox]:
    async with opened(dovecot.imap("ann"), settings) as mailbox:
        yield mailbox


async def copies(mailbox: Mailbox, message_id: str, path: str = SENT) -> list[tuple[Brief, bytes]]:
    await mailbox.select(path)
    briefs = await mailbox.briefs(await mailbox.find(message_id))
    return [(brief, await mailbox.content(uid, 1 << 20) or b"") for uid, brief in sorted(briefs.items())]


def server(imap: Imap) -> dict[str, Any]:
    """As the API takes it."""
    login = {"user": imap.user, "pass": imap.password}
    tls = {"mode": "none"}
    return {"host": imap.host, "port": imap.port, "secure": False, "tls": tls, "auth": login, "watch": False}


# -- The room alone ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def desk(pool: db.Pool, settings: Settings, dovecot: Dovecot) -> Desk:
    desk = Desk(pool, settings, dovecot.imap("ann"))
    await desk.account()
    return desk


async def test_the_copy_is_the_stored_message_read_and_dated_when_it_was_submitted(
    desk: Desk, mailbox: Mailbox
) -> None:
    content = message("plain-one@example.com")
    id = await desk.send(content)
    await desk.rows("update messages set created_at = '2025-12-24T18:00:00Z' where id = %s returning 1", id)
    await desk.work()
    ((brief, found),) = await copies(mailbox, "plain-one@example.com")
    assert found == content
    assert {flag.lower() for flag in brief.flags} & {"\\seen", "\\deleted"} == {"\\seen"}
    assert brief.date.isoformat() == "2025-12-24T18:00:00+00:00"
    assert await desk.state() == "done"


async def test_bcc_stands_in_the_copy(desk: Desk, mailbox: Mailbox) -> None:
    await desk.send(message("with-bcc@example.com"), bcc=("eve@example.net", "zoë@example.net"))
    await desk.work()
    ((_, found),) = await copies(mailbox, "with-bcc@example.com")
    assert "Bcc: eve@example.net, zoë@example.net\r\n".encode() in found


async def test_the_provider_s_copy_gives_way_and_other_deleted_mail_stays(desk: Desk, mailbox: Mailbox) -> None:
    other = await mailbox.append(SENT, message("his@example.com"), flags=("\\Deleted",), date=desk.began)
    await mailbox.append(SENT, theirs(message("filed@example.com")), date=desk.began)
    await desk.send(message("filed@example.com"))
    await desk.work()
    ((_, found),) = await copies(mailbox, "filed@example.com")
    assert found == message("filed@example.com").replace(b"<ann@example.com>", b"<ann@corp.example>")
    assert other is not None
    assert [brief.uid for brief, _ in await copies(mailbox, "his@example.com")] == [other.uid]


async def test_a_copy_among_all_mail_goes_too(desk: Desk, mailbox: Mailbox) -> None:
    await mailbox.append("Ablage", theirs(message("stray@example.com")), date=desk.began)
    await desk.send(message("stray@example.com"))
    await desk.work()
    assert await copies(mailbox, "stray@example.com", "Ablage") == []
    assert len(await copies(mailbox, "stray@example.com")) == 1


async def test_a_message_that_came_in_as_well_stays(desk: Desk, mailbox: Mailbox) -> None:
    for path in ("INBOX", "Ablage"):
        await mailbox.append(path, theirs(message("self@example.com")), date=desk.began)
    await desk.send(message("self@example.com"))
    await desk.work()
    for path in ("INBOX", "Ablage", SENT):
        assert len(await copies(mailbox, "self@example.com", path)) == 1


async def test_an_old_server_with_a_prefix_and_no_flags(pool: db.Pool, settings: Settings, dovecot: Dovecot) -> None:
    desk = Desk(pool, settings, dovecot.imap("bob"))
    await desk.account()
    await desk.send(message("old@example.com"))
    await desk.send(message("own@example.com"), sent_mail_path="Shop/Out")
    await desk.work()
    async with opened(dovecot.imap("bob"), settings) as mailbox:
        assert len(await copies(mailbox, "old@example.com", OLD_SENT)) == 1
        assert len(await copies(mailbox, "own@example.com", "INBOX.Shop.Out")) == 1


@pytest.mark.parametrize("option", [{"copy": "none"}, {"copy": "never"}])
async def test_no_copy_where_none_is_wanted(desk: Desk, mailbox: Mailbox, option: dict[str, Any]) -> None:
    id = await desk.send(message("none@example.com"))
    await desk.rows(
        "update messages set options = jsonb_build_object('copy', %s::text) where id = %s returning 1",
        option["copy"],
        id,
    )
    await desk.work()
    assert await copies(mailbox, "none@example.com") == []
    assert await desk.state() == "done"


async def test_it_waits_for_the_last_outcome(desk: Desk, mailbox: Mailbox) -> None:
    await desk.send(message("several@example.com"), "bo@x.example", "cy@x.example")
    waiting = "update deliveries set state = %s, finished_at = %s where recipient = 'cy@x.example' returning 1"
    await desk.rows(waiting, "deferred", None)
    await desk.work()
    assert await copies(mailbox, "several@example.com") == []
    await desk.rows(waiting, "failed", desk.began)
    await desk.due()
    await desk.work()
    assert len(await copies(mailbox, "several@example.com")) == 1


async def test_what_it_answers_is_flagged_and_one_that_is_gone_is_told_of(desk: Desk, mailbox: Mailbox) -> None:
    await mailbox.append("INBOX", message("question@example.com"), date=desk.began)
    for id in ("question", "gone"):
        sent = await desk.send(message(f"re-{id}@example.com"))
        await desk.rows(
            "update messages set options = jsonb_build_object('copy', 'none', 'answers', jsonb_build_object("
            "'place', '', 'flag', '\\Answered', 'message_id', %s::text)) where id = %s returning 1",
            *(f"<{id}@example.com>", sent),
        )
    await desk.work()
    ((brief, _),) = await copies(mailbox, "question@example.com", "INBOX")
    assert "\\answered" in {flag.lower() for flag in brief.flags}
    ((told,),) = await desk.rows("select data ->> 'messageId' from events where type = 'messageMissing'")
    assert told == "<gone@example.com>"


# -- From the submission on --------------------------------------------------------------------------------------------


@pytest.fixture
async def tenant(stack: Stack, upstream: Upstream, make_tenant: MakeTenant, dovecot: Dovecot) -> Tenant:
    return await make_tenant(stack, upstream, imap=server(dovecot.imap("ann")), tracking={"opens": True})


async def settled(tenant: Tenant) -> bool:
    found = await tenant.rows("select state::text from sent_copies where account_id = %s")
    return bool(found) and {state for (state,) in found} == {"done"}


async def test_what_is_submitted_has_one_clean_copy(tenant: Tenant, mailbox: Mailbox) -> None:
    hidden = {"address": "eve@there.example"}
    answer = await tenant.submit("bo@there.example", html="<html><body>Hi</body></html>", bcc=[hidden])
    await until(lambda: settled(tenant))
    ((brief, found),) = await copies(mailbox, answer["messageId"])
    ((created,),) = await tenant.rows("select created_at from messages where account_id = %s")
    assert not copytext.pixels(found)
    assert b"\r\nBcc: eve@there.example\r\n" in found
    assert "\\seen" in {flag.lower() for flag in brief.flags}
    assert brief.date == created.replace(microsecond=0)
    sent = [taken.content for taken in tenant.upstream.taken]
    assert len(sent) == 2
    assert all(copytext.pixels(one) and b"Bcc" not in one for one in sent)


async def test_a_provider_that_files_late_leaves_one_clean_copy(tenant: Tenant, mailbox: Mailbox) -> None:
    answer = await tenant.submit("bo@there.example", html="<html><body>Hi</body></html>")
    await until(lambda: settled(tenant))
    filed = (
        tenant.upstream.taken[0]
        .content.replace(b"\r\nTo: ", b"\r\nTo: Bo <")
        .replace(b"bo@there.example\r\n", b"bo@there.example>\r\n")
    )
    await mailbox.append(SENT, filed, date=(await copies(mailbox, answer["messageId"]))[0][0].date)
    await tenant.rows("update sent_copies set due_at = now() where account_id = %s returning 1")

    async def replaced() -> bool:
        found = await copies(mailbox, answer["messageId"])
        return len(found) == 1 and b"\r\nTo: Bo <bo@there.example>\r\n" in found[0][1]

    await until(replaced)
    assert not copytext.pixels((await copies(mailbox, answer["messageId"]))[0][1])
    assert len(tenant.upstream.taken) == 1  # nothing is sent twice
