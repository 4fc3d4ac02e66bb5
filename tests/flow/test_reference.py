"""The original of a reply in real and odd mailboxes: fetched, found wherever it went, flagged once that is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from relay import answered, finding
from relay.core.model import Answered
from relay.core.place import Place, read, spell
from relay.core.thread import ANSWERED, FORWARDED, Action, Mine, Wish
from relay.net.imap import Mailbox, MailboxError, connect
from relay.reference import Reference, compose, fetch
from relay.settings import Settings
from tests.dovecot import Dovecot
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import GMAIL, Labels

ID = "<1@there.example>"
LETTER = (
    b"From: Ada <ada@there.example>\r\nTo: ann@here.example\r\nSubject: Hat\r\nMessage-ID: <1@there.example>\r\n"
    b"Date: Thu, 31 Jan 2030 09:30:00 +0000\r\n\r\nRed.\r\n"
)
OTHER = LETTER.replace(b"<1@", b"<2@")
NOW = datetime(2030, 1, 31, tzinfo=UTC)
MOST = 1 << 20


@pytest.fixture
async def real(dovecot: Dovecot, settings: Settings) -> AsyncIterator[Mailbox]:
    dovecot.empty("ann")
    mailbox = await connect(dovecot.imap("ann"), allowed=settings.allow_networks, seconds=10)
    yield mailbox
    await mailbox.close()


@pytest.fixture
async def server() -> AsyncIterator[MailboxServer]:
    async with MailboxServer() as server:
        yield server


async def at(server: MailboxServer, settings: Settings, seconds: float = 20.0) -> Mailbox:
    return await connect(server.imap(), allowed=settings.allow_networks, seconds=seconds)


async def stored(mailbox: Mailbox, path: str, content: bytes = LETTER) -> str:
    """Its id."""
    there = await mailbox.append(path, content, date=NOW)
    assert there is not None
    return spell(Place(path, there.uidvalidity, there.uid))


async def flags(mailbox: Mailbox, id: str) -> frozenset[str]:
    place = read(id)
    await mailbox.select(place.path, readonly=True)
    return (await mailbox.briefs([place.uid]))[place.uid].flags - {"\\Recent"}


def put(server: MailboxServer, path: str, content: bytes = LETTER) -> str:
    uid = server.put(path, content)
    return spell(Place(path, server.folder(path).uidvalidity, uid))


# A real mailbox.


async def test_an_original_is_fetched_and_quoted(real: Mailbox) -> None:
    reference = Reference(await stored(real, "INBOX"), inline=True)
    fetched = await fetch(real, reference, MOST)
    assert fetched is not None
    made, answers = compose(fetched, reference, Mine({"ann@here.example"}, "Blue."), Wish(Action.REPLY, inline=True))
    assert made is not None
    assert made.text == "Blue.\n\nOn Thu, 31 Jan 2030 at 09:30, Ada <ada@there.example> wrote:\n\n> Red.\n"
    assert answers == Answered(reference.message, ANSWERED, ID)


async def test_it_is_not_marked_as_seen(real: Mailbox) -> None:
    id = await stored(real, "INBOX")
    for inline in (True, False):
        assert await fetch(real, Reference(id, inline=inline), MOST) is not None
    assert await flags(real, id) == frozenset()


@pytest.mark.parametrize("path", ["INBOX", "Verschickt & raus", "Müll", "Kram"])
async def test_it_is_found_in_any_folder(real: Mailbox, path: str) -> None:
    id = await stored(real, path)
    fetched = await fetch(real, Reference(ID), MOST)
    assert fetched is not None
    assert fetched.place == id


@pytest.mark.parametrize("flag", [ANSWERED, FORWARDED])
async def test_it_is_flagged_and_no_other(real: Mailbox, flag: str) -> None:
    id, other = await stored(real, "INBOX"), await stored(real, "INBOX", OTHER)
    for _ in range(2):
        assert await answered.flag(real, Answered(id, flag, ID))
    assert await flags(real, id) == {flag}
    assert await flags(real, other) == frozenset()


async def test_it_is_flagged_where_it_went(real: Mailbox) -> None:
    id = await stored(real, "INBOX")
    await real.select("INBOX")
    await real.move([read(id).uid], "Ablage")
    assert await answered.flag(real, Answered(id, ANSWERED, ID))
    place = await finding.hunt(real, ID)
    assert place is not None
    assert place.path == "Ablage"
    assert await flags(real, spell(place)) == {ANSWERED}


async def test_what_is_gone_is_said_to_be(real: Mailbox) -> None:
    id = await stored(real, "INBOX")
    await real.select("INBOX")
    await real.flag([read(id).uid], "\\Deleted")
    await real.expunge([read(id).uid])
    assert not await answered.flag(real, Answered(id, ANSWERED, ID))
    assert not await answered.flag(real, Answered(id, ANSWERED))
    assert await fetch(real, Reference(id), MOST) is None


# Odd ones.


async def test_a_uid_that_means_another_mail_is_not_flagged(server: MailboxServer, settings: Settings) -> None:
    """Given that UIDVALIDITY changed, or that a server gave a UID anew, the mail is found by its Message-ID."""
    id, other = put(server, "INBOX", OTHER), put(server, "Sent")
    mailbox = await at(server, settings)
    assert await answered.flag(mailbox, Answered(id, ANSWERED, ID))
    assert (server.flags("INBOX", read(id).uid), server.flags("Sent", read(other).uid)) == (set(), {ANSWERED})
    await mailbox.close()


async def test_after_another_uidvalidity_it_is_found_by_its_message_id(
    server: MailboxServer, settings: Settings
) -> None:
    id = put(server, "INBOX")
    server.renumber("INBOX")
    mailbox = await at(server, settings)
    assert await answered.flag(mailbox, Answered(id, ANSWERED, ID))
    assert [mail.flags for mail in server.mails("INBOX")] == [{ANSWERED}]
    assert not await answered.flag(mailbox, Answered(id, ANSWERED))
    await mailbox.close()


async def test_a_server_that_keeps_no_keywords_is_asked_for_none(server: MailboxServer, settings: Settings) -> None:
    id = put(server, "INBOX")
    told = f"* 1 EXISTS\r\n* OK [UIDVALIDITY {read(id).uidvalidity}] it\r\n* OK [PERMANENTFLAGS (\\Answered)] kept\r\n"
    mailbox = await at(server, settings)
    server.when_done("SELECT").say(told + "{tag} OK [READ-WRITE] done")
    assert await answered.flag(mailbox, Answered(id, FORWARDED, ID))
    assert server.flags("INBOX", 1) == set()
    assert await answered.flag(mailbox, Answered(id, ANSWERED, ID))
    assert server.flags("INBOX", 1) == {ANSWERED}
    await mailbox.close()


async def test_gmail_is_asked_where_all_mail_is(settings: Settings) -> None:
    async with MailboxServer(store=Labels(GMAIL)) as server:
        all_mail = next(path for path in server.store.folders if path.endswith("All Mail"))
        put(server, all_mail)
        mailbox = await at(server, settings)
        assert await answered.flag(mailbox, Answered("", ANSWERED, ID))
        assert not await answered.flag(mailbox, Answered("", ANSWERED, "<none@there.example>"))
        await mailbox.close()


@pytest.mark.parametrize("verb", ["LIST", "SELECT", "SEARCH", "FETCH", "STORE"])
@pytest.mark.parametrize("how", ["hang", "drop"])
async def test_a_server_that_is_away_says_nothing_of_the_mail(
    server: MailboxServer, settings: Settings, verb: str, how: str
) -> None:
    """Then it is not gone: whoever flags tries again."""
    put(server, "Sent")
    mailbox = await at(server, settings, 0.5)
    getattr(server.when(verb), how)()
    with pytest.raises(MailboxError):
        await answered.flag(mailbox, Answered("", ANSWERED, ID))
    mailbox.abort()


async def test_a_folder_that_cannot_be_searched_leaves_a_doubt(server: MailboxServer, settings: Settings) -> None:
    mailbox = await at(server, settings)
    server.when("SELECT", times=1).say("{tag} NO [UNAVAILABLE] later")
    with pytest.raises(MailboxError):
        await answered.flag(mailbox, Answered("", ANSWERED, ID))
    put(server, "Sent")
    server.when("SELECT", times=1).say("{tag} NO [UNAVAILABLE] later")
    assert await answered.flag(mailbox, Answered("", ANSWERED, ID))
    await mailbox.close()


async def test_a_folder_that_is_not_ours_leaves_none(server: MailboxServer, settings: Settings) -> None:
    mailbox = await at(server, settings)
    server.when("SELECT", times=1).say("{tag} NO [NOPERM] no")
    assert not await answered.flag(mailbox, Answered("", ANSWERED, ID))
    await mailbox.close()


async def test_a_mail_that_vanishes_as_it_is_fetched_is_gone(server: MailboxServer, settings: Settings) -> None:
    id = put(server, "INBOX")
    mailbox = await at(server, settings)
    server.when("FETCH", skip=1, times=1).say("{tag} OK done")
    assert await fetch(mailbox, Reference(id, inline=True), MOST) is None
    server.when("FETCH", skip=2, times=1).say("{tag} OK done")
    assert await fetch(mailbox, Reference(id, inline=True), MOST) is None
    assert await fetch(mailbox, Reference(id, inline=True), MOST) is not None
    await mailbox.close()
