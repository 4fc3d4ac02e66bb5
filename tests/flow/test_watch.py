"""Mailboxes are watched, on a real server: bounces and complaints change what was sent, nothing else does."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay import bounces, look
from relay.core import place
from relay.settings import Settings
from relay.store import db, mailboxes
from relay.store.bounces import Early
from tests.conftest import MakeTenant
from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.faulty import once
from tests.stack import Stack, until
from tests.watching import AWAY, NEVER, PERSON, Watched, bounce, complaint, delivered, emptied, opened

JUNK = "Kram"


@pytest.fixture
async def watched(pool: db.Pool, settings: Settings, dovecot: Dovecot) -> Watched:
    imap = dovecot.imap("ann")
    await emptied(imap, settings, "INBOX", JUNK)
    return Watched(pool, settings, imap)


@pytest.fixture
async def bench(watched: Watched) -> Watched:
    """An account that has sent to bob and eve."""
    await watched.account()
    await watched.sent("bob@there.example", "eve@there.example")
    return watched


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """A function that gives the lines about the watch."""
    caplog.set_level(logging.INFO, "postferry.watch")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "postferry.watch"]


async def come(bench: Watched, *mails: bytes, **more: Any) -> None:
    await delivered(bench.imap, bench.settings, *mails, **more)


@pytest.mark.parametrize("path", ["INBOX", JUNK])
async def test_a_bounce_makes_what_was_sent_bounced_and_suppresses(bench: Watched, path: str) -> None:
    async with bench.running():
        await bench.looked_at()
        await come(bench, PERSON, bounce("bob@there.example"), path=path)
        await bench.become(bob="bounced", eve="sent")
    assert await bench.suppressed() == {"bob@there.example"}
    assert await bench.reports() == [("bounce", 1)]
    (event,) = await bench.events("messageBounce")
    assert (event["recipient"], event["action"]) == ("bob@there.example", "failed")
    # And its id is that of the mail in the mailbox
    where = place.read(event["bounceMessage"])
    async with opened(bench.imap, bench.settings) as mailbox:
        selected = await mailbox.select(where.path, readonly=True)
        assert (where.path, where.uidvalidity) == (path, selected.uidvalidity)
        assert await mailbox.content(where.uid, 1 << 20) == bounce("bob@there.example")


async def test_a_report_that_is_faster_than_the_record_of_the_send_waits_for_it(
    bench: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail to ourselves bounces within a moment, and a worker may stand still."""
    early, record = asyncio.Event(), bounces.record

    async def noted(*given: Any, **more: Any) -> int:
        try:
            return await record(*given, **more)
        except Early:
            early.set()
            raise

    monkeypatch.setattr(bounces, "record", noted)
    monkeypatch.setattr(look, "AGAIN", 0.01)
    to_bob = "where recipient = 'bob@there.example' returning id"
    await bench.rows(f"update deliveries set state = 'leased', finished_at = null {to_bob}")
    async with bench.running():
        await come(bench, bounce("bob@there.example"))
        await asyncio.wait_for(early.wait(), 20)
        await bench.rows(f"update deliveries set state = 'sent', finished_at = now() {to_bob}")
        await bench.become(bob="bounced", eve="sent")
    assert await bench.reports() == [("bounce", 1)]


async def test_what_the_owner_has_not_read_stays_unread(bench: Watched) -> None:
    await come(bench, PERSON, bounce("bob@there.example"))
    async with bench.running():
        await bench.become(bob="bounced", eve="sent")
    async with opened(bench.imap, bench.settings) as mailbox:
        await mailbox.select("INBOX")
        found = await mailbox.briefs(await mailbox.since(1, 10))
    assert len(found) == 2
    assert not any("\\Seen" in brief.flags for brief in found.values())


async def test_a_complaint_is_recorded_as_one(bench: Watched) -> None:
    async with bench.running():
        await come(bench, complaint("bob@there.example"), path=JUNK)
        await bench.become(bob="complained", eve="sent")
    assert await bench.reports() == [("complaint", 1)]
    assert len(await bench.events("messageComplaint")) == 1


