"""Posting to endpoints that behave, that fail and that mean harm."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from relay.net import http
from relay.net.http import Answer, Poster
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import certificate

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@asynccontextmanager
async def posting(**given: Any) -> AsyncIterator[Poster]:
    poster = Poster(**{"seconds": 5, "allowed": LOOPBACK} | given)
    yield poster
    await poster.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def posted(url: str, **given: Any) -> Answer:
    async with posting(**given) as poster:
        return await poster.post(url, b'{"a":1}', {"X-One": "1"})


class Dns:
    """A resolver that answers what the test says, and remembers who asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]


async def test_bytes_and_headers_arrive_as_given(receiver: Receiver) -> None:
    answer = await posted(receiver.url("/a%2Fb?sig=a%2Fb%3D"))
    (post,) = receiver.posts
    assert answer.good
    assert (answer.status, answer.error, answer.response) == (204, "", "")
    assert (post.path, post.body, post.headers["x-one"]) == ("/a%2Fb?sig=a%2Fb%3D", b'{"a":1}', "1")
    assert post.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_any_2xx_is_success(receiver: Receiver, status: int) -> None:
    receiver.when().say(status, b"fine")
    answer = await posted(receiver.url())
    assert (answer.status, answer.error, answer.response) == (status, "", "fine")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "it answered 400 Bad Request"),
        (500, "it answered 500 Internal Server Error"),
        (599, "it answered 599"),
        (304, "it answered 304 Not Modified; redirects are not followed"),
    ],
)
async def test_any_other_status_is_a_failure(receiver: Receiver, status: int, error: str) -> None:
    receiver.when().say(status)
    answer = await posted(receiver.url())
    assert (answer.status, answer.error, answer.good) == (status, error, False)


async def test_gone_is_told_apart(receiver: Receiver) -> None:
    receiver.when("/gone").say(410)
    async with posting() as poster:
        assert (await poster.post(receiver.url("/gone"), b"", {})).gone
        assert not (await poster.post(receiver.url(), b"", {})).gone


async def test_a_redirect_is_told_and_not_followed(receiver: Receiver) -> None:
    receiver.when("/a").say(307, Location=receiver.url("/b"))
    answer = await posted(receiver.url("/a"))
    assert answer.error == f"it answered 307 Temporary Redirect; redirects are not followed (to {receiver.url('/b')})"
    assert [post.path for post in receiver.posts] == ["/a"]


async def test_a_connection_is_kept(receiver: Receiver) -> None:
    async with posting() as poster:
        for _ in range(5):
            assert (await poster.post(receiver.url(), b"", {})).good
    assert receiver.connections == 1


async def test_a_kept_connection_that_was_closed_is_replaced(receiver: Receiver) -> None:
    async with posting() as poster:
        await asyncio.gather(*(poster.post(receiver.url(), b"", {}) for _ in range(3)))
        receiver.when(times=2).drop()  # as if the keep-alive had just run out
        answers = [await poster.post(receiver.url(), b"", {}) for _ in range(2)]
    assert [answer.status for answer in answers] == [204, 204]


async def test_a_fresh_connection_that_is_closed_is_a_failure(receiver: Receiver) -> None:
    receiver.when().drop()
    answer = await posted(receiver.url())
    assert (answer.status, answer.error) == (None, "the connection was closed before an answer came")
    assert len(receiver.posts) == 1


async def test_silence_ends_in_time(receiver: Receiver) -> None:
    receiver.when().hang()
    answer = await posted(receiver.url(), seconds=0.1)
    assert (answer.status, answer.error) == (None, "no answer within 0.1 s")
    assert answer.seconds >= 0.1


async def test_an_answer_that_breaks_off_is_an_answer_once_its_status_is_known(receiver: Receiver) -> None:
    receiver.when("/early").say_raw(b"HTTP/1.1 20").drop()
    receiver.when("/late").say_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").drop()
    early, late = await posted(receiver.url("/early")), await posted(receiver.url("/late"))
    assert (early.status, early.good) == (None, False)
    assert (late.status, late.good, late.response) == (200, True, "half")


