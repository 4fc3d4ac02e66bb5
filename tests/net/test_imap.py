"""A mailbox over IMAP: judged addresses, TLS, logins, folders; and servers that hang, lie, or never end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.folders import Folder, Use, special
from relay.core.tenant import Imap, Tls
from relay.net.imap import Mailbox, MailboxError, connect
from tests.dovecot import Dovecot
from tests.fakes.imap import Mailserver
from tests.fakes.resolver import Fickle, answering
from tests.stack import until

LOCAL = [ip_network("127.0.0.0/8")]
PATIENT, HASTY = 120.0, 0.4


def mailbox(server: Mailserver, kind: Tls = Tls.NONE, **more: Any) -> Imap:
    return Imap(server.host, server.port, kind, **{"user": "ann", "password": "secret", **more})


@asynccontextmanager
async def reached(imap: Imap, seconds: float = PATIENT, **more: Any) -> AsyncIterator[Mailbox]:
    found = await connect(imap, **{"allowed": LOCAL, "seconds": seconds, **more})
    try:
        yield found
    finally:
        await found.close()


async def refusal(imap: Imap, seconds: float = PATIENT, **more: Any) -> MailboxError:
    """How it ends at the latest when its folders are asked for."""
    with pytest.raises(MailboxError) as fault:
        async with reached(imap, seconds, **more) as found:
            await found.folders()
    return fault.value


def no_threads() -> bool:
    return not any(thread.name.startswith("imap") for thread in threading.enumerate())


# A real server.


@pytest.mark.parametrize("kind", [Tls.NONE, Tls.OPPORTUNISTIC, Tls.STARTTLS, Tls.IMPLICIT])
@pytest.mark.usefixtures("trusted")
async def test_the_folders_of_a_real_mailbox_are_found(dovecot: Dovecot, kind: Tls) -> None:
    async with reached(dovecot.imap("ann", kind)) as found:
        assert found.encrypted is (kind is not Tls.NONE)
        uses = special(await found.folders())
    assert {str(use): one.folder.path for use, one in uses.items()} == {
        "sent": "Verschickt & raus",
        "trash": "Müll",
        "drafts": "Unfertig",
        "junk": "Kram",
        "all": "Ablage",
    }
    assert all(one.flagged for one in uses.values())


async def test_below_a_prefix_folders_are_found_by_name(dovecot: Dovecot) -> None:
    async with reached(dovecot.imap("bob")) as found:
        uses = special(await found.folders())
    assert {str(use): one.folder.path for use, one in uses.items()} == {
        "sent": "INBOX.Gesendet",
        "trash": "INBOX.Papierkorb",
    }
    assert not any(one.flagged for one in uses.values())


@pytest.mark.parametrize("user", ["zoë", "uml"])
async def test_names_and_passwords_may_be_of_any_letters(dovecot: Dovecot, user: str) -> None:
    async with reached(dovecot.imap(user)) as found:
        assert await found.folders()


async def test_a_real_server_refuses_a_wrong_password(dovecot: Dovecot) -> None:
    fault = await refusal(dovecot.imap("ann", password="not-this"))
    assert (fault.step, fault.kind, fault.code) == ("login", "refused", "AUTHENTICATIONFAILED")


async def test_a_certificate_that_nobody_trusts_is_refused_in_words(dovecot: Dovecot) -> None:
    for kind in (Tls.IMPLICIT, Tls.STARTTLS, Tls.OPPORTUNISTIC):
        fault = await refusal(dovecot.imap("ann", kind))
        assert (fault.step, fault.kind) == ("tls", "certificate")
        assert str(fault) == "certificate of 127.0.0.1 not trusted: it is self-signed"
        async with reached(dovecot.imap("ann", kind, verify_certificate=False)) as found:
            assert found.encrypted


@pytest.mark.usefixtures("trusted")
async def test_the_certificate_must_be_the_hosts_own(dovecot: Dovecot) -> None:
    imap = replace(dovecot.imap("ann", Tls.IMPLICIT), host="imap.example.com")
    fault = await refusal(imap, resolver=answering("127.0.0.1", port=dovecot.tls_port))
    assert (fault.step, fault.kind) == ("tls", "certificate")
    assert "imap.example.com" in str(fault)
    assert "for another host" in str(fault)


# Dialling.


async def test_a_private_address_is_not_dialled_unless_allowed() -> None:
    async with Mailserver() as server:
        by_name = replace(mailbox(server), host="imap.example.com")
        for imap, resolver in (
            (mailbox(server), None),
            (by_name, answering("127.0.0.1", port=server.port)),
        ):
            fault = await refusal(imap, allowed=[], resolver=resolver)
            assert (fault.step, fault.kind) == ("resolve", "forbidden")
        assert server.connections == 0


async def test_the_address_that_was_judged_is_the_one_that_is_dialled() -> None:
    # Given a name that leads to a permitted address when it is judged, and elsewhere later
    async with Mailserver() as server:
        fickle = Fickle(server.port)
        async with reached(replace(mailbox(server), host="imap.example.com"), resolver=fickle) as found:
            await found.folders()
    # Then it is asked once
    assert fickle.asked == 1


async def test_nobody_there_is_said_with_host_and_port() -> None:
    async with Mailserver() as server:
        imap = mailbox(server)
    fault = await refusal(imap)
    assert (fault.step, fault.kind) == ("connect", "unreachable")
    assert f"port {imap.port}" in str(fault)


async def test_a_name_without_an_address_is_said() -> None:
    fault = await refusal(Imap("imap..example.com"))
    assert (fault.step, fault.kind) == ("resolve", "dns")


# Greeting.


@pytest.mark.parametrize("how", ["hang", "drop", "literal", "endless", "drip"])
async def test_a_server_that_does_not_greet_is_given_up(how: str) -> None:
    async with Mailserver() as server:
        mood = server.when("CONNECT")
        getattr(mood, how)(*([0.02] if how == "drip" else []))
        fault = await refusal(mailbox(server), HASTY)
    assert fault.step == "greeting"
    assert fault.kind in ("lost", "protocol")


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        ("* BYE too many connections", "lost"),
        ("HTTP/1.1 400 Bad Request", "protocol"),
        ("220 mail.example.com ESMTP", "protocol"),
        ("* NO not today", "protocol"),
        ("+OK POP3 ready", "protocol"),
        ("", "protocol"),
        ("* OK [CAPABILITY \xff", "greeted"),
        ("* OK", "greeted"),
        ("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready", "greeted"),
    ],
)
async def test_odd_greetings_are_told_from_good_ones(greeting: str, kind: str) -> None:
    async with Mailserver() as server:
        server.when("CONNECT").say(greeting)
        if kind == "greeted":
            async with reached(mailbox(server)) as found:
                assert await found.folders()
        else:
            fault = await refusal(mailbox(server), HASTY)
            assert (fault.step, fault.kind) == ("greeting", kind)


async def test_what_a_server_says_when_it_ends_the_session_is_told() -> None:
    async with Mailserver() as server:
        server.when("CONNECT").say("* BYE [ALERT] Maintenance until ten").close()
        fault = await refusal(mailbox(server))
    assert str(fault) == "127.0.0.1 ended the session: [ALERT] Maintenance until ten"
    assert fault.said == "[ALERT] Maintenance until ten"


@pytest.mark.parametrize("capabilities", ["IMAP4rev2", "POP3", ""])
async def test_a_server_of_no_imap_that_we_know_is_refused(capabilities: str) -> None:
    async with Mailserver(capabilities=capabilities) as server:
        assert (await refusal(mailbox(server))).step == "greeting"


# TLS.


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("kind", [Tls.STARTTLS, Tls.OPPORTUNISTIC])
async def test_starttls_is_taken_when_it_is_offered(kind: Tls) -> None:
    async with Mailserver(starttls=True) as server, reached(mailbox(server, kind)) as found:
        assert found.encrypted


async def test_starttls_that_is_not_offered_is_never_done_without() -> None:
    async with Mailserver() as server:
        fault = await refusal(mailbox(server, Tls.STARTTLS))
        assert server.said("AUTH") + server.said("LOGIN") == []
    assert (fault.step, fault.kind) == ("tls", "tls")


async def test_opportunistic_goes_on_without_tls() -> None:
    async with Mailserver() as server, reached(mailbox(server, Tls.OPPORTUNISTIC)) as found:
        assert not found.encrypted


@pytest.mark.parametrize(
    ("kind", "offered"), [(Tls.STARTTLS, True), (Tls.OPPORTUNISTIC, True), (Tls.OPPORTUNISTIC, False)]
)
async def test_a_greeting_that_leaves_no_room_for_starttls_is_refused(kind: Tls, offered: bool) -> None:
    async with Mailserver(starttls=offered) as server:
        server.when("CONNECT").say("* PREAUTH welcome back")
        fault = await refusal(mailbox(server, kind))
    assert fault.step == "tls"


@pytest.mark.parametrize("more", ["* CAPABILITY IMAP4rev1 AUTH=PLAIN", "a1 OK logged in"])
async def test_plaintext_injected_behind_starttls_ends_it(more: str) -> None:
    async with Mailserver(starttls=True) as server:
        server.when("STARTTLS").say("{tag} OK go ahead\r\n" + more)
        fault = await refusal(mailbox(server, Tls.STARTTLS, verify_certificate=False), HASTY)
        assert server.said("AUTH") + server.said("LOGIN") == []
    assert fault.step == "tls"


async def test_what_was_offered_before_tls_is_forgotten() -> None:
    async with Mailserver(starttls=True) as server:
        server.when("CAPABILITY", times=1).say(
            "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=EVIL\r\n{tag} OK done"
        )
        async with reached(mailbox(server, Tls.STARTTLS, verify_certificate=False)) as found:
            assert found.encrypted
        assert server.said("AUTHENTICATE") == ["AUTHENTICATE PLAIN"]


async def test_what_was_said_before_tls_is_forgotten() -> None:
    # Given somebody in the middle who says before TLS what will be asked for behind it
    async with Mailserver(starttls=True) as server:
        server.when("STARTTLS").say('* LIST (\\Sent) "/" "Evil"\r\n{tag} OK go ahead')
        async with reached(mailbox(server, Tls.STARTTLS, verify_certificate=False)) as found:
            assert [folder.path for folder in await found.folders()] == ["INBOX", "Sent", "Bin"]


async def test_a_refused_starttls_is_the_servers_word() -> None:
    async with Mailserver(starttls=True) as server:
        server.when("STARTTLS").say("{tag} NO not now")
        fault = await refusal(mailbox(server, Tls.OPPORTUNISTIC))
    assert (fault.step, fault.kind, fault.said) == ("tls", "refused", "not now")


async def test_tls_with_a_server_that_has_none_is_said_to_fail() -> None:
    async with Mailserver() as server:
        fault = await refusal(mailbox(server, Tls.IMPLICIT))
    assert (fault.step, fault.kind) == ("tls", "tls")


async def test_a_handshake_that_hangs_is_given_up() -> None:
    async with Mailserver(starttls=True) as server:
        server.when("STARTTLS").say("{tag} OK go ahead").hang()
        fault = await refusal(mailbox(server, Tls.STARTTLS), HASTY)
    assert (fault.step, fault.kind) == ("tls", "lost")


# Login.


@pytest.mark.parametrize(
    ("capabilities", "command"),
    [
        ("IMAP4rev1 AUTH=PLAIN", "AUTHENTICATE PLAIN"),
        ("IMAP4rev1", 'LOGIN "ann" "secret"'),
        ("IMAP4rev1 AUTH=PLAIN LOGINDISABLED", "AUTHENTICATE PLAIN"),
    ],
)
async def test_a_password_is_said_in_the_way_that_is_offered(capabilities: str, command: str) -> None:
    async with Mailserver(capabilities=capabilities) as server:
        async with reached(mailbox(server)):
            pass
        assert server.said("AUTHENTICATE") + server.said("LOGIN") == [command]


async def test_a_mechanism_that_is_offered_and_not_there_is_done_without() -> None:
    async with Mailserver() as server:
        server.when("AUTHENTICATE").say("")
        async with reached(mailbox(server)):
            pass
        assert server.said("LOGIN") == ['LOGIN "ann" "secret"']


@pytest.mark.parametrize(("user", "password"), [("a b", 'c"d\\e'), ("ann", "pä €"), ("{5}", "x)")])
async def test_a_login_is_quoted(user: str, password: str) -> None:
    async with (
        Mailserver(capabilities="IMAP4rev1", users={user: password}) as server,
        reached(mailbox(server, user=user, password=password)) as found,
    ):
        assert await found.folders()


async def test_a_refused_password_is_tried_once() -> None:
    async with Mailserver() as server:
        fault = await refusal(mailbox(server, password="not-this"))
        assert len(server.said("AUTHENTICATE") + server.said("LOGIN")) == 1
    assert (fault.step, fault.kind, fault.code) == ("login", "refused", "AUTHENTICATIONFAILED")
    assert fault.said == "[AUTHENTICATIONFAILED] wrong user or password"


async def test_an_access_token_is_used_where_there_is_one() -> None:
    async with Mailserver(users={"ann": "token-1"}) as server:
        async with reached(mailbox(server, password="", access_token="token-1")):
            pass
        assert server.said("AUTHENTICATE") == ["AUTHENTICATE XOAUTH2"]


async def test_a_refused_access_token_is_told_with_the_reason() -> None:
    async with Mailserver() as server:
        fault = await refusal(mailbox(server, password="", access_token="old-token"))
    assert (fault.step, fault.kind) == ("login", "refused")
    assert str(fault).startswith('XOAUTH2 refused: {"status":"400","schemes":"Bearer"}')
    assert "old-token" not in str(fault)


async def test_a_token_is_not_said_to_a_server_that_takes_none() -> None:
    async with Mailserver(capabilities="IMAP4rev1 AUTH=PLAIN") as server:
        fault = await refusal(mailbox(server, password="", access_token="token-1"))
        assert server.said("AUTHENTICATE") + server.said("LOGIN") == []
    assert "XOAUTH2" in str(fault)


async def test_a_password_is_not_said_where_logins_are_forbidden() -> None:
    async with Mailserver(capabilities="IMAP4rev1 LOGINDISABLED") as server:
        fault = await refusal(mailbox(server))
        assert server.said("AUTHENTICATE") + server.said("LOGIN") == []
    assert (fault.step, fault.code) == ("login", "PRIVACYREQUIRED")


async def test_who_is_logged_in_already_says_no_password() -> None:
    async with Mailserver() as server:
        server.when("CONNECT").say("* PREAUTH welcome back")
        async with reached(mailbox(server)) as found:
            assert await found.folders()
        assert server.said("AUTHENTICATE") + server.said("LOGIN") == []


ECHO = "{tag} NO I know hunter2-hunter2 and AGFubgBodW50ZXIyLWh1bnRlcjI= and aHVudGVyMi1odW50ZXIy"


async def test_secrets_are_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    # Given a server that repeats what it was told, and a log of everything
    caplog.set_level(logging.DEBUG)
    async with Mailserver(capabilities="IMAP4rev1", users={"ann": "hunter2-hunter2", "ü": "hunter2-hunter2"}) as server:
        for user in ("ann", "ü"):
            async with reached(mailbox(server, user=user, password="hunter2-hunter2")) as found:
                await found.folders()
        server.when("LIST").say("nonsense")
        await refusal(mailbox(server, password="hunter2-hunter2"))
        server.when("LOGIN").say(ECHO)
        fault = await refusal(mailbox(server, password="hunter2-hunter2"))
    shown = f"{fault!r} {fault} {fault.said} {fault.__cause__!r} {caplog.text}"
    assert "I know *** and" in shown
    assert "hunter2" not in shown
    assert "aHVudGVyMi1odW50ZXIy" not in shown


# Folders.


async def listed(*lines: str, **more: Any) -> list[Folder]:
    async with Mailserver(folders=lines, **more) as server, reached(mailbox(server)) as found:
        return await found.folders()


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (r'(\HasNoChildren) "/" "Entw&APw-rfe"', "Entwürfe"),
        (r'() "/" "Q&-A"', "Q&A"),
        (r'() "/" "&ZeVnLIqe-"', "日本語"),
        (r'() "/" "Entwürfe"', "Entwürfe"),
        (r'() "/" "&broken"', "&broken"),
        (r'() "/" "a\"b\\c"', 'a"b\\c'),
        (r'() "/" Plain', "Plain"),
        (r'() "/" 2026', "2026"),
        (r'() "/" "0815"', "0815"),
        (r'() NIL "Flat"', "Flat"),
        ('() "/" {9}\r\nTwo words', "Two words"),
        (r'() "/" "with [brackets]"', "with [brackets]"),
        (r'(\HasChildren) "/" "Told more of" ("CHILDINFO" ("SUBSCRIBED"))', "Told more of"),
        ('() "/" {12}\r\nTold more of (CHILDINFO ("SUBSCRIBED"))', "Told more of"),
    ],
)
async def test_a_folder_is_read_however_it_is_spelled(line: str, path: str) -> None:
    assert path in [folder.path for folder in await listed(line, r'(\Sent) "/" "Sent"')]


@pytest.mark.parametrize("line", ['() "/" ""', '() "/" "a\x01b"', '() "/" "&2AA-"', 'Sent "/" "x"', "NIL NIL NIL"])
async def test_what_is_no_folder_spoils_no_other(line: str) -> None:
    assert [folder.path for folder in await listed(line, r'(\Sent) "/" "Sent"')] == ["Sent"]


async def test_a_delimiter_of_none_is_empty() -> None:
    [folder] = await listed(r"(\NoInferiors) NIL INBOX")
    assert folder == Folder("INBOX", "", frozenset({"\\noinferiors"}))


@pytest.mark.parametrize("line", ["((((((((", '() "/"', "(" * 3000, '() "/" {3}\r\nabcd'])
async def test_lines_that_make_no_sense_are_an_error_and_no_crash(line: str) -> None:
    async with Mailserver(folders=[line]) as server:
        fault = await refusal(mailbox(server), HASTY)
    assert fault.step == "folders"
    assert fault.kind in ("protocol", "refused")


async def test_special_uses_are_asked_for_where_they_must_be() -> None:
    async with Mailserver(capabilities="IMAP4rev1 SPECIAL-USE LIST-EXTENDED") as server:
        async with reached(mailbox(server)) as found:
            assert Use.SENT in special(await found.folders())
        assert server.said("LIST") == ['LIST "" "*" RETURN (SPECIAL-USE)']


async def test_a_server_that_lies_about_special_uses_is_asked_without() -> None:
    async with Mailserver(capabilities="IMAP4rev1 SPECIAL-USE LIST-EXTENDED") as server:
        server.when("LIST", times=1).say("{tag} BAD what?")
        async with reached(mailbox(server)) as found:
            assert Use.SENT in special(await found.folders())
        assert server.said("LIST")[1:] == ['LIST "" "*"']


@pytest.mark.parametrize(
    ("namespace", "path", "personal"),
    [
        ('(("" "/")) (("Other Users/" "/")) (("Public/" "/"))', "Other Users/bob/Sent", False),
        ('(("" "/")) (("Other Users/" "/")) (("Public/" "/"))', "Public/Sent", False),
        ('(("" "/")) (("Other Users/" "/")) (("Public/" "/"))', "Sent", True),
        ('(("INBOX." ".")) (("user." ".")) (("" "."))', "INBOX.Sent", True),
        ('(("INBOX." ".")) (("user." ".")) (("" "."))', "Sent", False),
        ('(("" "/")) (("~" "/")) NIL', "~bob/Sent", False),
        ('(("" "/" "X-PARAM" ("a" "b"))) NIL NIL', "Sent", True),
        ("nonsense", "Sent", True),
        ("NIL NIL NIL NIL", "Sent", True),
    ],
)
async def test_what_others_share_is_told_from_ones_own(namespace: str, path: str, personal: bool) -> None:
    lines = [rf'(\HasNoChildren) "/" "{path}"']
    [folder] = await listed(*lines, capabilities="IMAP4rev1 NAMESPACE", namespace=namespace)
    assert folder.personal is personal


async def test_a_server_that_promises_namespaces_and_has_none_is_forgiven() -> None:
    async with Mailserver(capabilities="IMAP4rev1 NAMESPACE") as server:
        server.when("NAMESPACE").say("{tag} NO none here")
        async with reached(mailbox(server)) as found:
            assert await found.folders()


# Servers that misbehave at any command.

VERBS = ["CAPABILITY", "STARTTLS", "AUTH", "LOGIN", "NAMESPACE", "LIST"]


def usual(verb: str, server: Mailserver) -> Imap:
    """Settings with which the verb is said."""
    server.starttls = verb == "STARTTLS"
    server.capabilities = server.after = "IMAP4rev1 NAMESPACE" + (" AUTH=PLAIN" if verb == "AUTH" else "")
    return mailbox(server, Tls.OPPORTUNISTIC, verify_certificate=False)


@pytest.mark.parametrize("verb", VERBS)
async def test_goodbye_at_any_command_is_told(verb: str) -> None:
    async with Mailserver() as server:
        server.when(verb).say("* BYE [UNAVAILABLE] going down").close()
        fault = await refusal(usual(verb, server))
    assert fault.kind == "lost"
    assert "going down" in str(fault)
    assert fault.code == "UNAVAILABLE"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", ["hang", "drop", "endless", "literal", "drip"])
async def test_no_server_keeps_us(verb: str, how: str) -> None:
    async with Mailserver() as server:
        mood = server.when(verb)
        getattr(mood, how)(*([0.02] if how == "drip" else []))
        started = asyncio.get_running_loop().time()
        fault = await refusal(usual(verb, server), HASTY)
        assert fault.kind in ("lost", "protocol")
        assert asyncio.get_running_loop().time() - started < 5
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("size", [5_000_000, 10**15])
async def test_a_literal_that_is_too_large_is_not_begun(size: int) -> None:
    async with Mailserver(folders=[f'() "/" {{{size}}}']) as server:
        fault = await refusal(mailbox(server), HASTY)
    assert (fault.step, fault.kind) == ("folders", "protocol")
    assert str(size) in str(fault)


async def test_a_folder_for_each_of_many_thousand_cases_is_listed() -> None:
    cases = (rf'(\HasNoChildren) "/" "Cases/2026/{n:06} Somebody against somebody else"' for n in range(20_000))
    async with Mailserver(folders=[r'(\Sent) "/" "Sent"', *cases]) as server, reached(mailbox(server)) as found:
        folders = await found.folders()
    assert len(folders) == 20_001
    assert len({id(folder.flags) for folder in folders}) == 2  # they are not kept for each


async def test_an_answer_without_end_ends_by_its_size() -> None:
    async with Mailserver() as server:
        server.when("LIST").endless()
        fault = await refusal(mailbox(server), PATIENT)
    assert (fault.step, fault.kind) == ("folders", "protocol")
    assert "without end" in str(fault)


async def test_a_call_that_is_cancelled_ends_thread_and_connection() -> None:
    """While the server hangs, the loop goes on."""
    async with Mailserver() as server:
        server.when("LIST").hang()
        found = await connect(mailbox(server), allowed=LOCAL, seconds=PATIENT)
        asking = asyncio.create_task(found.folders())
        await until(lambda: server.said("LIST") != [])
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.open == 0)
    await until(no_threads)


async def test_closing_says_goodbye_and_ends_the_thread() -> None:
    async with Mailserver() as server:
        async with reached(mailbox(server)):
            pass
        assert server.said("LOGOUT")
        await until(lambda: server.open == 0)
    await until(no_threads)


@pytest.mark.parametrize("how", ["hang", "drop", "endless"])
async def test_a_server_that_takes_no_leave_is_left(how: str) -> None:
    async with Mailserver() as server:
        getattr(server.when("LOGOUT"), how)()
        async with reached(mailbox(server), HASTY):
            pass
    await until(no_threads)


async def test_nobody_says_goodbye_to_a_server_that_is_lost() -> None:
    async with Mailserver() as server:
        server.when("LIST").hang()
        found = await connect(mailbox(server), allowed=LOCAL, seconds=HASTY)
        with pytest.raises(MailboxError):
            await found.folders()
        await found.close()
        await found.close()
        assert server.said("LOGOUT") == []
    await until(no_threads)


async def test_each_step_is_told_when_it_is_taken(dovecot: Dovecot) -> None:
    for kind, expected in (
        (Tls.IMPLICIT, ["resolve", "connect", "tls", "greeting", "login"]),
        (Tls.STARTTLS, ["resolve", "connect", "greeting", "tls", "login"]),
        (Tls.NONE, ["resolve", "connect", "greeting", "login"]),
    ):
        told: list[str] = []
        async with reached(dovecot.imap("ann", kind, verify_certificate=False), passed=told.append):
            assert told == expected