def feedback(what: str) -> bytes:
    return complaint("bob@there.example", what=what)


@pytest.mark.parametrize(
    "mail",
    [PERSON, AWAY, feedback("not-spam"), feedback("Auth-Failure")],
    ids=["person", "auto-reply", "no spam", "DMARC"],
)
async def test_other_mail_is_not_recorded(bench: Watched, mail: bytes) -> None:
    await come(bench, mail)
    async with bench.running():
        await bench.looked_at()
    assert await bench.states() == {"bob@there.example": "sent", "eve@there.example": "sent"}
    assert await bench.reports() == []


async def test_what_is_only_delayed_has_not_failed(bench: Watched) -> None:
    await come(bench, bounce("bob@there.example", action="delayed", status="4.4.1"))
    async with bench.running():
        await bench.looked_at()
    assert await bench.states() == {"bob@there.example": "sent", "eve@there.example": "sent"}
    assert await bench.suppressed() == set()


async def test_a_forged_report_about_strangers_changes_nothing(bench: Watched) -> None:
    await come(bench, bounce("stranger@there.example", id="1"))
    await come(bench, bounce("bob@there.example", id="2", message_id="<made@up.example>"))
    async with bench.running():
        await bench.looked_at()
    assert await bench.states() == {"bob@there.example": "sent", "eve@there.example": "sent"}
    assert await bench.suppressed() == set()
    assert sorted(await bench.reports()) == [("bounce", 0), ("bounce", 0)]


async def test_of_ten_thousand_recipients_none_is_suppressed_that_was_not_written_to(bench: Watched) -> None:
    names = [f"p{number}@there.example" for number in range(10_000)]
    await come(bench, bounce(*names), bounce("bob@there.example", id="2"))
    async with bench.running():
        await bench.become(bob="bounced", eve="sent")
        await bench.looked_at()
    assert await bench.suppressed() == {"bob@there.example"}


async def test_what_came_shortly_before_the_first_look_is_found_and_what_is_old_is_not(bench: Watched) -> None:
    now = datetime.now(UTC)
    await come(bench, bounce("eve@there.example", id="old"), date=now - timedelta(days=3))
    await come(bench, bounce("bob@there.example"), date=now - timedelta(hours=5))
    async with bench.running():
        await bench.looked_at()
    assert await bench.states() == {"bob@there.example": "bounced", "eve@there.example": "sent"}


async def test_the_same_report_in_two_folders_counts_once(bench: Watched) -> None:
    await come(bench, bounce("bob@there.example"))
    await come(bench, bounce("bob@there.example"), path=JUNK)
    async with bench.running():
        await bench.looked_at()
    assert await bench.reports() == [("bounce", 1)]
    assert len(await bench.events("messageBounce")) == 1


async def test_who_asks_for_it_is_told_at_once(watched: Watched) -> None:
    """By IDLE: the next look is an hour away."""
    await watched.account(idle=True)
    await watched.sent("bob@there.example")
    async with watched.running(**NEVER) as watcher:
        await until(lambda: watcher._idling == 1)
        await come(watched, PERSON)
        await come(watched, bounce("bob@there.example"))
        await watched.become(bob="bounced")
        assert watcher._idling == 1


async def test_who_stays_in_one_mailbox_goes_when_its_settings_change(watched: Watched) -> None:
    await watched.account(idle=True)
    async with watched.running(**NEVER) as watcher:
        await until(lambda: watcher._idling == 1)
        await watched.save(imap={"idle": False})
        await until(lambda: watcher._idling == 0 and not watcher._running)
    assert (await watched.standing()).error == ""


