"""Mail over one connection to an upstream that behaves and misbehaves; real sockets, a scripted fake."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network

import pytest

from relay.core.reply import Stage
from relay.core.tenant import Smtp, Tls
from relay.net.envelope import Envelope
from relay.net.smtp import Connection, Result, Timeouts, connect
from relay.net.wire import Lost, Wire
from tests.fakes.upstream import Upstream
from tests.stack import PATIENCE

LOCAL = [ip_network("127.0.0.0/8")]
TIMEOUTS = Timeouts(connect=20, command=20, data=20)
HASTY = Timeouts(connect=60.0, command=0.2, data=0.2)
MAIL = [b"Subject: hello\r\n\r\n", b"body\r\n"]


async def reach(upstream: Upstream, timeouts: Timeouts = TIMEOUTS) -> Connection:
    smtp = Smtp(upstream.host, upstream.port, tls=Tls.NONE)
    return await connect(smtp, hostname="us.example", allowed=LOCAL, sandbox_port=0, timeouts=timeouts)


async def send(
    connection: Connection,
    *recipients: str,
    sender: str = "me@example.com",
    content: Sequence[bytes] = MAIL,
    smtputf8: bool = False,
    eightbit: bool = False,
    following: Envelope | None = None,
) -> Sequence[Result]:
    size = sum(map(len, content))
    envelope = Envelope(sender, recipients, size, smtputf8, eightbit)
    return await connection.transact(envelope, content, following=following)


def to(*recipients: str) -> Envelope:
    """What `send` says for MAIL."""
    return Envelope("me@example.com", recipients, sum(map(len, MAIL)))


async def gone(connection: Connection) -> None:
    """Until the end of the connection has been noticed."""
    async with asyncio.timeout(5):
        while connection._wire.alive:  # noqa: ASYNC110 (the end is noticed by the connection alone)
            await asyncio.sleep(0)


@pytest.fixture(params=[True, False], ids=["pipelined", "in turns"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    async with Upstream(pipelining=request.param) as fake:
        yield fake


@pytest.fixture
async def connection(upstream: Upstream) -> AsyncIterator[Connection]:
    opened = await reach(upstream)
    yield opened
    await opened.close()


# Mail that is taken.


async def test_a_mail_arrives_as_it_was_given(upstream: Upstream, connection: Connection) -> None:
    [result] = await send(connection, "ann@example.org")
    [mail] = upstream.taken
    assert (mail.sender, mail.recipients, mail.content) == ("me@example.com", ("ann@example.org",), b"".join(MAIL))
    assert (result.stage, str(result.reply), result.lost) == (Stage.DOT, "250 2.0.0 taken", False)


async def test_one_connection_carries_many_mails(upstream: Upstream, connection: Connection) -> None:
    for number in range(3):
        await send(connection, f"r{number}@example.org")
    assert [mail.recipients for mail in upstream.taken] == [(f"r{number}@example.org",) for number in range(3)]
    assert (upstream.connections, connection.used, connection.usable) == (1, 3, True)


async def test_results_keep_the_order_of_the_recipients(upstream: Upstream, connection: Connection) -> None:
    names = [f"r{number}@example.org" for number in range(100)]
    assert [result.recipient for result in await send(connection, *names)] == names
    assert upstream.taken[0].recipients == tuple(names)


async def test_the_null_sender_is_an_empty_path(upstream: Upstream, connection: Connection) -> None:
    await send(connection, "ann@example.org", sender="")
    assert upstream.said("MAIL")[0].startswith("MAIL FROM:<>")


async def test_pipelining_is_one_write() -> None:
    # Given an upstream that keeps its answer to MAIL back
    gate = asyncio.Event()
    async with Upstream() as upstream:
        upstream.when("MAIL").wait(gate).say("250 ok")
        connection = await reach(upstream)
        sending = asyncio.create_task(send(connection, "ann@example.org"))
        await upstream.heard("MAIL")
        # When it answers, the rest is there already
        gate.set()
        await sending
        await connection.close()
    assert [line.split(" ")[0] for _, line in upstream.commands] == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize(
    "content",
    [
        [b".\r\n"],
        [b"..\r\n"],
        [b"a\r\n.\r\nb\r\n"],
        [b"a\r\n", b".", b"\r\n.b\r\n"],
        [b"a\r", b"\n.b\r\n"],
        [b"a\r\n.\r\n.\r\n..\r\n"],
        [b"", b".", b""],
        [b"no line end"],
        [b"ends in cr lf\r\n\r\n"],
        [],
        [b"x" * 700_000 + b"\r\n.y\r\n"],
        [(b"y" * 262_142) + b"\r\n", b".z" * 300_000 + b"\r\n.\r\n"],
    ],
    ids=lambda content: repr(b"|".join(content)[:24]),
)
async def test_dots_and_line_ends_survive(connection: Connection, upstream: Upstream, content: list[bytes]) -> None:
    await send(connection, "ann@example.org", content=content)
    whole = b"".join(content)
    assert upstream.taken[0].content == (whole if whole.endswith(b"\r\n") or not whole else whole + b"\r\n")


async def test_large_content_is_given_as_upstream_takes_it(upstream: Upstream, connection: Connection) -> None:
    content = [(b"0123456789abcdef" * 4 + b"\r\n") * 150_000]
    [result] = await send(connection, "ann@example.org", content=content)
    assert result.reply.code == 250
    assert upstream.taken[0].content == content[0]


# Refusals.


async def test_a_refused_sender_is_every_recipients_result(upstream: Upstream, connection: Connection) -> None:
    upstream.when("MAIL", times=1).say("550 5.1.8 who are you")
    results = await send(connection, "ann@example.org", "bob@example.org")
    assert [(result.stage, str(result.reply)) for result in results] == [(Stage.MAIL, "550 5.1.8 who are you")] * 2
    assert (await send(connection, "ann@example.org"))[0].reply.code == 250


async def test_a_refused_recipient_touches_nobody_else(upstream: Upstream, connection: Connection) -> None:
    upstream.when("RCPT", "bob@").say("550-5.1.1 no such\r\n550 5.1.1 user")
    ann, bob, eve = await send(connection, "ann@example.org", "bob@example.org", "eve@example.org")
    assert (ann.reply.code, bob.reply.code, eve.reply.code) == (250, 550, 250)
    assert (bob.stage, bob.reply.enhanced, bob.reply.text) == (Stage.RCPT, "5.1.1", "no such user")
    assert upstream.taken[0].recipients == ("ann@example.org", "eve@example.org")


@pytest.mark.parametrize("data", ["554 5.5.1 no valid recipients", "354 go ahead"])
async def test_with_every_recipient_refused_nothing_is_sent(upstream: Upstream, data: str) -> None:
    # Given an upstream that refuses the recipient, and may still take content for nobody
    upstream.when("RCPT", "bob@").say("451 4.7.1 greylisted")
    upstream.when("DATA", times=1).say(data)
    connection = await reach(upstream)
    [result] = await send(connection, "bob@example.org")
    # Then the mail was not sent, and the connection is as good as before
    assert (result.stage, result.reply.code, upstream.taken) == (Stage.RCPT, 451, [])
    upstream.calm()
    assert (await send(connection, "ann@example.org"))[0].reply.code == 250
    assert upstream.taken[0].content == b"".join(MAIL)
    await connection.close()


async def test_refused_content_is_the_result_of_those_who_were_accepted(
    upstream: Upstream, connection: Connection
) -> None:
    upstream.when("RCPT", "bob@").say("550 5.1.1 no")
    upstream.when("DOT").say("554 5.7.1 spam")
    ann, bob = await send(connection, "ann@example.org", "bob@example.org")
    assert (ann.stage, ann.reply.code, ann.lost) == (Stage.DOT, 554, False)
    assert (bob.stage, bob.reply.code) == (Stage.RCPT, 550)


async def test_refused_data_resets_the_transaction(upstream: Upstream, connection: Connection) -> None:
    upstream.when("DATA", times=1).say("451 4.3.0 not now")
    [result] = await send(connection, "ann@example.org")
    assert (result.stage, result.reply.code) == (Stage.DATA, 451)
    assert upstream.said("RSET")
    assert (await send(connection, "ann@example.org"))[0].reply.code == 250


async def test_a_refused_rset_only_ends_the_use_of_the_connection(upstream: Upstream, connection: Connection) -> None:
    upstream.when("MAIL").say("451 4.3.0 not now")
    upstream.when("RSET").say("500 what")
    [result] = await send(connection, "ann@example.org")
    assert (str(result.reply), connection.usable) == ("451 4.3.0 not now", False)


async def test_success_stays_success_whatever_quit_brings(upstream: Upstream) -> None:
    upstream.when("QUIT").say("500 5.5.1 no").drop()
    connection = await reach(upstream)
    [result] = await send(connection, "ann@example.org")
    await connection.close()
    assert result.reply.code == 250


async def test_a_quit_without_answer_is_given_up(upstream: Upstream) -> None:
    upstream.when("QUIT").hang()
    connection = await reach(upstream, HASTY)
    await connection.close()
    assert not connection.usable


async def test_a_421_is_the_last_that_is_asked_of_a_connection(upstream: Upstream, connection: Connection) -> None:
    upstream.when("DOT").say("421 4.3.2 going down")
    [result] = await send(connection, "ann@example.org")
    assert (result.stage, result.reply.code, result.lost, connection.usable) == (Stage.DOT, 421, False, False)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DOT"])
async def test_an_answer_that_asks_for_content_out_of_turn_ends_the_connection(
    upstream: Upstream, connection: Connection, verb: str
) -> None:
    """After the dot nobody knows whether it was taken."""
    upstream.when(verb).say("354 go on")
    [result] = await send(connection, "ann@example.org")
    assert (result.lost, result.stale, connection.usable) == (verb == "DOT", verb != "DOT", False)


# What upstream offers.


async def test_8bitmime_and_size_are_said_when_offered(upstream: Upstream, connection: Connection) -> None:
    await send(connection, "ann@example.org", eightbit=True)
    assert upstream.taken[0].parameters == f"SIZE={sum(map(len, MAIL))} BODY=8BITMIME"


async def test_nothing_is_said_that_is_not_offered() -> None:
    async with Upstream(size=None, eightbit=False, smtputf8=False) as upstream:
        connection = await reach(upstream)
        await send(connection, "ann@example.org", content=["grüße\r\n".encode()], eightbit=True, smtputf8=True)
        await connection.close()
    assert upstream.taken[0].parameters == ""
    assert upstream.taken[0].content == "grüße\r\n".encode()


async def test_a_limit_of_absurd_length_is_none() -> None:
    async with Upstream() as upstream:
        upstream.when("EHLO").say("250-fake\r\n250 SIZE " + "9" * 400)
        connection = await reach(upstream)
        connection.extensions = {"size": "9" * 5000}
        [result] = await send(connection, "ann@example.org")
        assert result.reply.code == 250
        await connection.close()


async def test_a_mail_over_upstreams_limit_is_not_sent() -> None:
    async with Upstream(size=20) as upstream:
        connection = await reach(upstream)
        [result] = await send(connection, "ann@example.org")
        await connection.close()
    assert (result.reply.code, result.reply.enhanced, upstream.said("MAIL")) == (552, "5.3.4", [])
    assert "20" in result.reply.text


async def test_a_utf8_address_is_said_in_utf8_where_that_is_offered(upstream: Upstream, connection: Connection) -> None:
    await send(connection, "ärger@bücher.example")
    assert upstream.taken[0].recipients == ("ärger@bücher.example",)
    assert "SMTPUTF8" in upstream.taken[0].parameters


async def test_without_smtputf8_the_domain_is_said_in_ascii() -> None:
    async with Upstream(smtputf8=False) as upstream:
        connection = await reach(upstream)
        good, bad = await send(connection, "ann@bücher.example", "ärger@example.org")
        await connection.close()
    assert upstream.taken[0].recipients == ("ann@xn--bcher-kva.example",)
    assert (good.recipient, good.reply.code) == ("ann@bücher.example", 250)
    assert (bad.stage, bad.reply.code, bad.reply.enhanced) == (Stage.RCPT, 553, "5.6.7")
    assert "SMTPUTF8" in bad.reply.text


async def test_a_sender_that_cannot_be_said_sends_nothing() -> None:
    async with Upstream(smtputf8=False) as upstream:
        connection = await reach(upstream)
        [result] = await send(connection, "ann@example.org", sender="ärger@example.com")
        await connection.close()
    assert (result.stage, result.reply.code, upstream.said("MAIL")) == (Stage.MAIL, 553, [])


@pytest.mark.parametrize(
    "address",
    ["a@b.example>\r\nRCPT TO:<eve@example.org", "a\n@b", "a\r@b", "a\0@b", "a@b> SIZE=1", "<a@b", "a\u2028@b"],
)
async def test_an_address_never_becomes_a_command(upstream: Upstream, connection: Connection, address: str) -> None:
    [as_recipient] = await send(connection, address)
    [as_sender] = await send(connection, "ann@example.org", sender=address)
    assert as_recipient.reply.code == as_sender.reply.code == 553
    assert [line for _, line in upstream.commands if not line.startswith("EHLO")] == []


# Connections that break.


@pytest.mark.parametrize(
    ("verb", "stage", "lost"),
    [("MAIL", Stage.MAIL, False), ("RCPT", Stage.RCPT, False), ("DATA", Stage.DATA, False), ("DOT", Stage.DOT, True)],
)
async def test_a_break_is_the_result_of_the_stage_it_came_in(
    upstream: Upstream, verb: str, stage: Stage, lost: bool
) -> None:
    upstream.when(verb).drop()
    connection = await reach(upstream)
    [result] = await send(connection, "ann@example.org")
    assert (result.stage, result.reply.code, result.lost, result.stale) == (stage, 451, lost, False)
    assert not connection.usable


@pytest.mark.parametrize("how", ["hang", "endless", "huge"])
@pytest.mark.parametrize(
    ("verb", "stage", "lost"), [("MAIL", Stage.MAIL, False), ("DATA", Stage.DATA, False), ("DOT", Stage.DOT, True)]
)
async def test_a_reply_without_end_is_given_up(
    upstream: Upstream, verb: str, stage: Stage, lost: bool, how: str
) -> None:
    getattr(upstream.when(verb), how)()
    connection = await reach(upstream, HASTY)
    [result] = await send(connection, "ann@example.org")
    assert (result.stage, result.reply.code, result.lost) == (stage, 451, lost)
    assert not connection.usable


async def test_a_reply_that_drips_does_not_get_more_time(upstream: Upstream) -> None:
    upstream.when("MAIL").drip(0.05)
    connection = await reach(upstream, HASTY)
    async with asyncio.timeout(PATIENCE):
        [result] = await send(connection, "ann@example.org")
    assert "did not answer" in result.reply.text


async def test_what_a_silent_upstream_has_not_got_does_not_come_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    wire = Wire(transport)
    wire.send(bytes(8 << 20), 1)  # more than both ends keep
    with pytest.raises(Lost):
        await wire.reply(0.01)
    reader, writer = await asyncio.open_connection(sock=far)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_what_is_not_smtp_ends_the_connection(upstream: Upstream) -> None:
    upstream.when("MAIL").say("<html>")
    connection = await reach(upstream)
    [result] = await send(connection, "ann@example.org")
    assert "does not speak SMTP" in result.reply.text
    assert not connection.usable


async def test_a_refusal_in_the_middle_of_the_content_is_heard(upstream: Upstream) -> None:
    # Given an upstream that refuses while it reads, then closes
    upstream.when("CONTENT").say("552 5.3.4 too much").close()
    connection = await reach(upstream)
    # When more is sent than fits between us
    [result] = await send(connection, "ann@example.org", content=[(b"x" * 76 + b"\r\n") * 300_000])
    # Then its words are the result, and nothing may have been sent
    assert (result.stage, str(result.reply), result.lost) == (Stage.DATA, "552 5.3.4 too much", False)


async def test_an_upstream_that_stops_reading_is_given_up(upstream: Upstream) -> None:
    upstream.when("CONTENT").hang()
    connection = await reach(upstream, HASTY)
    [result] = await send(connection, "ann@example.org", content=[(b"x" * 76 + b"\r\n") * 300_000])
    assert (result.stage, result.lost) == (Stage.DATA, False)


async def test_recipients_refused_before_the_break_keep_their_own_result(upstream: Upstream) -> None:
    upstream.when("RCPT", "bob@").say("550 5.1.1 no")
    upstream.when("DOT").drop()
    connection = await reach(upstream)
    ann, bob = await send(connection, "ann@example.org", "bob@example.org")
    assert (ann.lost, bob.lost, bob.reply.code) == (True, False, 550)


async def test_a_cancelled_transaction_leaves_the_connection_unusable(upstream: Upstream) -> None:
    upstream.when("MAIL").hang()
    connection = await reach(upstream)
    sending = asyncio.create_task(send(connection, "ann@example.org"))
    await upstream.heard("MAIL")
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not connection.usable
    await connection.close()


# Kept connections.


@pytest.mark.parametrize("farewell", ["421 4.4.2 idle too long", ""])
async def test_an_end_while_idle_is_noticed(upstream: Upstream, connection: Connection, farewell: str) -> None:
    await send(connection, "ann@example.org")
    if farewell:
        upstream.speak(farewell)
    else:
        upstream.drop()
    await gone(connection)
    # And whoever still tries learns that nothing was repeated
    [result] = await send(connection, "bob@example.org")
    assert (result.stage, result.stale, result.lost) == (Stage.MAIL, True, False)
    assert len(upstream.taken) == 1


@pytest.mark.parametrize("say", ["421 4.4.2 idle too long", ""])
async def test_a_kept_connection_that_ends_at_mail_is_stale(
    upstream: Upstream, connection: Connection, say: str
) -> None:
    await send(connection, "ann@example.org")
    mood = upstream.when("MAIL")
    (mood.say(say) if say else mood).drop()
    [result] = await send(connection, "bob@example.org")
    assert (result.stale, result.lost, connection.usable) == (True, False, False)


async def test_a_new_connection_is_never_stale(upstream: Upstream) -> None:
    upstream.when("MAIL").drop()
    connection = await reach(upstream)
    assert (await send(connection, "ann@example.org"))[0].stale is False


async def test_words_out_of_turn_end_the_connection(upstream: Upstream, connection: Connection) -> None:
    upstream.speak("250 2.0.0 by the way")
    await gone(connection)


# The next envelope rides behind the last mail's dot.


async def test_the_next_envelope_is_there_before_the_dot_is_answered() -> None:
    gate = asyncio.Event()
    async with Upstream() as upstream:
        upstream.when("DOT", times=1).wait(gate).say("250 ok")
        connection = await reach(upstream)
        sending = asyncio.create_task(send(connection, "ann@example.org", following=to("bob@example.org")))
        await upstream.heard("DATA")
        gate.set()
        await sending
        # Upstream waits for the content of the second, and takes nothing else now
        await upstream.heard("RCPT TO:<BOB@")
        assert not connection.usable
        assert connection.takes(to("bob@example.org"))
        assert not connection.takes(to("eve@example.org"))
        [result] = await send(connection, "bob@example.org")
        assert (result.stage, result.reply.code) == (Stage.DOT, 250)
        assert connection.usable
        await connection.close()
    assert [mail.recipients for mail in upstream.taken] == [("ann@example.org",), ("bob@example.org",)]
    assert [line.split(" ")[0] for _, line in upstream.commands] == [
        "EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT",
    ]  # fmt: skip


async def test_what_was_told_of_and_never_came_leaves_nothing_behind(
    upstream: Upstream, connection: Connection
) -> None:
    await send(connection, "ann@example.org", following=to("bob@example.org"))
    await connection.close()
    assert [mail.recipients for mail in upstream.taken] == [("ann@example.org",)]


async def test_who_does_not_pipeline_is_told_one_thing_at_a_time() -> None:
    async with Upstream(pipelining=False) as upstream:
        connection = await reach(upstream)
        await send(connection, "ann@example.org", following=to("bob@example.org"))
        assert connection.usable
        assert upstream.said("RCPT") == ["RCPT TO:<ann@example.org>"]
        await connection.close()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_what_is_refused_ahead_of_its_turn_is_its_own_result(verb: str) -> None:
    async with Upstream() as upstream:
        connection = await reach(upstream)
        # An upstream that is known to keep in step
        await send(connection, "eve@example.org", following=to("eve@example.org"))
        await send(connection, "eve@example.org")
        gate = asyncio.Event()
        upstream.when("DOT", times=1).wait(gate).say("250 ok")
        sending = asyncio.create_task(send(connection, "ann@example.org", following=to("bob@example.org")))
        await upstream.heard("RCPT TO:<ANN@")
        upstream.when(verb, "bob@" if verb == "RCPT" else "", times=1).say("452 4.5.3 not now")
        gate.set()
        [first] = await sending
        [second] = await send(connection, "bob@example.org")
        assert (first.stage, first.reply.code) == (Stage.DOT, 250)
        assert (second.stage, second.reply.code) == (Stage(verb.lower()), 452)
        # And the connection is as good as ever
        [third] = await send(connection, "cid@example.org")
        assert (third.stage, third.reply.code) == (Stage.DOT, 250)
        await connection.close()
    assert [mail.recipients[0][:3] for mail in upstream.taken] == ["eve", "eve", "ann", "cid"]


@pytest.mark.parametrize("how", ["hangs up", "falls silent"])
async def test_an_upstream_that_loses_what_is_behind_a_dot_has_balked(how: str) -> None:
    """Nothing is repeated by trying it again; whoever does had better say one thing at a time."""
    async with Upstream() as upstream:
        connection = await reach(upstream, HASTY)
        gate = asyncio.Event()
        upstream.when("DOT", times=1).wait(gate).say("250 ok")
        sending = asyncio.create_task(send(connection, "ann@example.org", following=to("bob@example.org")))
        await upstream.heard("DATA")
        mood = upstream.when("MAIL")
        mood.drop() if how == "hangs up" else mood.hang()
        gate.set()
        await sending
        [result] = await send(connection, "bob@example.org")
        assert (result.stage, result.stale, result.lost) == (Stage.MAIL, True, False)
        assert (connection.balked, connection.usable) == (True, False)


@pytest.mark.parametrize("say", ["421 4.3.2 enough for today", ""])
async def test_an_upstream_that_leaves_before_the_turn_of_what_it_was_told_has_balked(say: str) -> None:
    async with Upstream() as upstream:
        connection = await reach(upstream)
        mood = upstream.when("DOT").say("250 ok")
        (mood.say(say) if say else mood).close()
        [result] = await send(connection, "ann@example.org", following=to("bob@example.org"))
        await gone(connection)
        assert result.reply.code == 250
        assert (connection.takes(to("bob@example.org")), connection.balked) == (False, True)


async def test_one_that_took_such_an_envelope_before_has_just_left() -> None:
    async with Upstream() as upstream:
        connection = await reach(upstream)
        await send(connection, "ann@example.org", following=to("bob@example.org"))
        await send(connection, "bob@example.org", following=to("cid@example.org"))
        upstream.drop()
        await gone(connection)
        assert not connection.balked


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("MAIL", "503 5.5.1 nested MAIL command"),  # or it lost MAIL, and this is said of RCPT
        ("MAIL", "554 5.5.0 improper command pipelining"),
        ("RCPT", "503 5.5.1 need MAIL first"),
        ("RCPT", "554 5.5.0 improper command pipelining"),
        ("RCPT", "354 go on"),
        ("DATA", "250 2.1.5 ok"),  # one reply too many somewhere: this was RCPT's
        ("DATA", "503 5.5.1 no valid recipients"),  # though it took them
    ],
)
async def test_replies_out_of_step_are_nobodys(verb: str, says: str) -> None:
    """They are asked anew, one thing at a time: that a mail is refused must be said of it."""
    async with Upstream() as upstream:
        connection = await reach(upstream)
        gate = asyncio.Event()
        upstream.when("DOT", times=1).wait(gate).say("250 ok")
        both = to("bob@example.org", "cid@example.org")
        sending = asyncio.create_task(send(connection, "ann@example.org", following=both))
        await upstream.heard("DATA")
        upstream.when("RCPT", "cid@", times=1).say("550 5.1.1 nobody")
        upstream.when(verb, times=1).say(says)
        gate.set()
        await sending
        results = await send(connection, "bob@example.org", "cid@example.org")
        assert [(one.stage, one.stale, one.lost) for one in results] == [(Stage.MAIL, True, False)] * 2
        assert (connection.balked, connection.usable) == (True, False)
    assert [mail.recipients for mail in upstream.taken] == [("ann@example.org",)]


async def test_what_was_told_long_ago_is_not_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.net.transaction.FRESH", 0.0)
    async with Upstream() as upstream:
        connection = await reach(upstream)
        await send(connection, "ann@example.org", following=to("bob@example.org"))
        assert not connection.takes(to("bob@example.org"))
        await connection.close()


async def test_a_dot_is_not_written_to_a_connection_that_has_ended() -> None:
    async with Upstream() as upstream:
        upstream.when("DATA").say("354 go on").drop()
        connection = await reach(upstream)
        gone_by_then = connection._wire.drained

        async def drained(seconds: float) -> None:
            await gone(connection)
            await gone_by_then(seconds)

        connection._wire.drained = drained  # type: ignore[method-assign]
        [result] = await send(connection, "ann@example.org")
        assert (result.stage, result.lost) == (Stage.DATA, False)


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
async def test_what_was_told_of_repeats_nothing_when_the_connection_ends_before_its_content(verb: str) -> None:
    """Though upstream had begun to answer it."""
    async with Upstream() as upstream:
        connection = await reach(upstream)
        gate = asyncio.Event()
        upstream.when("DOT", times=1).wait(gate).say("250 ok")
        sending = asyncio.create_task(send(connection, "ann@example.org", following=to("bob@example.org")))
        await upstream.heard("DATA")
        upstream.when(verb, times=1).drop()
        gate.set()
        await sending
        [result] = await send(connection, "bob@example.org")
        assert (result.stale, result.lost) == (True, False)


async def test_a_connection_that_has_ended_was_told_of_nothing() -> None:
    async with Upstream() as upstream:
        upstream.when("DOT").drop()
        connection = await reach(upstream)
        [result] = await send(connection, "ann@example.org", following=to("bob@example.org"))
        assert (result.lost, connection.told) == (True, False)


async def test_an_upstream_that_answers_a_dot_with_421_has_not_balked() -> None:
    async with Upstream() as upstream:
        upstream.when("DOT").say("421 4.7.0 too many messages").close()
        connection = await reach(upstream)
        [result] = await send(connection, "ann@example.org", following=to("bob@example.org"))
        assert (result.reply.code, result.lost, connection.balked, connection.usable) == (421, False, False, False)
