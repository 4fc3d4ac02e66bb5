"""Mail over Mailgun's API, against a server that behaves and misbehaves: every recipient has one clear result."""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.classify import classify
from relay.core.model import Outcome
from relay.core.reply import Stage
from relay.core.tenant import Mailgun
from relay.net import exchange, mailgun
from relay.net.envelope import Envelope
from relay.net.smtp import UpstreamError
from relay.net.transaction import Result, Timeouts
from tests.fakes.mailgun import DOMAIN, KEY, MailgunServer
from tests.stack import until

LOOPBACK = [ip_network("127.0.0.0/8")]
MAIL = b"From: ann@mg.example.com\r\nMessage-ID: <1.2@mg.example.com>\r\n\r\n.\r\n..\r\n\x00\xff bytes\r\n"
LARGE = MAIL + b"0123456789abcdef" * (3 << 16)  # 3 MiB: many slices
HUGE = MAIL + bytes(48 << 20)  # more than the system's buffers hold


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with MailgunServer() as server:
        yield server


@asynccontextmanager
async def connected(server: MailgunServer, seconds: float = 5, **given: Any) -> AsyncIterator[mailgun.Connection]:
    settings = Mailgun(**{"domain": DOMAIN, "api_key": KEY, "base_url": server.url} | given)
    connection = await mailgun.connect(settings, allowed=LOOPBACK, timeouts=Timeouts(5, seconds, seconds))
    try:
        yield connection
    finally:
        await connection.close()


async def send(connection: mailgun.Connection, *to: str, content: Sequence[bytes] = (MAIL,)) -> Sequence[Result]:
    size = sum(map(len, content))
    envelope = Envelope("ann@here.example", to or ("bob@there.example",), size, eightbit=True)
    return await connection.transact(envelope, content)


async def sent(server: MailgunServer, content: bytes = MAIL, **given: Any) -> Result:
    async with connected(server, **given) as connection:
        return (await send(connection, content=[content]))[0]


async def test_the_mail_arrives_byte_for_byte(server: MailgunServer) -> None:
    async with connected(server) as connection:
        [result] = await send(connection, content=[MAIL[:9], b"<img>", MAIL[9:]])
    [taken] = server.taken
    assert (taken.to, taken.content) == ("bob@there.example", MAIL[:9] + b"<img>" + MAIL[9:])
    assert taken.fields == {"o:tracking": "no"}
    assert (result.stage, result.reply.code, result.lost, result.stale) == (Stage.DOT, 250, False, False)
    assert result.reply.text == "Queued. Thank you. id=1.2@mg.example.com"


async def test_a_large_mail_arrives_byte_for_byte(server: MailgunServer) -> None:
    assert (await sent(server, LARGE)).reply.code == 250
    assert server.taken[0].content == LARGE


async def test_large_mail_is_written_in_slices_of_itself() -> None:
    pieces = exchange._cut(LARGE)
    assert {type(piece) for piece in pieces} == {memoryview}
    assert all(piece.obj is LARGE for piece in pieces if isinstance(piece, memoryview))
    assert b"".join(pieces) == LARGE


async def test_an_account_in_test_says_so(server: MailgunServer) -> None:
    await sent(server, test=True)
    assert server.taken[0].fields["o:testmode"] == "yes"


async def test_each_recipient_is_a_request_on_one_connection(server: MailgunServer) -> None:
    server.when("bad@there.example").say(400, {"message": "'to' parameter is not a valid address. please check"})
    async with connected(server) as connection:
        results = await send(connection, "a@there.example", "bad@there.example", "b@there.example")
        await send(connection, "c@there.example")
        assert (connection.used, connection.usable) == (2, True)
    assert [result.recipient for result in results] == ["a@there.example", "bad@there.example", "b@there.example"]
    assert [(result.stage, result.reply.code) for result in results] == [("dot", 250), ("rcpt", 501), ("dot", 250)]
    assert [taken.to for taken in server.taken] == ["a@there.example", "b@there.example", "c@there.example"]
    assert server.connections == 1