async def test_a_gigabyte_costs_nothing(receiver: Receiver) -> None:
    receiver.when().endless(1 << 30)
    answer = await posted(receiver.url())
    assert (answer.status, answer.response) == (200, "x" * http.KEPT)
    assert receiver.written < 32 << 20  # what the system's buffers took


async def test_a_body_that_drips_is_not_waited_for(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.1)
    receiver.when().drip(0.01)
    answer = await posted(receiver.url())
    assert (answer.status, answer.good) == (200, True)
    assert answer.seconds < 4  # of the five that a post may take


async def test_a_packed_answer_stays_packed(receiver: Receiver) -> None:
    receiver.when().say(200, b"\x1f\x8b\x00", Content_Encoding="gzip")
    answer = await posted(receiver.url())
    assert (answer.status, answer.response) == (200, "\x1f��")


async def test_what_is_kept_of_an_answer_can_be_stored(receiver: Receiver) -> None:
    receiver.when().say_raw(b"HTTP/1.1 302 Found\r\nLocation: /\xff\xfe\r\nContent-Length: 3\r\n\r\n\0\xffa")
    answer = await posted(receiver.url())
    assert answer.response == "��a"
    assert "\0" not in answer.error
    answer.error.encode()


@pytest.mark.parametrize(
    "raw", [b"220 smtp.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_is_told(receiver: Receiver, raw: bytes) -> None:
    receiver.when().say_raw(raw).drop()
    answer = await posted(receiver.url())
    assert answer.status is None
    assert answer.error.startswith("the answer is not HTTP")


async def test_what_is_told_of_no_http_is_short(receiver: Receiver) -> None:
    """The parser tells all that came: it would be kept with every try."""
    receiver.when().say_raw(b"HTTP/1.1 200 OK\r\n" + b"\x80\xff" * 5_000).drop()
    assert len((await posted(receiver.url())).error) <= http.LONGEST_ERROR


@pytest.mark.parametrize(("interim", "status"), [(10, 200), (11, None)])
async def test_so_many_interim_answers_and_no_more(receiver: Receiver, interim: int, status: int | None) -> None:
    receiver.when().say_raw(b"HTTP/1.1 100 Continue\r\n\r\n" * interim).say(200)
    assert (await posted(receiver.url())).status == status


async def test_endless_interim_answers_end_at_once_and_keep_nobody_waiting(receiver: Receiver) -> None:
    receiver.when("/evil").say_raw(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 200_000)
    async with posting() as poster:
        evil, good = await asyncio.gather(
            poster.post(receiver.url("/evil"), b"{}", {}), poster.post(receiver.url("/good"), b"{}", {})
        )
    assert evil.error == "the answer is not HTTP: more than 10 interim answers (1xx)"
    assert good.good
    assert evil.seconds < 4


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        answer = await posted(f"http://127.0.0.1:{port}/")
    assert answer.error == f"no connection to 127.0.0.1 port {port}: connection refused"


async def test_a_name_that_there_is_not() -> None:
    async def nobody(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answer = await posted("http://nowhere.invalid/", resolver=nobody)
    assert answer.error == "no such host: nowhere.invalid (Name or service not known)"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[fe80::1]/",
        "http://2130706433:{port}/",
        "http://0x7f.1:{port}/",
        "http://127.1:{port}/",
    ],
)
async def test_addresses_of_our_own_network_are_not_dialled(receiver: Receiver, url: str) -> None:
    answer = await posted(url.format(port=receiver.port), allowed=())
    assert answer.status is None
    assert "refused" in answer.error or "URL" in answer.error
    assert not receiver.connections


async def test_why_an_address_is_refused_and_who_can_allow_it() -> None:
    answer = await posted("http://10.0.0.1/", allowed=())
    assert answer.error == "10.0.0.1 refused: private address. The operator can allow it with POSTFERRY_ALLOW_NETWORKS"


async def test_a_name_that_leads_inside_is_refused(receiver: Receiver) -> None:
    dns = Dns("127.0.0.1")
    answer = await posted(f"http://hooks.example:{receiver.port}/", allowed=(), resolver=dns)
    assert answer.error.startswith("hooks.example is 127.0.0.1, refused: loopback address")
    assert (dns.asked, receiver.connections) == (1, 0)


async def test_a_name_that_changes_its_mind_leads_nowhere_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.2 is allowed, 127.0.0.1 is not: the first answer is dialled and kept, the second one is refused."""
    monkeypatch.setattr("aiohttp.connector._DNSCacheTable.expired", lambda self, key: True)
    receiver.host = "0.0.0.0"
    async with (
        Receiver() as other,
        posting(allowed=(ip_network("127.0.0.2/32"),), resolver=Dns("127.0.0.2", "127.0.0.1")) as poster,
    ):
        server = await asyncio.start_server(other._serve, "127.0.0.2", receiver.port)
        url = f"http://hooks.example:{receiver.port}/"
        assert (await poster.post(url, b"", {})).good
        other.drop()
        answer = await poster.post(url, b"", {})
        server.close()
    assert "127.0.0.1, refused: loopback address" in answer.error
    assert (len(other.posts), receiver.connections) == (1, 0)


async def test_the_address_is_judged_at_dial_even_where_the_answer_of_dns_is_kept(receiver: Receiver) -> None:
    """The connector's own memory of names is passed by: whatever is in it, a socket is made for permitted addresses."""
    async with posting(allowed=(), resolver=Dns("127.0.0.1")) as poster:
        connector = poster._session.connector
        assert connector is not None
        found = [
            {"hostname": "x.example", "host": "127.0.0.1", "port": receiver.port, "family": 2, "proto": 0, "flags": 0}
        ]
        connector._cached_hosts.add(("x.example", receiver.port), found)  # type: ignore[attr-defined]
        answer = await poster.post(f"http://x.example:{receiver.port}/", b"", {})
    assert "refused: loopback address" in answer.error
    assert not receiver.connections


async def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        assert (await posted(receiver.url())).good
        assert not proxy.connections


async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.when().say(200, Set_Cookie="a=b")
    async with posting() as poster:
        for _ in range(2):
            await poster.post(receiver.url(), b"", {})
    assert not any("cookie" in post.headers for post in receiver.posts)


async def test_certificates_are_verified() -> None:
    trusting = ssl.create_default_context(cadata=certificate()[0].decode())
    async with Receiver(tls=True) as receiver:
        refused = await posted(receiver.url())
        good = await posted(receiver.url(), tls=trusting)
    assert refused.error.startswith("the certificate is refused: self-signed certificate")
    assert (good.status, len(receiver.posts)) == (204, 1)


async def test_a_server_without_tls_is_told() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        answer = await posted(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert answer.error.startswith("no TLS connection")


async def test_names_that_hang_take_no_thread_of_the_loop(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever so many names whose servers never answer: another name is looked up at once."""
    hanging, system = asyncio.Event(), socket.getaddrinfo
    loop = asyncio.get_running_loop()

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if str(host).endswith("hang.example"):
            asyncio.run_coroutine_threadsafe(hanging.wait(), loop).result(60)  # longer than a post may take
            raise socket.gaierror(socket.EAI_AGAIN, "late")
        return system(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with posting() as poster:
        late = [asyncio.create_task(poster.post(f"http://{n}.hang.example/", b"", {})) for n in range(50)]
        assert (await poster.post(f"http://localhost:{receiver.port}/", b"", {})).good
        hanging.set()
        assert {(await task).status for task in late} == {None}


async def test_a_lack_of_sockets_is_not_the_endpoints_failure(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, os.strerror(24))

    async with posting() as poster:
        monkeypatch.setattr(socket, "socket", none_left)
        with pytest.raises(http.Exhausted):
            await poster.post(receiver.url(), b"", {})
