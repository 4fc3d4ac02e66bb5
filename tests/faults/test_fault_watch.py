"""Mailboxes that misbehave, and our own deaths: no report is missed, none counts twice, and nobody else waits."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay import look, watch
from relay.core import watching
from relay.core.report import Kind
from relay.settings import Settings
from relay.store import db
from tests.conftest import MakeTenant
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailstore import PLAIN, UNFLAGGED, Folder, Mail, Store, prefixed
from tests.fakes.upstream import Upstream
from tests.stack import Machine, Stack, until
from tests.watching import AWAY, NEVER, PERSON, Watched, bounce

NAMES = ("p0", "p1", "p2")


@pytest.fixture
async def server() -> AsyncIterator[MailboxServer]:
    async with MailboxServer() as server:
        yield server


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings, server: MailboxServer) -> Watched:
    """An account that has sent to three people."""
    bench = Watched(pool, settings, server.imap())
    await bench.account()
    await bench.sent(*(f"{name}@there.example" for name in NAMES))
    return bench


def put(server: MailboxServer, *mails: bytes, path: str = "INBOX", days: float = 0) -> list[int]:
    return [server.put(path, mail, date=datetime.now(UTC) - timedelta(days=days)) for mail in mails]


def bounces(*names: str) -> list[bytes]:
    return [bounce(f"{name}@there.example", id=name) for name in names]


async def all_bounced_once(bench: Watched) -> None:
    await bench.become(**dict.fromkeys(NAMES, "bounced"))
    assert len(await bench.events("messageBounce")) == len(NAMES)
    assert await bench.reports() == [("bounce", 1)] * len(NAMES)


@pytest.mark.parametrize("end", ["bye", "drop"])
@pytest.mark.parametrize("skip", range(15))
async def test_a_server_may_hang_up_at_any_command(bench: Watched, server: MailboxServer, skip: int, end: str) -> None:
    put(server, *bounces("p0", "p1"), PERSON)
    put(server, *bounces("p2"), path="Junk")
    mood = server.when("*", skip=skip, times=1)
    mood.say("* BYE so long").close() if end == "bye" else mood.drop()
    async with bench.running():
        await all_bounced_once(bench)
        await bench.looked_at()
    assert (await bench.standing()).error == ""
    await all_bounced_once(bench)


@pytest.mark.parametrize("verb", ["STATUS", "EXAMINE", "SEARCH", "FETCH"])
@pytest.mark.parametrize("how", ["hang", "literal", "endless", "drip"])
async def test_a_server_that_answers_without_end_or_not_at_all_is_left_and_keeps_nobody_waiting(
    bench: Watched, server: MailboxServer, verb: str, how: str
) -> None:
    put(server, *bounces(*NAMES))
    mood = server.when(verb)
    mood.drip(0.01) if how == "drip" else getattr(mood, how)()
    async with MailboxServer() as other:
        elsewhere = Watched(bench.pool, bench.settings, other.imap())
        await elsewhere.account("b")
        await elsewhere.sent("bob@there.example", account="b", message_id="<y@example.com>")
        put(other, bounce("bob@there.example", message_id="<y@example.com>"))
        async with bench.running(mailbox_timeout=0.3):
            await elsewhere.become("b", bob="bounced")
            await until(lambda: failed(bench))
            server.calm()
            await bench.become(**dict.fromkeys(NAMES, "bounced"))


async def test_uids_that_begin_anew_in_the_middle_of_a_look_miss_nothing(bench: Watched, server: MailboxServer) -> None:
    gate = asyncio.Event()
    put(server, PERSON, AWAY)
    async with bench.running():
        await bench.looked_at()
        server.when("EXAMINE", times=1).wait(gate).usual()
        put(server, *bounces(*NAMES))
        await until(lambda: server.verbs[-1] == "EXAMINE")
        server.renumber("INBOX")
        gate.set()
        await all_bounced_once(bench)
        server.renumber("INBOX")
        await bench.looked_at()
        await bench.looked_at()
    await all_bounced_once(bench)


async def test_a_mailbox_that_was_put_back_to_yesterday_is_looked_at_again(
    bench: Watched, server: MailboxServer
) -> None:
    put(server, *[PERSON] * 9)
    async with bench.running():
        await bench.looked_at()
        folder = server.folder("INBOX")
        for uid in range(3, 10):
            folder.remove(uid)
        folder.uidnext = 3
        put(server, *bounces(*NAMES))
        await all_bounced_once(bench)


async def test_a_server_that_tells_no_uidnext_is_watched(bench: Watched, server: MailboxServer) -> None:
    server.when("STATUS").say('* STATUS "INBOX" (MESSAGES 3)\r\n{tag} OK done')
    async with bench.running():
        await bench.looked_at()
        put(server, *bounces(*NAMES))
        await all_bounced_once(bench)


async def test_a_folder_for_junk_that_is_not_for_us_keeps_inbox_from_nothing(
    bench: Watched, server: MailboxServer
) -> None:
    del server.store.folders["Junk"]
    server.store.folders["Quarantine"] = Folder("Quarantine", "\\Junk", 77)
    server.when("EXAMINE", skip=1).say("{tag} NO [NOPERM] not for you")
    put(server, *bounces(*NAMES))
    put(server, PERSON, path="Quarantine")
    async with bench.running():
        await all_bounced_once(bench)
        await until(lambda: len([verb for verb in server.verbs if verb == "EXAMINE"]) > 2)
    assert (await bench.standing()).error == ""


LAYOUTS = {
    "no special uses": (UNFLAGGED, "", "Junk"),
    "wrong special uses": ((("INBOX", "\\Junk"), ("Junk", "\\Drafts"), ("Drafts", "\\Junk")), "", "Junk"),
    "beyond ASCII": ((("INBOX", ""), ("Müll & Спам", "\\Junk")), "", "Müll & Спам"),
    "below a prefix": (prefixed(), "INBOX.", "INBOX.Junk"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
async def test_junk_is_found_in_odd_mailboxes(pool: db.Pool, settings: Settings, kind: str) -> None:
    layout, prefix, junk = LAYOUTS[kind]
    async with MailboxServer(layout=layout, prefix=prefix) as server:
        bench = Watched(pool, settings, server.imap())
        await bench.account()
        await bench.sent(*(f"{name}@there.example" for name in NAMES))
        put(server, *bounces(*NAMES[1:]))
        put(server, *bounces(NAMES[0]), path=junk)
        async with bench.running():
            await all_bounced_once(bench)


@pytest.mark.parametrize("path", ["INBOX", "Junk"])
@pytest.mark.parametrize("mail", [PERSON, bounce("x@there.example", id="broken")], ids=["letter", "report"])
async def test_mail_that_the_server_cannot_read_keeps_no_report_waiting(
    bench: Watched, server: MailboxServer, mail: bytes, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In INBOX it is asked for again first: the trouble may pass."""
    for uid in put(server, *bounces("p0"), mail, *bounces("p1", "p2"), path=path)[1:2]:
        server.folder(path).mail(uid).broken = True
    async with bench.running():
        await all_bounced_once(bench)
        await bench.looked_at()
    assert [f"mail 2 in {path}" in line for line in caplog.messages if "cannot be read" in line] == [True]