async def test_a_domain_beyond_ascii_travels_in_ascii(server: MailgunServer) -> None:
    async with connected(server) as connection:
        await send(connection, "jörg@bücher.example", "jan@bücher.example")
    assert [taken.to for taken in server.taken] == ["jörg@xn--bcher-kva.example", "jan@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "address", ['a@x.example\r\n--x\r\nname="to"\r\n\r\nb@x.example', "a\x00@x.example", "a\u2028@x"]
)
async def test_no_address_says_more_than_itself(server: MailgunServer, address: str) -> None:
    async with connected(server) as connection:
        [result] = await send(connection, address)
    assert (result.stage, result.reply.code) == (Stage.RCPT, 553)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "body", "outcome", "category"),
    [
        (401, {"message": "Invalid private key"}, Outcome.HELD, "mailgun_key"),
        (401, "Forbidden", Outcome.HELD, "mailgun_key"),
        (402, {"message": "Payment Required"}, Outcome.HELD, "mailgun_disabled"),
        (404, {"message": "Domain not found: mg.example.com"}, Outcome.HELD, "mailgun_domain"),
        (404, "404 page not found", Outcome.HELD, "not_mailgun"),
        (413, {"message": "Request Entity Too Large"}, Outcome.FAILED, "too_large"),
        (429, {"message": "Too Many Requests"}, Outcome.HELD, "asked_to_wait"),
        (500, {"message": "Internal Server Error"}, Outcome.DEFERRED, "upstream_trouble"),
        (502, "<html>Bad Gateway</html>", Outcome.DEFERRED, "upstream_trouble"),
        (200, "Mailgun Magnificent API", Outcome.HELD, "not_mailgun"),
        (200, b"\xff\x00{{{", Outcome.HELD, "not_mailgun"),
        (200, {"id": 17}, Outcome.HELD, "not_mailgun"),
        (302, "", Outcome.HELD, "not_mailgun"),
        (405, {"message": "Method Not Allowed"}, Outcome.HELD, "not_mailgun"),
    ],
)
async def test_what_an_answer_means(
    server: MailgunServer, status: int, body: object, outcome: Outcome, category: str
) -> None:
    server.when().say(status, body, Location="http://127.0.0.1:1/")
    result = await sent(server)
    verdict = classify(result.reply, result.stage)
    assert (verdict.outcome, verdict.category) == (outcome, category)
    assert (result.lost, result.stale) == (False, False)


async def test_a_pause_is_as_long_as_it_is_asked_for(server: MailgunServer) -> None:
    server.when().say(429, {"message": "Too Many Requests"}, Retry_After="437")
    result = await sent(server)
    verdict = classify(result.reply, result.stage)
    assert (verdict.wait, verdict.rests) == (437, True)


async def test_silence_after_the_request_may_be_a_sent_mail(server: MailgunServer) -> None:
    server.when().hang()
    assert (await sent(server, seconds=1.0)).lost


@pytest.mark.parametrize("content", [MAIL, LARGE], ids=["small", "large"])
async def test_a_connection_that_breaks_after_the_request_may_be_a_sent_mail(
    server: MailgunServer, content: bytes
) -> None:
    server.when().drop()
    result = await sent(server, content)
    assert (result.lost, result.stale) == (True, False)


async def test_a_gateway_that_gave_up_waiting_may_be_a_sent_mail(server: MailgunServer) -> None:
    server.when().say(504, "<html>Gateway Timeout</html>")
    assert (await sent(server)).lost


async def test_an_answer_that_breaks_off_may_be_a_sent_mail(server: MailgunServer) -> None:
    server.when().say_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": ').drop()
    result = await sent(server)
    assert (result.lost, result.stale) == (True, False)


async def test_an_answer_without_an_end_is_a_strangers(server: MailgunServer) -> None:
    server.when().endless()
    result = await sent(server)
    assert (result.lost, result.reply.code) == (False, 451)


async def test_what_did_not_leave_whole_was_not_sent(server: MailgunServer) -> None:
    server.unread("drop")
    result = await sent(server, HUGE)
    assert (result.lost, result.stale, result.reply.code) == (False, False, 451)


async def test_a_server_that_reads_nothing_was_sent_nothing(server: MailgunServer) -> None:
    server.unread("hang")
    result = await sent(server, HUGE, seconds=0.2)
    assert (result.lost, result.stale) == (False, False)
    assert result.reply.text == "127.0.0.1 did not answer in time"


async def test_an_answer_before_all_was_read_is_heard(server: MailgunServer) -> None:
    server.unread(413)
    result = await sent(server, HUGE)
    assert (result.reply.code, result.lost) == (552, False)


