"""The Sent copy on bad days, and with other people's servers: whatever happens, one clean copy is left in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from relay import copies
from relay.core import copytext
from relay.settings import Settings
from relay.store import db, sentcopies
from tests.copying import Desk, message, theirs
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import (
    EXCHANGE,
    FOREIGN,
    GMAIL,
    GMAIL_GERMAN,
    PLAIN,
    UNFLAGGED,
    WRONG,
    Labels,
    Mail,
    Store,
    prefixed,
)
from tests.faulty import once

LATE = {"copy_looks": (3600.0, 3600.0)}


@asynccontextmanager
async def at_work(
    server: MailboxServer, pool: db.Pool, settings: Settings, **account: Any
) -> AsyncIterator[tuple[MailboxServer, Desk]]:
    async with server:
        desk = Desk(pool, settings, server.imap())
        await desk.account(**account)
        yield server, desk


def clean(mail: Mail) -> bool:
    return not copytext.pixels(mail.content)


def standing(server: MailboxServer, path: str = "Sent") -> list[Mail]:
    r"""What a person sees there: not what is \Deleted."""
    folder = server.folder(path)
    return [folder.mail(uid) for uid in folder.uids if "\\Deleted" not in folder.flags(uid)]


def the_one(server: MailboxServer, path: str = "Sent") -> Mail:
    """There is one, it is clean and read."""
    (mail,) = standing(server, path)
    assert clean(mail)
    assert "\\Seen" in mail.flags
    return mail


# -- The provider files ---------------------------------------------------------------------------------------------


async def test_the_provider_s_copy_with_a_pixel_gives_way_to_ours(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        assert the_one(server).content == message().replace(b"<ann@example.com>", b"<ann@corp.example>")
        assert server.mails("Trash") == []
        assert await desk.state() == "done"
        assert await desk.files() is True


OUTLOOKS = "<AM0PR0102@AM0PR01.eurprd01.prod.outlook.com>"
OUTLOOK_SAYS = f"OK {OUTLOOKS} [Hostname=AM0PR01.eurprd01.prod.outlook.com]"


async def test_a_copy_that_the_provider_gave_another_message_id_gives_way(pool: db.Pool, settings: Settings) -> None:
    """As Outlook.com does, whose reply tells it."""
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(reply=OUTLOOK_SAYS)
        server.put("Sent", theirs(message()).replace(b"<1@example.com>", OUTLOOKS.encode()))
        await desk.work()
        assert b"Message-ID: <1@example.com>" in the_one(server).content
        assert await desk.files() is True


async def test_no_other_mail_goes_for_what_a_reply_says(pool: db.Pool, settings: Settings) -> None:
    """Given an upstream that calls what it took by the name of another mail, of the same minute."""
    other = message("other@example.com").replace(b"Subject: Hello", b"Subject: Another")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        server.put("Sent", other)
        await desk.send(reply="OK <other@example.com> [Hostname=mx.example.com]")
        await desk.work()
        assert sorted(mail.content for mail in standing(server)) == sorted([message(), other])


async def test_one_for_each_recipient_give_way_to_ours(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(None, "bo@x.example", "cy@x.example", "di@x.example")
        for number in range(3):
            server.put("Sent", theirs(message(), number))
        await desk.work()
        the_one(server)


async def test_a_hundred_and_fifty_give_way_to_ours(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        for number in range(150):
            server.put("Sent", theirs(message(), number))
        await desk.work()
        the_one(server)


async def test_without_pixel_and_bcc_the_provider_s_copy_is_as_good(pool: db.Pool, settings: Settings) -> None:
    plain = message(kind="text/plain", text="Hi")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(plain)
        server.put("Sent", theirs(plain))
        await desk.work()
        assert the_one(server).content == theirs(plain)
        assert "APPEND" not in server.verbs


async def test_without_bcc_in_it_the_provider_s_copy_gives_way(pool: db.Pool, settings: Settings) -> None:
    plain = message(kind="text/plain", text="Hi")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(plain, bcc=("eve@example.net",))
        server.put("Sent", theirs(plain))
        await desk.work()
        assert b"Bcc: eve@example.net\r\n" in the_one(server).content


async def test_what_the_sender_quotes_is_no_pixel_of_this_message(pool: db.Pool, settings: Settings) -> None:
    quoted = message(text=f"<html><body>you wrote: <img src='http://x/t/{'Q' * 32}.gif'></body></html>")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(quoted)
        server.put("Sent", theirs(quoted))
        await desk.work()
        (mail,) = standing(server)
        assert copytext.pixels(mail.content) == {b"Q" * 32}


async def test_a_late_copy_is_looked_for_and_replaced_in_the_provider_s_words(
    pool: db.Pool, settings: Settings
) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        await desk.work(**LATE)
        assert the_one(server).content == message()
        server.put("Sent", theirs(message()))
        await desk.due()
        await desk.work(**LATE)
        assert the_one(server).content == message().replace(b"<ann@example.com>", b"<ann@corp.example>")
        assert await desk.files() is True
        assert await desk.state() == "done"


async def test_a_provider_that_never_files_is_learned_and_not_waited_for(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        for _ in range(3):
            await desk.work(**LATE)
            await desk.due()
        assert await desk.files() is False
        await desk.send(message("2@example.com"))
        await desk.work(**LATE)
        assert await desk.rows("select count(*) from sent_copies where due_at is null") == [(2,)]
        assert len(standing(server)) == 2


async def test_a_provider_that_files_is_waited_for_and_doubted_in_the_end(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.rows("update mailboxes set files = true returning 1")
        await desk.send()
        await desk.work(**LATE)
        assert (standing(server), await desk.state()) == ([], "owed")
        for _ in range(2):
            await desk.due()
            await desk.work(**LATE)
        the_one(server)
        assert (await desk.state(), await desk.files()) == ("done", None)


async def test_of_a_provider_that_filed_one_missing_copy_says_nothing_and_a_second_that_it_does_no_more(
    pool: db.Pool, settings: Settings
) -> None:
    """Its owner may have taken the first away."""
    async with at_work(MailboxServer(), pool, settings) as (_, desk):
        await desk.rows("update mailboxes set files = true returning 1")
        for id, learned in (("1@example.com", None), ("2@example.com", False)):
            await desk.send(message(id))
            for _ in range(3):
                await desk.work(**LATE)
                await desk.due()
            assert await desk.files() is learned


async def test_ours_that_its_owner_moved_away_is_not_written_again(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        await desk.work(**LATE)
        server.folder("Sent").remove(server.folder("Sent").uids[0])
        for _ in range(2):
            await desk.due()
            await desk.work(**LATE)
        assert server.mails("Sent") == []
        assert await desk.state() == "done"


async def test_append_leaves_the_provider_s_alone(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings, copy="append") as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        assert [clean(mail) for mail in standing(server)] == [False, True]
        assert await desk.state() == "done"


async def test_a_mailbox_that_cannot_be_searched_is_looked_through(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(searching="ignored"), pool, settings) as (server, desk):
        server.put("Sent", message("other@example.com"))
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        other, ours = standing(server)
        assert (other.content, clean(ours)) == (message("other@example.com"), True)


# -- Gmail ----------------------------------------------------------------------------------------------------------

SENT, TRASH, EVERYTHING = "[Gmail]/Sent Mail", "[Gmail]/Trash", "[Gmail]/All Mail"


@pytest.mark.parametrize("move", [True, False])
async def test_gmail_s_copies_are_deleted_in_trash(pool: db.Pool, settings: Settings, move: bool) -> None:
    async with at_work(MailboxServer(store=Labels(GMAIL), move=move), pool, settings) as (server, desk):
        await desk.send()
        server.put(SENT, theirs(message()))
        mine = server.put(TRASH, theirs(message("9@example.com")))
        await desk.work()
        ours = the_one(server, SENT)
        assert server.folder(TRASH).uids == [mine]
        assert server.mails(EVERYTHING) == [ours]


async def test_gmail_s_copy_without_the_label_is_found_among_all_mail(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(store=Labels(GMAIL)), pool, settings) as (server, desk):
        await desk.send()
        server.put(EVERYTHING, theirs(message()))
        await desk.work()
        ours = the_one(server, SENT)
        assert b"ann@corp.example" in ours.content
        assert (server.mails(EVERYTHING), server.mails(TRASH)) == ([ours], [])


async def test_what_the_sender_received_himself_stays_in_his_inbox(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(store=Labels(GMAIL)), pool, settings) as (server, desk):
        await desk.send()
        server.put(SENT, theirs(message()))
        server.store.copy(server.folder(SENT), server.folder(SENT).uids, server.folder("INBOX"))
        await desk.work()
        the_one(server, SENT)
        assert [clean(mail) for mail in server.mails("INBOX")] == [False]
        assert server.mails(TRASH) == []


async def test_what_was_received_and_sorted_away_stays_among_all_mail(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(store=Labels(GMAIL)), pool, settings) as (server, desk):
        await desk.send()
        server.put(EVERYTHING, b"Delivered-To: ann@example.com\r\n" + theirs(message()))
        await desk.work()
        assert len(server.mails(EVERYTHING)) == 2


@pytest.mark.parametrize("hasty", [True, False])
async def test_a_gmail_that_takes_ours_for_the_one_it_has_ends_with_ours(
    pool: db.Pool, settings: Settings, hasty: bool
) -> None:
    server = MailboxServer(store=Labels(GMAIL_GERMAN, dedupe=True, hasty=hasty))
    async with at_work(server, pool, settings) as (_, desk):
        await desk.send(None, bcc=("eve@example.net",))
        server.put("[Google Mail]/Gesendet", theirs(message()))
        await desk.work()
        assert b"ann@corp.example" in the_one(server, "[Google Mail]/Gesendet").content
        assert server.mails("[Google Mail]/Papierkorb") == []
        assert len(server.mails("[Google Mail]/Alle Nachrichten")) == 1


# -- Exchange, and servers that never learnt much -------------------------------------------------------------------


async def test_exchange_finds_late_and_rewrites_and_still_has_one(pool: db.Pool, settings: Settings) -> None:
    server = MailboxServer(store=Store(EXCHANGE, lag=60, rewrite=True))
    async with at_work(server, pool, settings) as (_, desk):
        await desk.send(None, bcc=("eve@example.net",))
        server.put("Sent Items", theirs(message()))
        for _ in range(3):
            await desk.work(**LATE)
            await desk.due()
        assert b"Bcc: eve@example.net" in the_one(server, "Sent Items").content


async def test_ours_that_no_search_finds_is_known_by_its_place(pool: db.Pool, settings: Settings) -> None:
    server = MailboxServer(store=Store(EXCHANGE, lag=10_000))
    async with at_work(server, pool, settings) as (_, desk):
        await desk.send(None, "bo@x.example", "cy@x.example")
        server.put("Sent Items", theirs(message(), 1))
        await desk.work(**LATE)
        for number in range(60):
            server.put("Sent Items", message(f"other-{number}@example.com"))
        server.put("Sent Items", theirs(message(), 2))
        await desk.due()
        await desk.work(**LATE)
        assert [mail.field("Message-ID") for mail in standing(server, "Sent Items")].count("<1@example.com>") == 1
        assert server.verbs.count("APPEND") == 1


async def test_a_server_that_rewrites_the_addresses_of_ours_keeps_the_one(pool: db.Pool, settings: Settings) -> None:
    class Rewriting(Store):
        def append(self, folder: Any, mail: Mail) -> int:
            mail.content = mail.content.replace(b"From: Ann", b'From: "Ann"')
            return super().append(folder, mail)

    async with at_work(MailboxServer(store=Rewriting(PLAIN)), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        for _ in range(3):
            await desk.work(**LATE)
            await desk.due()
        the_one(server)
        assert server.verbs.count("APPEND") == 1


async def test_without_uidplus_it_is_moved_to_trash(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(uidplus=False), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        his = server.put("Sent", message("his@example.com"), ["\\Deleted"])
        server.folder("Sent").deleted.add(his)
        await desk.work()
        the_one(server)
        assert len(server.mails("Trash")) == 1
        assert server.folder("Sent").holds(his)


async def test_without_uidplus_and_move_it_is_expunged_when_nothing_else_is_deleted(
    pool: db.Pool, settings: Settings
) -> None:
    async with at_work(MailboxServer(uidplus=False, move=False), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        assert server.mails("Sent") == [the_one(server)]


async def test_what_its_owner_has_deleted_is_never_expunged(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(uidplus=False, move=False), pool, settings) as (server, desk):
        await desk.send()
        uid = server.put("Sent", theirs(message()))
        his = server.put("Sent", message("his@example.com"))
        server.folder("Sent").deleted.add(his)
        for _ in range(3):
            await desk.work(**LATE)
            await desk.due()
        assert server.folder("Sent").holds(his)
        assert "EXPUNGE" not in server.verbs
        assert server.flags("Sent", uid) >= {"\\Deleted"}
        the_one(server)


async def test_a_folder_is_made_where_there_is_none(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(layout=[("INBOX", "")]), pool, settings) as (server, desk):
        await desk.send()
        await desk.send(message("2@example.com"))
        await desk.work()
        assert len(standing(server, "Sent")) == 2


async def test_a_folder_is_made_below_inbox_where_all_others_are(pool: db.Pool, settings: Settings) -> None:
    layout = prefixed([("INBOX", ""), ("Archive", "")])
    async with at_work(MailboxServer(layout=layout, prefix="INBOX."), pool, settings) as (server, desk):
        await desk.send()
        await desk.work()
        the_one(server, "INBOX.Sent")


LAYOUTS: dict[str, tuple[Callable[[], MailboxServer], str]] = {
    "no special uses": (lambda: MailboxServer(layout=UNFLAGGED), "Sent"),
    "wrong special uses": (lambda: MailboxServer(layout=WRONG), "Sent"),
    "folders beyond ASCII": (lambda: MailboxServer(layout=FOREIGN), "Отправленные"),
    "all below a prefix": (lambda: MailboxServer(layout=prefixed(), prefix="INBOX."), "INBOX.Sent"),
    "100,000 mails": (lambda: MailboxServer(store=Store(PLAIN, crowd=100_000)), "Sent"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
async def test_odd_mailboxes_have_one_where_sent_mail_is(pool: db.Pool, settings: Settings, kind: str) -> None:
    make, path = LAYOUTS[kind]
    async with at_work(make(), pool, settings) as (server, desk):
        await desk.send(bcc=("eve@example.net",))
        server.put(path, theirs(message()))
        server.put("INBOX", b"Subject: hi\r\n\r\n")
        await desk.work()
        assert b"Bcc: eve@example.net" in the_one(server, path).content
        others = [one for one in server.store.folders if one not in (path, "INBOX")]
        assert [one for one in others if server.folder(one).uids] == []
        assert server.mails("INBOX")[-1].content == b"Subject: hi\r\n\r\n"


async def test_the_message_s_own_folder_counts_and_the_provider_s_copy_goes(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(None, sent_mail_path="Shop/Sent")
        server.put("Sent", theirs(message()))
        await desk.work()
        the_one(server, "Shop/Sent")
        assert server.mails("Sent") == []


# -- Bad days -------------------------------------------------------------------------------------------------------


async def test_a_full_mailbox_keeps_the_provider_s_copy_and_gets_ours_when_there_is_room(
    pool: db.Pool, settings: Settings
) -> None:
    async with at_work(MailboxServer(quota=10), pool, settings) as (server, desk):
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        assert [clean(mail) for mail in standing(server)] == [False]
        assert "no room is left" in await desk.error()
        server.quota = None
        await desk.due()
        await desk.work()
        the_one(server)


async def test_a_server_that_stores_half_of_it_keeps_the_provider_s_copy(pool: db.Pool, settings: Settings) -> None:
    """And once it stores all of it there is one, and that is whole."""
    long = message(text=f"<html><body>{'<p>Hi</p>' * 2000}</body></html>")
    async with at_work(MailboxServer(store=Store(PLAIN, keeps=1000)), pool, settings) as (server, desk):
        await desk.send(long, bcc=("eve@example.net",))
        server.put("Sent", theirs(long))
        for _ in range(3):
            await desk.work()
            assert "as it was written" in await desk.error()
            assert theirs(long) in [mail.content for mail in server.mails("Sent")]
            await desk.due()
        server.store.keeps = None
        await desk.work()
        assert len(the_one(server).content) > len(long)


async def test_a_copy_that_is_given_up_says_so_once(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(quota=10), pool, settings) as (server, desk):
        id = await desk.send()
        server.put("Sent", theirs(message()))
        for _ in range(3):
            await desk.work(copy_retries=(3600.0,))
            await desk.due()
        assert len(standing(server)) == 1
        (event,) = await desk.events()
        assert event["messageId"] == "<1@example.com>"
        assert (event["queueId"], event["attempts"]) == (id.hex, 2)
        assert "no room is left" in event["error"]
        assert await desk.state() == "failed"


@pytest.mark.parametrize("damage", ["update bodies set packed = 'x'", "delete from bodies"])
async def test_one_whose_content_is_damaged_is_given_up_at_once_and_the_next_is_made(
    pool: db.Pool, settings: Settings, damage: str
) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        id = await desk.send(message("bad@example.com"))
        await desk.send()
        await desk.rows(f"{damage} where message_id = %s returning 1", id)
        await desk.work()
        assert the_one(server).content == message()
        (event,) = await desk.events()
        assert (event["queueId"], event["attempts"]) == (id.hex, 1)
        assert event["error"] == "the message's content is damaged or kept no more"


async def test_one_that_is_too_large_is_given_up_at_once(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(biggest=10), pool, settings) as (_, desk):
        await desk.send()
        await desk.work()
        assert (await desk.state(), len(await desk.events())) == ("failed", 1)


async def test_one_that_fails_keeps_no_other_back(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(quota=2000), pool, settings) as (server, desk):
        await desk.send(message(text="x" * 5000))
        await desk.send(message("2@example.com"))
        await desk.work()
        assert the_one(server).content == message("2@example.com")


async def test_a_mailbox_that_is_away_is_asked_once_for_all_its_copies(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        server.when("LOGIN").say("{tag} NO [AUTHENTICATIONFAILED] no")
        server.when("AUTHENTICATE").say("{tag} NO [AUTHENTICATIONFAILED] no")
        for number in range(5):
            await desk.send(message(f"{number}@example.com"))
        await desk.work()
        await desk.send(message("new@example.com"))
        await desk.work()
        assert server.connections == 1
        server.calm()
        await desk.due()
        await desk.work()
        assert len(standing(server)) == 6
        assert await desk.events() == []


async def test_a_mailbox_that_is_away_and_back_is_two_lines_of_the_log(
    pool: db.Pool, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "postferry")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        server.when("LOGIN").say("{tag} NO [AUTHENTICATIONFAILED] no")
        server.when("AUTHENTICATE").say("{tag} NO [AUTHENTICATIONFAILED] no")
        await desk.send()
        for _ in range(3):
            await desk.due()
            await desk.work()
        server.calm()
        await desk.due()
        await desk.work()
    lines = [record.getMessage() for record in caplog.records if "Sent copies of a " in record.getMessage()]
    assert [line.partition(":")[0] for line in lines] == [
        "the Sent copies of a wait",
        "the Sent copies of a are written again",
    ]


async def test_a_mailbox_that_is_away_for_too_long_is_given_up(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await server.stop()
        await desk.send()
        await desk.rows("update sent_copies set created_at = now() - interval '2 hours' returning 1")
        await desk.work(copy_retries=(3600.0,))
        assert await desk.state() == "failed"
        assert [event["attempts"] for event in await desk.events()] == [0]


async def test_settings_that_were_mended_are_tried_at_once(pool: db.Pool, settings: Settings) -> None:
    async with at_work(MailboxServer(), pool, settings, imap={"auth": {"user": "ann", "pass": "wrong"}}) as both:
        server, desk = both
        await desk.send()
        await desk.work()
        assert standing(server) == []
        await desk.account()
        await desk.work()
        the_one(server)


async def test_uids_that_mean_other_mail_meanwhile_remove_nothing(pool: db.Pool, settings: Settings) -> None:
    class Renumbering(Store):
        def append(self, folder: Any, mail: Mail) -> int:
            uid = super().append(folder, mail)
            folder.renumber()
            return uid

    async with at_work(MailboxServer(store=Renumbering(PLAIN)), pool, settings) as (server, desk):
        server.put("Sent", message("other@example.com"))
        await desk.send()
        server.put("Sent", theirs(message()))
        await desk.work()
        assert len(standing(server)) == 3
        await desk.due()
        await desk.work()
        assert sorted(clean(mail) for mail in standing(server)) == [True, True]
        assert message("other@example.com") in [mail.content for mail in standing(server)]


async def test_uids_that_change_their_meaning_before_any_select_take_nothing_else_away(
    pool: db.Pool, settings: Settings
) -> None:
    """The folder is made anew and turned round: what was the provider's UID is ours. Never while it is selected."""
    async with AsyncExitStack() as opened:
        servers = [await opened.enter_async_context(MailboxServer()) for _ in range(10)]
        desk = Desk(pool, settings, servers[0].imap())
        selects: list[int] = []
        for number, server in enumerate(servers):
            await desk.account(f"a{number}", at=server.imap())
            await desk.send(message(f"{number}@example.com"), bcc=("eve@example.net",), account=f"a{number}")
            server.put("Sent", theirs(message(f"{number}@example.com")))
            if not number:
                await desk.work()
                selects = [at for at, verb in enumerate(server.verbs) if verb == "SELECT"]
            elif number <= len(selects):
                server.store.later(selects[number - 1], partial(server.renumber, "Sent"))
        assert 3 < len(selects) < len(servers)
        for _ in range(2):
            await desk.work(mailbox_connections=20)
            for server in servers:
                assert standing(server), server.verbs
            await desk.due()
        for server in servers:
            assert b"Bcc: eve@example.net" in the_one(server).content, server.verbs
            assert server.verbs.count("APPEND") == 1, server.verbs  # ours was never taken for theirs


