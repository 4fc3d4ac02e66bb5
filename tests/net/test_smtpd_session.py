"""Ordinary sessions over real sockets: greeting, verbs in and out of order, replies, whose mail it is."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import smtplib
from email.message import EmailMessage

import pytest

from relay.core.errors import Conflict, Refused, StoreAway
from relay.core.tenant import AccountState
from relay.store import db
from tests.fakes.ingress import MESSAGE, account, opened

RECEIVED = b"Received: from x by y; Thu, 1 Jan 2026 00:00:00 +0000\r\n"


async def test_ehlo_says_what_is_offered() -> None:
    async with opened(max_message_size=5000) as house:
        client = await house.client()
        assert await client.reply() == "220 relay.test ESMTP Postferry"
        assert (await client.ask("EHLO me")).splitlines() == [
            "250-relay.test",
            "250-SIZE 5000",
            "250-8BITMIME",
            "250-SMTPUTF8",
            "250-PIPELINING",
            "250-ENHANCEDSTATUSCODES",
            "250 AUTH PLAIN LOGIN",
        ]


async def test_a_message_is_queued_and_the_reply_names_it_and_its_time() -> None:
    async with opened() as house:
        client = await house.ready()
        said = await client.submit()
        assert said == f"250 2.0.0 Message queued for delivery as {1:032x} (2030-01-02T03:04:05.678Z)"
        (taken,) = house.acceptor.taken
        assert (taken.account.id, taken.ingress, taken.sender) == ("a1", "smtp", "a@one.example")
        assert taken.recipients == ("b@two.example",)
        assert b"X-Account" not in taken.mail.content
        assert taken.mail.content.endswith(b"\r\n\r\nbody\r\n")


async def test_smtplib_sends_as_it_always_does() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@one.example", "b@two.example", "zwölf"
    mail.set_content(".dot\nand a long line " + "x" * 3000 + "\n.\n", cte="8bit")

    def send(port: int) -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
            smtp.ehlo()
            smtp.send_message(mail)
            return smtp.send_message(mail, to_addrs=["c@two.example", "d@two.example"])

    async with opened() as house:
        assert await asyncio.to_thread(send, house.port) == {}
        first, second = house.acceptor.taken
        assert second.recipients == ("c@two.example", "d@two.example")
        assert b"\r\n.dot\r\n" in first.mail.content
        assert b"\r\n.\r\n" in first.mail.content


async def test_a_session_takes_many_messages_and_forgets_each() -> None:
    async with opened() as house:
        client = await house.ready()
        for _ in range(3):
            assert (await client.submit()).startswith("250 2.0.0")
        assert (await client.ask("DATA")).startswith("503 5.5.1")
        assert len(house.acceptor.taken) == 3


async def test_a_pipelined_session_is_answered_in_order_and_nothing_of_it_is_lost() -> None:
    async with opened() as house:
        once = b"MAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n" + MESSAGE + b".\r\n"
        client = await house.client(first=b"EHLO me\r\n" + once + once + b"QUIT\r\n")
        codes = [(await client.reply())[:3] for _ in range(11)]
        assert codes == ["220", "250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]
        assert await client.closed()


async def test_a_client_that_has_said_all_may_close_its_side_and_still_reads_the_replies() -> None:
    async with opened() as house:
        start = b"EHLO me\r\nMAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n"
        client = await house.client(first=start + MESSAGE + b".\r\n")
        client.writer.write_eof()
        assert [(await client.reply())[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "250"]
        assert await client.closed()


@pytest.mark.parametrize("cut", [b"body", b"body\r\n", b"body\r\n.", b"body\r\n.\r"])
async def test_content_that_breaks_off_is_not_taken(cut: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        await client.begin()
        await client.send(b"X-Account: a1\r\n\r\n" + cut)
        client.writer.write_eof()
        assert await client.closed()
        assert not house.acceptor.taken


async def test_a_client_that_leaves_during_the_commit_does_not_stop_it() -> None:
    async with opened() as house:
        house.acceptor.gate = asyncio.Event()
        client = await house.ready()
        await client.begin()
        await client.send(MESSAGE + b".\r\n")
        await house.acceptor.asked.wait()
        client.writer.transport.abort()
        house.acceptor.gate.set()
        await house.door.close(5)
        assert len(house.acceptor.taken) == 1


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["MAIL FROM:<a@one.example>"], "503 5.5.1"),
        (["AUTH PLAIN AGEAYg=="], "503 5.5.1"),
        (["EHLO"], "501 5.5.4"),
        (["HELO me"], "250 relay.test"),
        (["EHLO me", "RCPT TO:<b@two.example>"], "503 5.5.1"),
        (["EHLO me", "DATA"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "DATA"], "554 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "MAIL FROM:<a@one.example>"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "RSET", "RCPT TO:<b@two.example>"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "EHLO me", "RCPT TO:<b@two.example>"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "AUTH PLAIN AGEAYg=="], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@one.example>", "RCPT TO:<b@two.example>", "DATA now"], "501 5.5.4"),
        (["EHLO me", "STARTTLS"], "503 5.5.1"),
        (["NOOP whatever"], "250 2.0.0"),
        (["VRFY a@one.example"], "252 2.5.2"),
        (["EXPN all"], "502 5.5.1"),
        (["HELP"], "214 2.0.0"),
        (["RSET now"], "501 5.5.4"),
        (["noop"], "250 2.0.0"),
        (["XYZZY"], "500 5.5.1"),
        ([""], "500 5.5.1"),
        (["QUIT"], "221 2.0.0"),
    ],
)
async def test_each_verb_has_its_reply(lines: list[str], code: str) -> None:
    async with opened() as house:
        client = await house.client()
        await client.reply()
        *before, last = lines
        for line in before:
            await client.ask(line)
        assert (await client.ask(last)).startswith(code)


async def test_one_bad_recipient_leaves_the_others() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
        assert (await client.ask("RCPT TO:<nobody>")).startswith("553 5.1.3")
        assert (await client.ask("RCPT TO:<b@two.example>")).startswith("250 2.1.5")
        await client.ask("DATA")
        assert (await client.ask(MESSAGE + b".")).startswith("250 2.0.0")
        assert house.acceptor.taken[0].recipients == ("b@two.example",)


async def test_utf8_addresses_go_with_smtputf8() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example> SMTPUTF8")
        assert (await client.ask("RCPT TO:<bücher@two.example>")).startswith("250 2.1.5")
        await client.ask("DATA")
        assert (await client.ask(MESSAGE + b".")).startswith("250 2.0.0")
        assert house.acceptor.taken[0].recipients == ("bücher@two.example",)


# ---- whose mail it is


async def test_without_x_account_the_envelope_sender_says_whose_mail_it_is() -> None:
    async with opened() as house:
        client = await house.ready()
        assert (await client.submit(b"Subject: x\r\n\r\nbody\r\n", sender="A@ONE.example")).startswith("250 2.0.0")
        assert house.acceptor.taken[0].account.id == "a1"


async def test_a_sender_of_several_accounts_is_told_to_choose() -> None:
    async with opened() as house:
        house.directory.accounts["a2"] = account("a2", email="a@one.example")
        client = await house.ready()
        said = await client.submit(b"Subject: x\r\n\r\nbody\r\n")
        assert said.startswith("550 5.7.1")
        assert "X-Account" in said


@pytest.mark.parametrize(
    ("header", "sender", "code"),
    [
        (b"", "nobody@else.example", "550 5.7.1"),
        (b"", "", "550 5.7.1"),
        (b"X-Account: nobody\r\n", "a@one.example", "550 5.1.8"),
        (b"X-EE-Account: nobody\r\n", "a@one.example", "550 5.1.8"),
        (b"X-Account: bare\r\n", "a@one.example", "550 5.3.5"),
        (b"X-Account: paused\r\n", "a@one.example", "250 2.0.0"),
        (b"X-Account: refused\r\n", "a@one.example", "250 2.0.0"),
        (b"X-Account: a1\r\n", "", "250 2.0.0"),
        (b"X-Account: a1\r\nX-Send-At: nonsense\r\n", "a@one.example", "550 5.6.0"),
        (b"X-Account: a1\r\nX-EE-Send-At: nonsense\r\n", "a@one.example", "550 5.6.0"),
        (b"X-Account: a1\r\nX-EE-Account: a2\r\n", "a@one.example", "550 5.6.0"),
        (b"X-Account: a1\r\n" + RECEIVED * 51, "a@one.example", "554 5.4.6"),
        (b"X-Account: a1\r\n" + RECEIVED * 50, "a@one.example", "250 2.0.0"),
    ],
)
async def test_what_the_headers_ask_for_decides(header: bytes, sender: str, code: str) -> None:
    async with opened() as house:
        house.directory.accounts |= {
            "bare": account("bare", smtp=False),
            "paused": account("paused", state=AccountState.PAUSED),
            "refused": account("refused", state=AccountState.REFUSED),
        }
        client = await house.ready()
        said = await client.submit(header + b"Subject: x\r\n\r\nbody\r\n", sender=sender)
        assert said.startswith(code)
        assert (await client.submit()).startswith("250")


async def test_a_request_with_an_idempotency_key_is_identified_by_envelope_and_content() -> None:
    content = b"X-Account: a1\r\nX-Idempotency-Key: k\r\nSubject: x\r\n\r\nbody\r\n"
    async with opened() as house:
        client = await house.ready()
        await client.submit(content)
        (taken,) = house.acceptor.taken
        assert taken.options.idempotency_key == "k"
        assert taken.body_hash == hashlib.sha256(b"a@one.example\0b@two.example\0" + content).digest()


# ---- what the acceptor says


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (Refused("No such thing", smtp="552 5.3.4"), "552 5.3.4 No such thing"),
        (Conflict("Another body"), "550 5.7.1 Another body"),
        (Conflict("Being stored", retry_after=1), "451 4.5.0 Being stored"),
        (StoreAway("postgresql://secret"), "451 4.3.0 The message store is away, try again later"),
        (db.Locked("secret"), "451 4.3.0 What this needs in the message store is locked, try again later"),
        (Refused("two\r\nlines ü"), "550 5.6.0 two  lines \\xfc"),
    ],
)
async def test_what_is_not_stored_is_not_acknowledged(error: Exception, reply: str) -> None:
    async with opened() as house:
        house.acceptor.error = error
        client = await house.ready()
        assert await client.submit() == reply
        house.acceptor.error = None
        assert (await client.submit()).startswith("250")


async def test_a_fault_of_ours_is_temporary_and_told_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as house:
        house.acceptor.error = RuntimeError("a secret detail")
        client = await house.ready()
        said = await client.submit()
        assert said.startswith("451 4.3.0 Internal error")
        assert "secret" not in said
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.__dict__["requestId"] in said


@pytest.mark.parametrize("char", ["\x15", "é", "x", "'"])
async def test_no_reply_line_is_longer_than_clients_must_take(char: str) -> None:
    """RFC 5321 4.5.3.1.5: 512 bytes with its end; what it quotes of the client may be longer."""
    async with opened() as house:
        client = await house.ready()
        for command in (f"MAIL FROM:<{char * 3000}@x>", f"MAIL FROM:<a@one.example> {char * 3000}", "MAIL FROM:<>"):
            reply = await client.ask(command)
            assert len(reply) <= 510
            assert reply.isascii()
            assert reply.isprintable()


async def test_the_same_key_again_gets_the_first_answer() -> None:
    async with opened() as house:
        house.acceptor.duplicate = True
        client = await house.ready()
        assert (await client.submit()).startswith("250 2.0.0 Message queued for delivery as ")


async def test_a_directory_that_cannot_be_reached_is_a_temporary_failure() -> None:
    async with opened() as house:
        house.directory.error = StoreAway("away")
        client = await house.ready()
        assert (await client.submit()).startswith("451 4.3.0")


async def test_no_log_line_holds_a_body_whatever_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened() as house:
        client = await house.ready()
        await client.submit(MESSAGE.replace(b"body", b"the very secret body"))
        await client.ask("AUTH PLAIN AGEAdGhlIHZlcnkgc2VjcmV0")
    assert "secret" not in caplog.text
    assert "dGhlIHZlcnkgc2VjcmV0" not in caplog.text