async def test_a_kept_connection_that_is_closed_is_known_to_be(server: MailgunServer) -> None:
    async with connected(server) as connection:
        await send(connection)
        server.drop()
        await until(lambda: not connection.usable)  # our side has seen it
        [result] = await send(connection)
    assert (result.stale, result.lost) == (True, False)
    assert len(server.taken) == 1


async def test_a_connection_that_mailgun_closes_is_of_no_more_use(server: MailgunServer) -> None:
    server.when().say(200, {"id": "<x@y>", "message": "Queued. Thank you."}, Connection="close")
    async with connected(server) as connection:
        assert (await send(connection))[0].reply.code == 250
        assert not connection.usable


async def test_a_cancelled_request_leaves_no_use(server: MailgunServer) -> None:
    server.when().hang()
    async with connected(server) as connection:
        task = asyncio.create_task(send(connection))
        await until(lambda: bool(server.requests))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not connection.usable


@pytest.mark.parametrize(
    ("status", "body", "greeted"),
    [
        (200, {"id": "<x@y>"}, True),
        (400, {"message": "to parameter is missing"}, True),
        (401, "Forbidden", False),
        (429, {"message": "Too Many Requests"}, False),
        (500, "", False),
        (200, "Mailgun Magnificent API", False),
    ],
)
async def test_mailgun_has_let_us_in_once_it_judged_a_mail(
    server: MailgunServer, status: int, body: object, greeted: bool
) -> None:
    server.when().say(status, body)
    async with connected(server) as connection:
        assert not connection.greeted
        await send(connection)
        assert connection.greeted == greeted


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = Mailgun(DOMAIN, KEY, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UpstreamError) as caught:
            await mailgun.connect(settings, allowed=LOOPBACK, timeouts=Timeouts(5, 5, 5))
    assert (caught.value.kind, caught.value.stage) == ("unreachable", Stage.CONNECT)


async def test_a_private_address_is_refused_as_it_is_dialled(server: MailgunServer) -> None:
    async def inside(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]

    settings = Mailgun(DOMAIN, KEY, "https://api.mailgun.example")
    with pytest.raises(UpstreamError) as caught:
        await mailgun.connect(settings, allowed=[], timeouts=Timeouts(5, 5, 5), resolver=inside)
    assert caught.value.kind == "forbidden"
    assert server.connections == 0


async def test_over_tls() -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    steps: list[str] = []
    async with MailgunServer(tls=True) as server:
        settings = Mailgun(DOMAIN, KEY, server.url)
        connection = await mailgun.connect(
            settings, allowed=LOOPBACK, timeouts=Timeouts(5, 5, 5), context=trusting, passed=steps.append
        )
        assert (await send(connection, content=[LARGE]))[0].reply.code == 250
        await connection.close()
    assert steps == ["resolve", "connect", "tls"]


async def test_a_certificate_of_nobody_is_refused_before_the_key_is_told() -> None:
    async with MailgunServer(tls=True) as server:
        with pytest.raises(UpstreamError) as caught:
            await mailgun.connect(Mailgun(DOMAIN, KEY, server.url), allowed=LOOPBACK, timeouts=Timeouts(5, 5, 5))
        assert (caught.value.kind, caught.value.stage) == ("certificate", Stage.TLS)
        assert server.requests == []


async def test_a_base_url_may_have_a_path(server: MailgunServer) -> None:
    await sent(server, base_url=f"{server.url}/behind/a%20proxy")
    assert server.requests == [("POST", "/behind/a%20proxy/v3/mg.example.com/messages.mime")]


async def test_a_knock_sends_nothing(server: MailgunServer) -> None:
    async with connected(server) as connection:
        assert (await connection.knock()).status == 400
    assert server.taken == []


async def test_no_key_in_what_is_shown() -> None:
    assert KEY not in repr(Mailgun(DOMAIN, KEY))


async def test_a_key_that_an_answer_repeats_is_in_no_reply(server: MailgunServer) -> None:
    server.when().say(400, {"message": f"your key {KEY} is no good for this"})
    assert KEY not in (await sent(server)).reply.text


async def test_a_packed_answer_is_not_unpacked(server: MailgunServer) -> None:
    """Given 128 MB in 128 KB, then it is read as the bytes that it is, and names no mail that was taken."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 7)) + packer.flush()
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    server.when().say_raw(head + bomb)
    result = await sent(server)
    assert result.reply.code != 250
    assert len(result.reply.text) < 1000