MOST_COMMANDS = 45  # that it takes anywhere
KINDS: dict[str, tuple[Callable[[], MailboxServer], str]] = {
    "plain": (MailboxServer, "Sent"),
    "gmail": (lambda: MailboxServer(store=Labels(GMAIL)), SENT),
    "gmail that dedupes": (lambda: MailboxServer(store=Labels(GMAIL, dedupe=True, hasty=False)), SENT),
    "exchange": (lambda: MailboxServer(store=Store(EXCHANGE, lag=30, rewrite=True)), "Sent Items"),
    "no uidplus": (lambda: MailboxServer(uidplus=False), "Sent"),
    "neither uidplus nor move": (lambda: MailboxServer(uidplus=False, move=False), "Sent"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_lost_at_any_command_ends_with_one(pool: db.Pool, settings: Settings, kind: str) -> None:
    """Each command of the whole in turn is done, and in place of its answer comes BYE: a mailbox for each of them.

    What was not done is what the one before it left.
    """
    make, path = KINDS[kind]
    async with AsyncExitStack() as opened:
        servers = [await opened.enter_async_context(make()) for _ in range(MOST_COMMANDS)]
        desk = Desk(pool, settings, servers[0].imap())
        for step, server in enumerate(servers):
            id = f"a{step}"
            await desk.account(id, at=server.imap())
            await desk.send(message(f"{id}@example.com"), bcc=("eve@example.net",), account=id)
            server.put(path, theirs(message(f"{id}@example.com")))
            server.when_done("*", skip=step, times=1).say("* BYE gone").close()
        await desk.work(mailbox_connections=2 * MOST_COMMANDS)
        for server in servers:
            assert standing(server, path) or (kind == "gmail that dedupes" and server.mails(TRASH))  # never none
        assert standing(servers[-1], path) == [the_one(servers[-1], path)]  # it had come to its end before
        await desk.due()
        await desk.work(mailbox_connections=2 * MOST_COMMANDS)
        for step, server in enumerate(servers):
            assert b"Bcc: eve@example.net" in the_one(server, path).content, f"after command {step}: {server.verbs}"
            assert not kind.startswith("gmail") or server.mails(TRASH) == [], f"after command {step}: {server.verbs}"


async def test_a_copy_that_meets_a_fault_of_ours_keeps_no_others_waiting(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = copytext.write

    def broken(content: bytes, *given: Any) -> Any:
        if b"poison@" in content:
            raise ZeroDivisionError
        return write(content, *given)

    monkeypatch.setattr(copytext, "write", broken)
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send(message("poison@example.com"))
        await desk.rows("update sent_copies set due_at = now() - interval '1 minute' returning 1")
        for number in range(3):
            await desk.send(message(f"{number}@example.com"))
        await desk.work()
        assert len(server.mails("Sent")) == 3
        ((tries, error),) = await desk.rows("select tries, error from sent_copies where state <> 'done'")
    assert (tries, "fault of ours" in error) == (1, True)


async def test_claims_are_renewed_again_after_a_fault_of_ours(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a copy that takes long is soon in two hands."""
    again = once(monkeypatch, sentcopies, "renew")
    monkeypatch.setattr(copies, "RENEW", 0.01)
    async with at_work(MailboxServer(), pool, settings) as (_, desk), desk.working():
        await asyncio.wait_for(again.wait(), 20)
    assert "could not be renewed" in caplog.text


async def test_a_fault_of_ours_puts_sent_copies_off_and_no_more(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are left by the role that watches mailboxes, which must not end with them."""
    again = once(monkeypatch, sentcopies, "claim")
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        await desk.send()
        await desk.work()
        assert again.is_set()
        assert len(server.mails("Sent")) == 1
    assert "put off by a fault of ours" in caplog.text