HEADER, WHOLE = "BODY.PEEK[HEADER", "BODY.PEEK[]"


@pytest.mark.parametrize("path", ["INBOX", "Junk"])
@pytest.mark.parametrize("part", [HEADER, "RFC822.SIZE", WHOLE])
async def test_mail_over_which_the_server_hangs_up_keeps_no_report_waiting(
    bench: Watched, server: MailboxServer, part: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried a few times first: the trouble may pass."""
    for uid in put(server, *bounces("p0"), bounce("x@there.example", id="deadly"), *bounces("p1"), path=path)[1:2]:
        server.folder(path).mail(uid).deadly = part
    put(server, *bounces("p2"))
    async with bench.running():
        await until(lambda: bench.failed(watching.PATIENCE))
        await all_bounced_once(bench)
        await bench.looked_at()
    assert (await bench.standing()).error == ""
    assert [f"mail 2 in {path}" in line for line in caplog.messages if "cannot be read" in line] == [True]


@pytest.mark.parametrize("part", [HEADER, WHOLE, ""])
async def test_mail_that_cannot_be_read_may_be_all_that_is_new(
    bench: Watched, server: MailboxServer, part: str
) -> None:
    """It came alone, and others come one by one: that the server reads these shows what to think of it."""
    put(server, PERSON)
    async with bench.running():
        await bench.looked_at()
        bad = server.folder("INBOX").mail(*put(server, bounce("x@there.example", id="bad")))
        bad.deadly, bad.broken = part or "none", not part
        for name in NAMES:
            await until(lambda: bench.failed(1))
            put(server, *bounces(name))
            await until(lambda name=name: bounced(bench, name))
        await bench.looked_at()
    await all_bounced_once(bench)
    assert (await bench.standing()).error == ""


@pytest.mark.parametrize("part", ["BODY.PEEK[", WHOLE])
async def test_a_server_that_hangs_up_over_all_mail_is_waited_for(
    bench: Watched, server: MailboxServer, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(server, *bounces(*NAMES), PERSON)
    for mail in server.mails("INBOX"):
        mail.deadly = part
    async with bench.running():
        await until(lambda: bench.failed(watching.PATIENCE + 3))
        for mail in server.mails("INBOX"):
            mail.deadly = "none"
        await all_bounced_once(bench)
    assert not [line for line in caplog.messages if "cannot be read" in line]


async def test_a_folder_for_junk_of_which_nothing_can_be_read_keeps_inbox_from_nothing(
    bench: Watched, server: MailboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    for uid in put(server, *bounces("junk"), path="Junk"):
        server.folder("Junk").mail(uid).broken = True
    put(server, *bounces(*NAMES))
    async with bench.running():
        await all_bounced_once(bench)
        await bench.looked_at()
    assert (await bench.standing()).error == ""
    assert not [line for line in caplog.messages if "cannot be read" in line]


async def test_a_folder_of_which_nothing_can_be_read_is_read_when_it_can(bench: Watched, server: MailboxServer) -> None:
    put(server, *bounces(*NAMES))
    mails = server.mails("INBOX")
    for mail in mails:
        mail.broken = True
    async with bench.running():
        await until(lambda: bench.failed(watching.PATIENCE + 3))
        for mail in mails:
            mail.broken = False
        await all_bounced_once(bench)


async def test_only_what_may_be_a_report_is_ever_fetched(bench: Watched, server: MailboxServer) -> None:
    put(server, *[PERSON] * 20, *bounces("p0"), AWAY)
    async with bench.running():
        await bench.looked_at()
    fetched = [line for line in server.commands if "FETCH" in line.upper()]
    bodies = [line for line in fetched if "HEADER" not in line and "BODY" in line]
    assert sorted(line.split()[2] for line in bodies) == ["21", "22"]
    assert all("PEEK" in line for line in fetched if "BODY" in line)
    assert [verb for verb in server.verbs if verb in ("SELECT", "STORE", "APPEND", "COPY", "MOVE", "EXPUNGE")] == []


# -- much mail ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def crowded(pool: db.Pool, settings: Settings) -> AsyncIterator[tuple[Watched, MailboxServer]]:
    """100,000 mails of people."""
    async with MailboxServer(store=Store(PLAIN, crowd=100_000)) as server:
        server.folder("INBOX").mail = lambda uid: Mail(PERSON, date=datetime.now(UTC))  # type: ignore[method-assign]
        bench = Watched(pool, settings, server.imap())
        await bench.account()
        yield bench, server


async def test_the_first_look_into_a_large_mailbox_is_short(crowded: tuple[Watched, MailboxServer]) -> None:
    bench, server = crowded
    async with bench.running(**NEVER):
        await until(lambda: looked(bench))
    assert len(server.verbs) <= 12
    assert headers(server) == watching.STEP
    assert await seen(bench) == {"uidvalidity": 1000, "uidnext": 100_001}


async def test_of_very_much_new_mail_the_newest_comes_first_in_bounded_steps_and_all_of_it(
    crowded: tuple[Watched, MailboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, server = crowded
    monkeypatch.setattr(watching, "STEPS", 2)
    await bench.rows(
        'update mailboxes set folders = \'{"INBOX": {"uidvalidity": 1000, "uidnext": 98000}}\', listed_at = now()'
        " where account_id = 'a' returning 1"
    )
    looks: list[Any] = []

    async def looked_once() -> bool:
        found = await seen(bench)
        if not looks or looks[-1] != found:
            looks.append(found)
        return bool(found["uidnext"] == 100_001 and "left" not in found)

    async with bench.running(**NEVER):
        await until(looked_once)
    assert headers(server) == 2001
    searches = [line for line in server.commands if "SEARCH" in line]
    assert len(searches) == 11
    assert {"uidvalidity": 1000, "uidnext": 100_001, "left": [[98000, 99601]]} in looks


async def test_a_hole_of_a_billion_uids_is_crossed_in_a_few_steps(bench: Watched, server: MailboxServer) -> None:
    put(server, *bounces("p0"))
    server.folder("INBOX").uidnext = 10**9
    put(server, *bounces("p1"), *[PERSON] * 300, *bounces("p2"))
    await bench.rows(
        'update mailboxes set folders = \'{"INBOX": {"uidvalidity": 1000, "uidnext": 1}}\', listed_at = now()'
        " returning 1"
    )
    async with bench.running():
        await all_bounced_once(bench)
    assert len([line for line in server.commands if "SEARCH" in line]) < 15


def headers(server: MailboxServer) -> int:
    """How many headers were fetched."""
    lines = [line.split()[2] for line in server.commands if "HEADER.FIELDS" in line]
    return sum(count(one) for line in lines for one in line.split(","))


def count(one: str) -> int:
    low, _, high = one.partition(":")
    return int(high or low) - int(low) + 1


async def test_a_look_that_takes_long_ends_and_goes_on_where_it_was(
    bench: Watched, server: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "LONGEST", 0.0)
    put(server, *bounces(*NAMES))
    async with bench.running(mailbox_poll=3600.0, mailbox_poll_most=3600.0):
        await all_bounced_once(bench)


async def test_mail_that_breaks_the_reader_is_told_and_passed_over(
    bench: Watched, server: MailboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = look.report.read

    def breaks(raw: bytes) -> Any:
        if b"poison" in raw:
            raise RecursionError("too deep")
        return read(raw)

    monkeypatch.setattr(look.report, "read", breaks)
    put(server, *bounces("p0"), bounce("x@there.example", id="poison"), *bounces("p1", "p2"))
    async with bench.running():
        await all_bounced_once(bench)
        await bench.looked_at()
    assert ["too deep" in line for line in caplog.messages if "cannot be read" in line] == [True]
    assert Kind.NONE == "none"


# -- our own deaths ----------------------------------------------------------------------------------------------------


async def test_postgresql_is_gone_for_a_while(
    postgres: Machine, apart: str, settings: Settings, server: MailboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the fetch of a report and its commit."""
    settings = replace(settings, database_url=apart)
    pool = await db.open_pool(settings, most=4)
    bench = Watched(pool, settings, server.imap())
    gate = asyncio.Event()
    await bench.account()
    await bench.sent(*(f"{name}@there.example" for name in NAMES))
    put(server, *bounces(*NAMES))
    server.when("FETCH", skip=3, times=1).wait(gate).usual()
    async with bench.running():
        await until(lambda: server.verbs.count("FETCH") == 4)
        await asyncio.to_thread(postgres.cut, signal.SIGQUIT)
        gate.set()
        await until(lambda: any("waits for PostgreSQL" in line for line in caplog.messages))
        await asyncio.to_thread(postgres.start)
        await all_bounced_once(bench)
    await pool.close()


async def test_a_look_that_takes_longer_than_a_claim_renews_it(
    bench: Watched, server: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RENEW", 0.05)
    gate = asyncio.Event()
    server.when("EXAMINE", times=1).wait(gate).usual()
    put(server, *bounces(*NAMES))

    async def held() -> Any:
        return (await bench.rows("select claim, claimed_until from mailboxes"))[0]

    async with bench.running(), bench.running():
        await until(lambda: server.verbs.count("EXAMINE") == 1)
        claim, ends = await held()

        async def renewed() -> bool:
            return bool((await held())[1] > ends)

        await until(renewed)
        assert (server.connections, (await held())[0]) == (1, claim)
        gate.set()
        await all_bounced_once(bench)


async def test_who_loses_a_claim_ends_its_look(
    bench: Watched, server: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RENEW", 0.05)
    server.when("EXAMINE", times=1).hang()
    put(server, *bounces(*NAMES))
    async with bench.running(mailbox_timeout=60.0) as watcher:
        await until(lambda: server.verbs.count("EXAMINE") == 1)
        await bench.save(imap={"watch": False})
        await until(lambda: not watcher._running)
    assert await bench.reports() == []


async def test_a_role_that_is_killed_between_two_reports_misses_none_and_doubles_none(
    stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    async with MailboxServer() as server:
        tenant = await make_tenant(stack, upstream, copy="none")
        answer = await tenant.submit("a@there.example", "b@there.example")
        await tenant.becomes(sent=2)
        found = [bounce(to, id=to, message_id=answer["messageId"]) for to in ("a@there.example", "b@there.example")]
        put(server, *found)
        # Given one report that is committed, and one in hand, so that nothing is settled
        server.when("FETCH", skip=3, times=1).hang()
        login = {"user": "ann", "pass": "secret"}
        mailbox = {"host": server.host, "port": server.port, "secure": False, "tls": {"mode": "none"}, "auth": login}
        await tenant.change(imap=mailbox)
        await tenant.becomes(sent=1, bounced=1)
        await until(lambda: server.verbs.count("FETCH") == 4)  # else the next role is the one that hangs
        # When the role dies, another begins once the claim has ended
        ((claim,),) = await tenant.rows("select claim from mailboxes where account_id = %s")
        await stack.kill("mailbox")
        await stack.start("mailbox")
        ended = "update mailboxes set due_at = now() where account_id = %s and claim = %s returning claim"

        async def taken_over() -> bool:  # what the dead have said last may still come about
            return await tenant.rows(ended, tenant.id, claim) == []

        await until(taken_over)
        # Then each has counted once
        await tenant.becomes(bounced=2)
        rows = "select count(*) from events where account_id = %s and type = 'messageBounce'"
        assert await tenant.rows(rows) == [(2,)]
        assert await tenant.rows("select count(*) from reports where account_id = %s") == [(2,)]


async def failed(bench: Watched) -> bool:
    return (await bench.standing()).failures > 0


async def looked(bench: Watched) -> bool:
    return (await bench.standing()).looked_at is not None


async def seen(bench: Watched) -> Any:
    ((folders,),) = await bench.rows("select folders from mailboxes where account_id = 'a'")
    return folders.get("INBOX")


async def bounced(bench: Watched, name: str) -> bool:
    return (await bench.states())[f"{name}@there.example"] == "bounced"
