r"""Mail in a mailbox: every command, against a real server and against those with odd ways, hostile ones too."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.tenant import Tls
from relay.net import imapmail, imapwire
from relay.net.imap import Appended, Brief, Mailbox, MailboxError, connect
from tests.dovecot import Dovecot
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import EXCHANGE, FOREIGN, GMAIL, GMAIL_GERMAN, PLAIN, Labels, Store, prefixed
from tests.stack import until

LOCAL = [ip_network("127.0.0.0/8")]
PATIENT, HASTY = 120.0, 0.4
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SENT = "Verschickt & raus"


def mail(id: str, text: str = "Hello") -> bytes:
    return f"From: a@example.com\r\nMessage-ID: <{id}>\r\nSubject: {text}\r\n\r\n{text}\r\n".encode()


@asynccontextmanager
async def reached(imap: Any, seconds: float = PATIENT, **more: Any) -> AsyncIterator[Mailbox]:
    found = await connect(imap, **{"allowed": LOCAL, "seconds": seconds, **more})
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
async def real(dovecot: Dovecot) -> AsyncIterator[Mailbox]:
    """A new mailbox on a real server."""
    dovecot.empty("ann")
    async with reached(dovecot.imap("ann")) as mailbox:
        yield mailbox


@asynccontextmanager
async def odd(seconds: float = PATIENT, **more: Any) -> AsyncIterator[tuple[MailboxServer, Mailbox]]:
    async with MailboxServer(**more) as server, reached(server.imap(), seconds) as mailbox:
        yield server, mailbox


async def stored(mailbox: Mailbox, path: str, *mails: bytes) -> list[int]:
    """Their UIDs; the folder is selected."""
    places = [await mailbox.append(path, one, date=WHEN) for one in mails]
    await mailbox.select(path)
    return [place.uid for place in places if place is not None]


async def refused(work: Awaitable[Any]) -> MailboxError:
    with pytest.raises(MailboxError) as fault:
        await work
    return fault.value


# A real server.


async def test_what_is_appended_is_told_and_found(real: Mailbox) -> None:
    zone = timezone(timedelta(hours=2))
    place = await real.append(SENT, mail("1@x"), flags=["\\Seen", "$Forwarded"], date=WHEN.astimezone(zone))
    assert place is not None
    selected = await real.select(SENT)
    assert (selected.path, selected.exists, selected.uidnext) == (SENT, 1, place.uid + 1)
    assert selected.uidvalidity == place.uidvalidity
    assert selected.flags_kept
    assert await real.find("<1@x>") == await real.find("1@x") == [place.uid]
    [brief] = (await real.briefs([place.uid])).values()
    assert brief == Brief(place.uid, len(mail("1@x")), brief.flags, WHEN)
    assert brief.flags - {"\\Recent"} == {"\\Seen", "$Forwarded"}
    assert await real.content(place.uid, 1000) == mail("1@x")


async def test_status_tells_without_selecting(real: Mailbox) -> None:
    [uid] = await stored(real, SENT, mail("1@x"))
    before = await real.status("INBOX")
    assert (before.messages, before.uidnext) == (0, 1)
    told = await real.status(SENT)
    assert (told.messages, told.uidnext) == (1, uid + 1)
    assert await real.find("1@x") == [uid]  # for it is selected still


@pytest.mark.parametrize("path", ["Neu", "Über/ß & so", 'a "b\\c'])
async def test_a_folder_is_made_where_there_is_none(real: Mailbox, path: str) -> None:
    await real.create(path)
    assert path in [folder.path for folder in await real.folders()]
    assert await stored(real, path, mail("1@x")) == [1]
    assert (await refused(real.create(path))).code == "ALREADYEXISTS"


async def test_only_the_mail_with_exactly_this_id_is_found(real: Mailbox) -> None:
    folded = b"message-id:\r\n\t <1@x> (added)\r\nSubject: <1@x>\r\n\r\nMessage-ID: <1@x>\r\n"
    other = b"Subject: x\r\nReferences: <1@x>\r\n\r\nMessage-ID: <1@x>\r\n"
    first, second, _, _ = await stored(real, SENT, mail("1@x"), folded, mail("11@x"), other)
    assert await real.find("<1@x>") == [first, second]
    assert await real.find("<nobody@x>") == []


@pytest.mark.parametrize("id", ['a"b\\c@x', "(a) {5}@x", "ü€@x", "%*]@x", "a b@x", "&@x"])
async def test_an_id_of_any_letters_is_found(real: Mailbox, id: str) -> None:
    [uid] = await stored(real, SENT, mail(id))
    assert await real.find(id) == [uid]


@pytest.mark.parametrize("id", ["a@x>\r\na1 DELETE INBOX", "a\nb", "a\0b", "", "<>", "  "])
async def test_an_id_that_no_mail_can_have_is_looked_for_nowhere(id: str) -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", b"Message-ID: \r\n\r\n")
        await mailbox.select("INBOX")
        assert await mailbox.find(id) == []
        assert server.verbs == ["SELECT"]


async def test_new_mail_is_counted_from_a_uid_on(real: Mailbox) -> None:
    uids = await stored(real, SENT, *(mail(f"{n}@x") for n in range(5)))
    assert await real.since(1, 100) == uids
    assert await real.since(1, 2) == uids[-2:]
    assert await real.since(uids[2], 100) == uids[2:]
    assert await real.since(uids[2], 100, uids[4]) == uids[2:4]
    assert await real.since(uids[4] + 1, 100) == []
    assert await real.since(1, 0) == []
    await real.select("INBOX")
    assert await real.since(1, 100) == []


async def test_mail_that_came_since_the_folder_was_selected_is_there(dovecot: Dovecot, real: Mailbox) -> None:
    await real.select("INBOX")
    async with reached(dovecot.imap("ann")) as other:
        await other.append("INBOX", mail("1@x"), date=WHEN)
    [uid] = await real.since(1, 10)
    assert await real.find("1@x") == [uid]


async def test_headers_come_whole_or_in_part(real: Mailbox) -> None:
    one, two = await stored(real, SENT, mail("1@x", "one"), mail("2@x", "two"))
    assert await real.headers([two, one, 999]) == {
        one: mail("1@x", "one").partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
        two: mail("2@x", "two").partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    }
    assert await real.headers([one], ["subject", "X-No"]) == {one: b"Subject: one\r\n\r\n"}
    assert await real.headers([]) == {}


async def test_a_header_is_cut(real: Mailbox) -> None:
    [uid] = await stored(real, SENT, b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n")
    assert {len(header) for header in (await real.headers([uid])).values()} == {imapmail.HEADER}


async def test_a_mail_is_read_as_far_as_is_wanted_and_stays_unread(real: Mailbox) -> None:
    [uid] = await stored(real, SENT, mail("1@x"))
    assert await real.content(uid, 5) == b"From:"
    assert await real.content(uid + 1, 5) is None
    assert "\\Seen" not in (await real.briefs([uid]))[uid].flags


async def test_mail_of_25_mb_goes_there_and_back(real: Mailbox) -> None:
    content = mail("1@x") + b"All work and no play makes Jack a dull boy: \xff\r\n" * 550_000
    tracemalloc.start()
    [uid] = await stored(real, SENT, content)
    # Then it was not copied on its way: what that took is far less than the mail
    assert tracemalloc.get_traced_memory()[1] < len(content) / 10
    tracemalloc.stop()
    assert await real.content(uid, 50 << 20) == content


async def test_flags_are_added_and_others_stay(real: Mailbox) -> None:
    one, two = await stored(real, SENT, mail("1@x"), mail("2@x"))
    await real.flag([one], "\\Flagged")
    await real.flag([one, two], "\\Answered", "$Forwarded")
    briefs = await real.briefs([one, two])
    assert briefs[one].flags - {"\\Recent"} == {"\\Flagged", "\\Answered", "$Forwarded"}
    assert briefs[two].flags - {"\\Recent"} == {"\\Answered", "$Forwarded"}


async def test_mail_is_copied_and_moved(real: Mailbox) -> None:
    one, two = await stored(real, SENT, mail("1@x"), mail("2@x"))
    await real.copy([one], "Müll")
    await real.move([two], "Müll")
    assert await real.since(1, 10) == [one]
    await real.select("Müll")
    assert len(await real.find("1@x")) == len(await real.find("2@x")) == 1


async def test_only_what_is_named_and_deleted_is_expunged(real: Mailbox) -> None:
    one, two, three = await stored(real, SENT, mail("1@x"), mail("2@x"), mail("3@x"))
    await real.flag([one, two], "\\Deleted")
    assert await real.deleted() == [one, two]
    await real.expunge([one, three])
    assert await real.since(1, 10) == [two, three]
    await real.expunge_all()
    assert await real.since(1, 10) == [three]
    assert await real.content(one, 10) is None


@pytest.mark.parametrize("path", ["Nirgends", "INBOX/\ud800", 'a"b', "a\r\n* BYE b", ""])
async def test_a_folder_that_is_not_there_is_said(real: Mailbox, path: str) -> None:
    [uid] = await stored(real, SENT, mail("1@x"))
    for work in (
        lambda: real.append(path, mail("2@x"), date=WHEN),
        lambda: real.copy([uid], path),
        lambda: real.move([uid], path),
    ):
        fault = await refused(work())
        assert (fault.kind, fault.code in ("TRYCREATE", "NONEXISTENT", "CANNOT")) == ("refused", True)
    assert (await refused(real.status(path))).kind == "refused"
    assert (await refused(real.select(path))).kind == "refused"
    assert real.alive


async def test_without_a_folder_nothing_is_searched_for(real: Mailbox) -> None:
    [uid] = await stored(real, SENT, mail("1@x"))
    await refused(real.select("Nirgends"))
    works: list[Callable[[], Awaitable[Any]]] = [
        lambda: real.find("1@x"),
        lambda: real.since(1, 10),
        lambda: real.since(1, 10, 20),
        lambda: real.deleted(),
        lambda: real.content(uid, 10),
        lambda: real.flag([uid], "\\Seen"),
    ]
    for work in works:
        assert (await refused(work())).kind == "refused"
    await real.select(SENT)
    assert await real.find("1@x") == [uid]


async def test_a_folder_can_be_opened_for_reading_alone(real: Mailbox) -> None:
    [uid] = await stored(real, SENT, mail("1@x"))
    selected = await real.select(SENT, readonly=True)
    assert not selected.flags_kept
    assert await real.find("1@x") == [uid]
    await real.status("INBOX")
    await real.select(SENT)
    await real.flag([uid], "\\Seen")


@pytest.mark.parametrize("kind", [Tls.NONE, Tls.IMPLICIT])
async def test_who_waits_learns_of_mail_that_comes(dovecot: Dovecot, kind: Tls) -> None:
    dovecot.empty("ann")
    async with (
        reached(dovecot.imap("ann", kind, verify_certificate=False)) as mailbox,
        reached(dovecot.imap("ann")) as other,
    ):
        await mailbox.select("INBOX")
        waiting = asyncio.create_task(mailbox.idle(PATIENT))
        await other.append("INBOX", mail("1@x"), date=WHEN)
        assert await waiting
        assert await mailbox.since(1, 10) == [1]
        assert not await mailbox.idle(0.05)
        assert await mailbox.since(2, 10) == []


async def test_below_a_prefix_too(dovecot: Dovecot) -> None:
    dovecot.empty("bob")
    async with reached(dovecot.imap("bob")) as mailbox:
        [uid] = await stored(mailbox, "INBOX.Gesendet", mail("1@x"))
        await mailbox.copy([uid], "INBOX.Papierkorb")
        assert (await mailbox.status("INBOX.Papierkorb")).messages == 1


# Odd ways.

PROFILES: list[tuple[Callable[[], dict[str, Any]], str, str]] = [
    (lambda: {}, "Sent", "Trash"),
    (lambda: {"uidplus": False, "move": False, "idle": False}, "Sent", "Trash"),
    (lambda: {"store": Labels(GMAIL)}, "[Gmail]/Sent Mail", "[Gmail]/Trash"),
    (lambda: {"store": Labels(GMAIL_GERMAN)}, "[Google Mail]/Gesendet", "[Google Mail]/Entwürfe"),
    (lambda: {"store": Store(EXCHANGE, lag=100, rewrite=True)}, "Sent Items", "Deleted Items"),
    (lambda: {"layout": FOREIGN}, "日本語/送信済み", 'a "quoted\\" name'),
    (lambda: {"layout": prefixed(), "prefix": "INBOX."}, "INBOX.Sent", "INBOX.Trash"),
    (lambda: {"searching": "words"}, "Sent", "Trash"),
    (lambda: {"searching": "ignored"}, "Sent", "Trash"),
    (lambda: {"searching": "unknown"}, "Sent", "Trash"),
]


@pytest.mark.parametrize(("profile", "sent", "trash"), PROFILES)
async def test_mail_is_stored_found_and_copied_everywhere(
    profile: Callable[[], dict[str, Any]], sent: str, trash: str
) -> None:
    async with odd(**profile()) as (server, mailbox):
        # Given a server that speaks of other mail before each answer: flags without a UID, and with one
        server.chatter = ["* 1 FETCH (FLAGS (\\Draft))", "* 2 FETCH (UID 2 FLAGS (\\Draft))", "* OK [ALERT] so many"]
        server.put(sent, mail("other@x"))
        place = await mailbox.append(sent, mail("1@x", "Grüße"), flags=["\\Seen"], date=WHEN)
        selected = await mailbox.select(sent)
        assert (selected.exists, selected.uidnext) == (2, 3)
        assert place == (Appended(selected.uidvalidity, 2) if "UIDPLUS" in mailbox.capabilities else None)
        assert await mailbox.find("<1@x>") == [2]
        assert (await mailbox.briefs([2]))[2].date == WHEN
        assert list(await mailbox.headers([1, 2], ["Subject"])) == [1, 2]
        assert (await mailbox.content(2, 9999) or b"").endswith("\r\n\r\nGrüße\r\n".encode())
        await mailbox.copy([2], trash)
        await mailbox.select(trash)
        assert await mailbox.find("1@x") == [1]


async def test_flags_told_of_other_mail_are_not_taken_for_this() -> None:
    # Given mail whose sequence numbers are other mails' UIDs
    async with odd() as (server, mailbox):
        for number in range(4):
            server.put("INBOX", mail(f"{number}@x"))
        server.folder("INBOX").remove(1)
        server.folder("INBOX").remove(2)
        await mailbox.select("INBOX")
        server.chatter = ["* 2 FETCH (FLAGS (\\Draft))", "* 4 FETCH (FLAGS (\\Draft) RFC822.SIZE 1)"]
        briefs = await mailbox.briefs([2, 3, 4])
        assert {uid: brief.flags for uid, brief in briefs.items()} == {3: frozenset(), 4: frozenset()}


async def test_mail_that_went_and_came_meanwhile_spoils_no_count() -> None:
    async with odd() as (server, mailbox):
        for number in range(10):
            server.put("INBOX", mail(f"{number}@x"))
        await mailbox.select("INBOX")
        # When all but the last four go, and we are told on the way
        for uid in range(1, 7):
            server.folder("INBOX").remove(uid)
        await mailbox.noop()
        assert await mailbox.since(1, 3) == [8, 9, 10]
        server.put("INBOX", mail("new@x"))
        assert await mailbox.since(1, 3) == [8, 9, 10]
        assert await mailbox.since(1, 3) == [9, 10, 11]


async def test_what_was_never_learnt_is_said() -> None:
    async with odd(uidplus=False, move=False, idle=False) as (server, mailbox):
        await mailbox.select("INBOX")
        for work in (mailbox.expunge([1]), mailbox.move([1], "Trash"), mailbox.idle(1)):
            fault = await refused(work)
            assert fault.kind == "unsupported"
        assert mailbox.alive
        assert server.verbs == ["SELECT"]


async def test_gmail_finds_by_its_own_search() -> None:
    async with odd(store=Labels(GMAIL)) as (server, mailbox):
        assert mailbox.gmail
        server.put("[Gmail]/Sent Mail", mail("1@x"))
        await mailbox.select("[Gmail]/All Mail")
        assert await mailbox.find("<1@x>") == [1]
        assert any('X-GM-RAW "rfc822msgid:1@x"' in line for line in server.commands)


@pytest.mark.parametrize("hasty", [True, False])
async def test_gmail_deletes_for_good_in_the_trash_alone(hasty: bool) -> None:
    # Given one mail, sent, and twice the same id where Gmail says so
    async with odd(store=Labels(GMAIL, dedupe=True, hasty=hasty)) as (server, mailbox):
        server.put("[Gmail]/Sent Mail", mail("1@x"))
        again = await mailbox.append("[Gmail]/Sent Mail", mail("1@x", "other"), date=WHEN)
        assert again == Appended(server.folder("[Gmail]/Sent Mail").uidvalidity, 1)
        # When it is deleted under its label, it stays in All Mail
        await mailbox.select("[Gmail]/Sent Mail")
        await mailbox.flag([1], "\\Deleted")
        await mailbox.expunge([1])
        assert server.mails("[Gmail]/Sent Mail") == []
        assert len(server.mails("[Gmail]/All Mail")) == 1
        # When it is copied to the trash, and deleted there, it is nowhere
        await mailbox.select("[Gmail]/All Mail")
        await mailbox.copy([1], "[Gmail]/Trash")
        assert server.mails("[Gmail]/All Mail") == []
        await mailbox.select("[Gmail]/Trash")
        await mailbox.flag([1], "\\Deleted")
        await mailbox.expunge([1])
        assert server.mails("[Gmail]/Trash") == []


async def test_100_000_mails_cost_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    received = 0

    def counted(wire: imapwire.Wire, size: int, cut: Any = imapwire.Wire._cut) -> bytes:
        nonlocal received
        received += size
        return bytes(cut(wire, size))

    async with odd(store=Store(PLAIN, crowd=100_000)) as (_, mailbox):
        monkeypatch.setattr(imapwire.Wire, "_cut", counted)
        assert (await mailbox.select("INBOX")).exists == 100_000
        assert await mailbox.since(1, 3) == [99_998, 99_999, 100_000]
        assert await mailbox.since(100_000, 500) == [100_000]
        assert len(await mailbox.headers([100_000], ["Subject"])) == 1
        assert await mailbox.find("7@crowd") == [7]
        assert received < 20_000


async def test_a_server_that_finds_everything_is_looked_at_no_further_than_some() -> None:
    async with odd(store=Store(PLAIN, crowd=5000), searching="ignored") as (server, mailbox):
        await mailbox.select("INBOX")
        assert await mailbox.find("4999@crowd") == [4999]
        assert len(server.verbs) < 10


async def test_other_uidvalidity_shows_when_the_folder_is_selected_again() -> None:
    async with odd() as (server, mailbox):
        server.put("Sent", mail("1@x"))
        before = await mailbox.select("Sent")
        server.renumber("Sent")
        assert (await mailbox.status("Sent")).uidvalidity != before.uidvalidity
        assert (await mailbox.select("Sent")).uidvalidity != before.uidvalidity


async def test_a_folder_without_uidnext_is_told_it_by_its_last_mail() -> None:
    async with odd() as (server, mailbox):
        server.put("Sent", mail("1@x"))
        server.put("Sent", mail("2@x"))
        server.when("SELECT").say("* 2 EXISTS\r\n* OK [UIDVALIDITY 5] v\r\n{tag} OK selected")
        server.when("FETCH").say("* 2 FETCH (UID 77)\r\n{tag} OK done")
        assert (await mailbox.select("Sent")).uidnext == 78


async def test_a_folder_may_refuse_flags_of_ones_own() -> None:
    answer = "* 0 EXISTS\r\n* OK [UIDVALIDITY 5] v\r\n* OK [UIDNEXT 1] n\r\n* OK [PERMANENTFLAGS ({flags})] f\r\n"
    async with odd() as (server, mailbox):
        for flags, kept in ((r"\Seen", False), (r"\Seen \*", True), (r"\Seen $Forwarded", True)):
            server.when("SELECT").say(answer.replace("{flags}", flags) + "{tag} OK selected")
            assert (await mailbox.select("Sent")).flags_kept is kept


async def test_a_late_copy_is_found_when_it_is_there() -> None:
    async with odd(store=Store(EXCHANGE, lag=100)) as (server, mailbox):
        server.later(6, "Sent Items", mail("1@x"))
        await mailbox.select("Sent Items")
        looks = [await mailbox.find("1@x") for _ in range(4)]
        assert looks == [[], [], [1], [1]]


@pytest.mark.parametrize("after", [False, True])
async def test_a_connection_that_dies_leaves_done_what_was_done(after: bool) -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        mood = server.when_done("*") if after else server.when("*")
        mood.drop()
        assert (await refused(mailbox.append("Sent", mail("1@x"), date=WHEN))).kind == "lost"
        assert len(server.mails("Sent")) == after


# Refusals.


async def test_no_room_and_no_folder_are_told_by_their_codes() -> None:
    async with odd(quota=1000) as (_, mailbox):
        fault = await refused(mailbox.append("Sent", mail("1@x", "x" * 1000), date=WHEN))
        assert (fault.step, fault.kind, fault.code) == ("append", "refused", "OVERQUOTA")
        fault = await refused(mailbox.append("Nowhere", mail("1@x"), date=WHEN))
        assert (fault.step, fault.kind, fault.code) == ("append", "refused", "TRYCREATE")
        assert await mailbox.append("Sent", mail("1@x"), date=WHEN)


@pytest.mark.parametrize("more", ["APPENDLIMIT=100", "APPENDLIMIT", ""])
async def test_mail_that_is_too_large_is_not_said_to_a_server_that_says_so(more: str) -> None:
    async with odd(more=more, biggest=100) as (server, mailbox):
        fault = await refused(mailbox.append("Sent", mail("1@x", "x" * 1000), date=WHEN))
        assert (fault.kind, fault.code) == ("refused", "TOOBIG")
        assert ("APPEND" in server.verbs) is (not more)
        assert await mailbox.append("Sent", b"A: b\r\n\r\n", date=WHEN)


async def test_a_folder_without_a_limit_of_its_own_takes_what_comes() -> None:
    async with odd(more="APPENDLIMIT") as (_, mailbox):
        assert await mailbox.append("Sent", mail("1@x"), date=WHEN)


async def test_nothing_in_a_name_a_flag_or_a_mail_is_a_command() -> None:
    evil = '"\r\nz1 DELETE "INBOX'
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        works = (
            mailbox.append(evil, b"x", date=WHEN),
            mailbox.copy([1], evil),
            mailbox.status(evil),
            mailbox.flag([1], "\\Seen)\r\nz1 DELETE INBOX ("),
            mailbox.headers([1], ["Subject)]\r\nz1 DELETE INBOX"]),
            mailbox.append("Sent", b"x", flags=["a b"], date=WHEN),
            mailbox.select(evil),
        )
        for work in works:
            assert (await refused(work)).kind == "refused"
        await mailbox.append("Sent", b"\r\nz1 DELETE INBOX\r\n.\r\n{3}\r\n", date=WHEN)
        assert not [verb for verb in server.verbs if verb == "DELETE"]
        assert server.mails("Sent")[0].content == b"\r\nz1 DELETE INBOX\r\n.\r\n{3}\r\n"


async def test_a_name_that_came_in_no_utf7_is_said_as_it_came() -> None:
    async with odd() as (server, mailbox):
        server.when("LIST").say('* LIST () "/" "Entwürfe"\r\n* LIST () "/" "A & B"\r\n{tag} OK done')
        paths = [folder.path for folder in await mailbox.folders()]
        assert paths[0] == "Entwürfe"
        for path in paths:
            await refused(mailbox.status(path))
        assert [line for line in server.commands if line.startswith("STATUS")] == [
            'STATUS "Entwürfe" (UIDVALIDITY UIDNEXT MESSAGES)',
            'STATUS "A & B" (UIDVALIDITY UIDNEXT MESSAGES)',
        ]


# Hostile answers.


async def asked(mailbox: Mailbox, verb: str) -> None:
    """One command after the other, this one among them."""
    await mailbox.folders()
    await mailbox.status("INBOX")
    await mailbox.select("INBOX")
    await mailbox.find("1@x")
    await mailbox.since(1, 5)
    await mailbox.headers([1])
    await mailbox.append("Sent", mail("2@x"), date=WHEN)
    await mailbox.flag([1], "\\Seen")
    await mailbox.copy([1], "Trash")
    await mailbox.move([1], "Trash")
    await mailbox.expunge([1])
    await mailbox.noop()
    await mailbox.since(1, 5)
    await mailbox.idle(PATIENT if verb == "IDLE" else 0.01)


VERBS = ("LIST", "STATUS", "SELECT", "SEARCH", "FETCH", "APPEND", "STORE", "COPY", "MOVE", "EXPUNGE", "NOOP", "IDLE")


@pytest.mark.parametrize("how", ["bye", "drop", "hang", "literal", "endless", "drip", "nonsense"])
@pytest.mark.parametrize("verb", VERBS)
async def test_no_command_outlasts_a_server_that_ends_hangs_or_raves(verb: str, how: str) -> None:
    async with MailboxServer() as server:
        server.put("INBOX", mail("1@x"))
        async with reached(server.imap(), PATIENT if how in ("bye", "drop", "nonsense") else HASTY) as mailbox:
            mood = server.when(verb)
            match how:
                case "bye":
                    mood.say("* BYE [UNAVAILABLE] closing").close()
                case "nonsense":
                    mood.say("HTTP/1.1 400 Bad Request")
                case "drip":
                    mood.drip(0.01)
                case _:
                    getattr(mood, how)()
            fault = await refused(asked(mailbox, verb))
            assert fault.kind in ("lost", "protocol")
            assert not mailbox.alive
            # Then nothing more is said over it, and it is said why
            assert (await refused(mailbox.status("INBOX"))).kind == "lost"
    await until(lambda: not any(thread.name.startswith("imap") for thread in threading.enumerate()))


@pytest.mark.parametrize("verb", VERBS)
async def test_a_refusal_of_any_command_is_told_and_leaves_the_connection(verb: str) -> None:
    async with MailboxServer() as server:
        server.put("INBOX", mail("1@x"))
        async with reached(server.imap()) as mailbox:
            server.when(verb).say("{tag} NO [UNAVAILABLE] not now")
            fault = await refused(asked(mailbox, verb))
            assert (fault.kind, fault.code, fault.said) == ("refused", "UNAVAILABLE", "[UNAVAILABLE] not now")
            assert mailbox.alive
            server.calm()
            await mailbox.select("INBOX")
            assert await mailbox.find("1@x") in ([1], [])


ODD = [
    ("SELECT", "* x EXISTS\r\n* OK [UIDVALIDITY abc] v"),
    ("SELECT", "* 1 EXISTS\r\n* OK [UIDVALIDITY -1] v\r\n* OK [UIDNEXT 1] n"),
    ("SELECT", f"* {'9' * 5000} EXISTS\r\n* OK [UIDVALIDITY 1] v"),
    ("STATUS", "* STATUS INBOX (UIDVALIDITY x UIDNEXT 1 MESSAGES 1)"),
    ("STATUS", "* STATUS INBOX"),
    ("STATUS", "* STATUS"),
    ("STATUS", ""),
    ("STATUS", "* STATUS INBOX (UIDVALIDITY (1) UIDNEXT 1 MESSAGES 1)"),
    ("SEARCH", "* SEARCH one two"),
    ("SEARCH", "* SEARCH 0"),
    ("SEARCH", f"* SEARCH {'9' * 30}"),
    ("SEARCH", "* SEARCH {3}\r\nabc"),
]


@pytest.mark.parametrize(("verb", "answer"), ODD)
async def test_an_answer_that_makes_no_sense_is_no_answer(verb: str, answer: str) -> None:
    async with MailboxServer() as server:
        server.put("INBOX", mail("1@x"))
        async with reached(server.imap()) as mailbox:
            server.when(verb).say(answer + "\r\n{tag} OK done" if answer else "{tag} OK done")
            assert (await refused(asked(mailbox, verb))).kind == "protocol"


FETCHED = [
    ("", {}),
    ("* 1 FETCH", {}),
    ("* 1 FETCH ()", {}),
    ("* 1 FETCH (UID x RFC822.SIZE 5 FLAGS ())", {}),
    ("* 1 FETCH (UID 1 RFC822.SIZE five FLAGS ())", {}),
    ("* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS NIL)", {}),
    ("* 1 FETCH (UID 1 RFC822.SIZE 5", {}),
    ('* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS () INTERNALDATE "one day")', {1: 1970}),
    ("* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS () INTERNALDATE {3}\r\nabc)", {1: 1970}),
    ('* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS () INTERNALDATE "31-Dec-9999 23:59:59 -2359")', {1: 1970}),
    ('* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS () INTERNALDATE " 4-Mar-2026 05:06:07 +0000")', {1: 2026}),
    (
        '* 1 FETCH (UID 1 RFC822.SIZE 5) \r\n* 1 FETCH (UID 1 FLAGS () INTERNALDATE "04-Mar-2026 05:06:07 +0000")',
        {1: 2026},
    ),
    ('* 9 FETCH (((((("\r\n* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS ())', {1: 1970}),
]


@pytest.mark.parametrize(("answer", "years"), FETCHED)
async def test_of_what_is_told_of_mail_the_good_is_taken(answer: str, years: dict[int, int]) -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        server.when("FETCH").say(answer + "\r\n{tag} OK done" if answer else "{tag} OK done")
        assert {uid: brief.date.year for uid, brief in (await mailbox.briefs([1])).items()} == years


async def test_a_server_that_gives_more_than_was_asked_for_is_cut_short() -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        server.when("FETCH").say("* 1 FETCH (UID 1 BODY[] {26}\r\nabcdefghijklmnopqrstuvwxyz)\r\n{tag} OK done")
        assert await mailbox.content(1, 3) == b"abc"
        server.when("FETCH").say("* 1 FETCH (UID 1 BODY[]<0> NIL)\r\n{tag} OK done")
        assert await mailbox.content(1, 3) == b""
        server.when("FETCH").say("* 1 FETCH (UID 1 BODY[] {99999999}\r\nabc")
        assert (await refused(mailbox.content(1, 3))).kind == "protocol"


async def test_mail_that_went_away_is_left_out_where_the_server_says_no_to_the_rest() -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        server.when("FETCH").say("* 1 FETCH (UID 1 BODY[HEADER] {3}\r\nA:b)\r\n{tag} NO [EXPUNGEISSUED] one is gone")
        assert await mailbox.headers([1, 2]) == {1: b"A:b"}


async def test_an_answer_in_several_lines_is_one() -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        server.when("SEARCH").say("* SEARCH 3 1\r\n* SEARCH\r\n* SEARCH 2\r\n{tag} OK done")
        assert await mailbox.since(1, 5) == [1, 2, 3]


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("[APPENDUID 7 9] done", Appended(7, 9)),
        ("[APPENDUID 0 9] done", None),
        ("[APPENDUID 7 1:2] done", None),
        ("[APPENDUID 7", None),
        ("[ALERT] done", None),
        ("", None),
    ],
)
async def test_where_a_mail_was_stored_is_believed_when_it_can_be(said: str, place: Appended | None) -> None:
    async with odd() as (server, mailbox):
        server.when_done("APPEND").say("{tag} OK " + said)
        assert await mailbox.append("Sent", mail("1@x"), date=WHEN) == place
        assert len(server.mails("Sent")) == 1


# Waiting.


async def idling(server: MailboxServer) -> None:
    await until(lambda: server.verbs[-1:] == ["IDLE"])


async def test_what_came_before_the_wait_ends_it_at_once() -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        assert await mailbox.since(1, 5) == []
        # Given mail that is told of in the answer to something else
        server.put("INBOX", mail("1@x"))
        await mailbox.status("Sent")
        assert await mailbox.idle(PATIENT)
        assert "IDLE" not in server.verbs
        # Then it is told of once
        assert not await mailbox.idle(0.01)


async def test_what_is_said_before_the_wait_begins_is_no_refusal() -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        server.when("IDLE").say("* 7 EXISTS\r\n+ idling").usual()
        assert await mailbox.idle(PATIENT)
        assert await mailbox.since(1, 5) == []


async def test_a_server_that_ends_the_wait_by_itself_is_let() -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        server.when("IDLE").say("+ idling\r\n* OK still here\r\n{tag} OK enough")
        assert not await mailbox.idle(PATIENT)
        await mailbox.noop()
        assert "DONE" not in server.commands


async def test_flags_of_other_mail_end_no_wait() -> None:
    async with odd() as (server, mailbox):
        server.put("INBOX", mail("1@x"))
        await mailbox.select("INBOX")
        server.when("IDLE").say("+ idling\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* 1 EXISTS").usual()
        assert not await mailbox.idle(0.1)
        assert await mailbox.since(1, 5) == [1]


async def test_a_wait_that_is_cancelled_ends_the_connection() -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        waiting = asyncio.create_task(mailbox.idle(PATIENT))
        await idling(server)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not mailbox.alive
        await until(lambda: server.open == 0)
    await until(lambda: not any(thread.name.startswith("imap") for thread in threading.enumerate()))


async def test_a_server_that_goes_away_ends_the_wait() -> None:
    async with odd() as (server, mailbox):
        await mailbox.select("INBOX")
        waiting = asyncio.create_task(mailbox.idle(PATIENT))
        await idling(server)
        await server.stop()
        assert (await refused(waiting)).kind == "lost"


async def test_a_wait_is_not_longer_than_servers_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.net import imapidle

    assert imapidle.LONGEST <= 29 * 60
    monkeypatch.setattr(imapidle, "LONGEST", 0.01)
    async with odd() as (_, mailbox):
        await mailbox.select("INBOX")
        assert not await mailbox.idle(86400.0)


async def test_an_answer_of_nothing_but_small_lines_ends_before_they_fill_the_memory() -> None:
    """Given room for the headers of a hundred mails, and an answer that has none of them."""
    async with odd() as (server, mailbox):
        await stored(mailbox, "INBOX")
        server.when("FETCH").say("* 1 FETCH ()\r\n" * (imapwire.MOST_BYTES // 14 + 1) + "{tag} OK done")
        with pytest.raises(MailboxError, match="without end") as caught:
            await mailbox.headers(range(1, 101))
    assert caught.value.kind == "protocol"


async def test_a_long_answer_to_a_search_takes_little_memory() -> None:
    """Some tell of a MODSEQ behind it (RFC 7162)."""
    async with odd() as (server, mailbox):
        await stored(mailbox, "INBOX", mail("1@x"))
        told = "1 " * 200_000
        server.when("SEARCH").say(f"* SEARCH {told}2 (MODSEQ 917162500)\r\n{{tag}} OK done")
        tracemalloc.start()
        assert await mailbox.deleted() == [1, 2]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10 * len(told)


async def test_a_literal_among_flags_is_no_imap() -> None:
    async with odd() as (server, mailbox):
        server.when("SELECT").say("* FLAGS ({3}\r\nabc)\r\n{tag} OK done")
        with pytest.raises(MailboxError, match="does not speak IMAP") as caught:
            await mailbox.select("INBOX")
    assert (caught.value.step, caught.value.kind) == ("select", "protocol")