async def test_only_half_of_the_connections_stay(watched: Watched) -> None:
    for account in ("a", "b", "c"):
        await watched.account(account, idle=True)
    async with watched.running(**NEVER, mailbox_connections=4) as watcher:
        for account in ("a", "b", "c"):
            await until(lambda account=account: looked(watched, account))
        await until(lambda: watcher._idling == 2 and len(watcher._running) == 2)


async def test_a_paused_account_is_watched_and_one_that_does_not_want_it_is_not(bench: Watched) -> None:
    await bench.account("off", watch=False)
    await bench.rows("update accounts set state = 'paused' where id = 'a' returning id")
    await come(bench, bounce("bob@there.example"))
    async with bench.running():
        await bench.become(bob="bounced", eve="sent")
    assert (await bench.standing("off")).looked_at is None


async def test_a_mailbox_that_refuses_us_is_shown_told_once_and_heals_when_it_is_mended(
    bench: Watched, told: Any
) -> None:
    await bench.account(auth={"user": "ann", "pass": "not this"})
    async with bench.running():
        await until(lambda: failed(bench, 3))
        (line,) = told()
        assert line.startswith("the mailbox of a is not watched: ")
        standing = await bench.standing()
        assert standing.error in line
        assert "not this" not in line
        await come(bench, bounce("bob@there.example"))
        await bench.account()
        await bench.become(bob="bounced", eve="sent")
        await until(lambda: len(told()) == 2)
        await until(lambda: healed(bench))
    assert told()[1] == "the mailbox of a is watched again"


async def test_secrets_that_cannot_be_opened_are_told_and_stop_nobody(bench: Watched, told: Any) -> None:
    lost = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    async with bench.running(secret_keys=(lost,)):
        await until(lambda: failed(bench, 1))
    assert "secrets cannot be opened" in (await bench.standing()).error
    assert len(told()) == 1


async def test_no_mailbox_is_touched_where_the_operator_wants_none_touched(bench: Watched) -> None:
    async with bench.running(mailbox_connections=0):
        pass
    standing = await bench.standing()
    assert standing.looked_at is None
    assert standing.next_at is not None


async def test_the_role_tells_subscribers(
    stack: Stack, upstream: Upstream, make_tenant: MakeTenant, settings: Settings, dovecot: Dovecot
) -> None:
    imap = dovecot.imap("bob")
    await emptied(imap, settings, "INBOX")
    login = {"user": imap.user, "pass": imap.password}
    server = {"host": imap.host, "port": imap.port, "secure": False, "tls": {"mode": "none"}, "auth": login}
    async with Receiver() as receiver:
        tenant = await make_tenant(stack, upstream, imap=server, webhooks=receiver.url("/hook"), copy="none")
        answer = await tenant.submit("bob@there.example")
        await tenant.becomes(sent=1)
        await delivered(imap, settings, bounce("bob@there.example", message_id=answer["messageId"]))
        await tenant.becomes(bounced=1)
        await until(lambda: any(post.json["event"] == "messageBounce" for post in receiver.posts))
    (told,) = [post.json for post in receiver.posts if post.json["event"] == "messageBounce"]
    assert told["account"] == tenant.id
    assert told["data"]["messageId"] == answer["messageId"]
    status, shown = await tenant.ask("GET", f"/v1/account/{tenant.id}")
    assert status == 200
    assert shown["mailbox"]["error"] is None
    assert shown["mailbox"]["lookedAt"] < shown["mailbox"]["nextAt"]


async def looked(bench: Watched, account: str) -> bool:
    return (await bench.standing(account)).looked_at is not None


async def failed(bench: Watched, times: int) -> bool:
    return (await bench.standing()).failures >= times


async def healed(bench: Watched) -> bool:
    return (await bench.standing()).error == ""


async def test_a_fault_of_ours_puts_the_watch_off_and_no_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs in the role that leaves Sent copies, which must not end with it."""
    again = once(monkeypatch, mailboxes, "claim")
    async with watched.running():
        await asyncio.wait_for(again.wait(), 20)
    assert "put off by a fault of ours" in caplog.text
