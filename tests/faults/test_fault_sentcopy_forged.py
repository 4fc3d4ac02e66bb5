"""Message-IDs are chosen by whoever submits: no mail goes that was there before, or is another mail of that name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.settings import Settings
from relay.store import db
from tests.copying import PLAIN, message, theirs
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import GMAIL, Labels
from tests.faults.test_fault_sentcopy import EVERYTHING, SENT, TRASH, at_work, standing, the_one

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
BCC = ("eve@example.net",)
ANOTHER = "has another mail with this Message-ID"


@pytest.mark.parametrize("uidplus", [True, False])
@pytest.mark.parametrize("bcc", [(), BCC])
@pytest.mark.parametrize("copy", ["auto", "append", "replace"])
async def test_mail_that_was_there_before_stays(
    pool: db.Pool, settings: Settings, copy: str, bcc: tuple[str, ...], uidplus: bool
) -> None:
    """Given the owner's own mail, when a message with its Message-ID is submitted, then both are in Sent."""
    async with at_work(MailboxServer(uidplus=uidplus), pool, settings, copy=copy) as (server, desk):
        kept = server.put("Sent", message(kind=PLAIN, text="The contract"), date=YESTERDAY)
        await desk.send(message(), bcc=bcc)
        await desk.work()
        mine, ours = standing(server)
        assert server.folder("Sent").uids[0] == kept
        assert mine.content == message(kind=PLAIN, text="The contract")
        assert (b"Bcc: " in ours.content) is bool(bcc)


async def test_it_stays_with_a_pixel_in_it_too(pool: db.Pool, settings: Settings) -> None:
    """What the owner sent by us long ago, before anybody tidied his copies."""
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        server.put("Sent", theirs(message()), date=YESTERDAY)
        await desk.send()
        await desk.work()
        assert len(standing(server)) == 2


async def test_what_was_received_stays_though_copies_go_to_inbox(pool: db.Pool, settings: Settings) -> None:
    """Given a letter in INBOX, when mail with its id is submitted whose copy belongs there, then the letter stays."""
    letter = message(kind=PLAIN, text="The invoice")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        for date in (YESTERDAY, None):
            server.put("INBOX", letter, date=date)
        await desk.send(message(), bcc=BCC, sent_mail_path="INBOX")
        await desk.work()
        assert [mail.content == letter for mail in standing(server, "INBOX")] == [True, True, False]


async def test_what_comes_later_under_its_name_with_another_subject_stays(pool: db.Pool, settings: Settings) -> None:
    other = message(kind=PLAIN).replace(b"Subject: Hello", b"Subject: Something else")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(message(), bcc=BCC)
        server.put("Sent", other)
        await desk.work()
        assert [mail.content == other for mail in standing(server)] == [True, False]


async def test_two_messages_of_one_name_leave_each_other_s_copies_alone(pool: db.Pool, settings: Settings) -> None:
    second = message().replace(b"Subject: Hello", b"Subject: Goodbye")
    async with at_work(MailboxServer(), pool, settings, copy="replace") as (server, desk):
        await desk.send(message(), bcc=BCC)
        await desk.send(second, bcc=BCC)
        await desk.work(copy_looks=(3600.0,))
        await desk.due()
        await desk.work(copy_looks=(3600.0,))
        assert sorted(mail.field("Subject") for mail in standing(server)) == ["Goodbye", "Hello"]


@pytest.mark.parametrize(
    "subject",
    [
        b"Subject: hello",
        b"Subject:\r\n  Hello",
        b"Subject: =?utf-8?q?H?= =?utf-8?b?ZWxsbw==?=",
    ],
)
async def test_a_copy_whose_subject_is_spelt_otherwise_is_one(
    pool: db.Pool, settings: Settings, subject: bytes
) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()).replace(b"Subject: Hello", subject))
        await desk.work()
        the_one(server)


async def test_a_copy_by_a_clock_that_is_somewhat_behind_is_one(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()), date=datetime.now(UTC) - timedelta(minutes=4))
        await desk.work()
        the_one(server)


async def test_ours_is_ours_whatever_date_the_server_gives_it(pool: db.Pool, settings: Settings) -> None:
    """Given a server that dates mail by itself, and wrongly, then ours is written once and no more."""
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        await desk.work(copy_looks=(3600.0, 3600.0))
        (ours,) = server.mails("Sent")
        ours.date = datetime(1970, 1, 1, tzinfo=UTC)
        await desk.due()
        await desk.work(copy_looks=(3600.0, 3600.0))
        assert server.mails("Sent") == [ours]
        assert await desk.state() == "done"


@pytest.mark.parametrize("bcc", [(), BCC])
@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("path", [SENT, EVERYTHING, TRASH, "INBOX"])
async def test_a_gmail_s_older_mail_stays_where_it_is(
    pool: db.Pool, settings: Settings, path: str, pixel: bool, bcc: tuple[str, ...]
) -> None:
    older = theirs(message()) if pixel else message(kind=PLAIN, text="The contract")
    async with at_work(MailboxServer(store=Labels(GMAIL)), pool, settings) as (server, desk):
        server.put(path, older, date=YESTERDAY)
        await desk.send(bcc=bcc)
        await desk.work()
        assert older in [mail.content for mail in server.mails(path)]


@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("path", [SENT, EVERYTHING])
async def test_a_gmail_that_takes_ours_for_an_older_mail_keeps_that_one(
    pool: db.Pool, settings: Settings, path: str, pixel: bool
) -> None:
    """Given it stores no second mail under an id, then the older one is not moved out of the way; the copy is given up,
    and said so."""
    older = theirs(message()) if pixel else message(kind=PLAIN, text="The contract")
    async with at_work(MailboxServer(store=Labels(GMAIL, dedupe=True)), pool, settings) as (server, desk):
        server.put(path, older, date=YESTERDAY)
        await desk.send(bcc=BCC)
        for _ in range(3):
            await desk.work(copy_retries=(3600.0,))
            await desk.due()
        assert [mail.content for mail in server.mails(EVERYTHING)] == [older]
        assert server.mails(TRASH) == []
        assert await desk.state() == "failed"
        assert ANOTHER in await desk.error()
