"""Reaching an upstream: addresses, TLS, EHLO, AUTH, and what is said when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.reply import Stage
from relay.core.tenant import Smtp, Tls
from relay.net.envelope import Envelope
from relay.net.smtp import Connection, Timeouts, UpstreamError, connect
from tests.fakes.resolver import Fickle, answering
from tests.fakes.upstream import Upstream
from tests.stack import PATIENCE

LOCAL = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
TIMEOUTS = Timeouts(connect=20, command=20, data=20)
HASTY = Timeouts(connect=0.3, command=0.3, data=0.3)


def account(upstream: Upstream, tls: Tls = Tls.NONE, **changes: Any) -> Smtp:
    return replace(Smtp(upstream.host, upstream.port, tls=tls), **changes)


@asynccontextmanager
async def reached(smtp: Smtp, timeouts: Timeouts = TIMEOUTS, **changes: Any) -> AsyncIterator[Connection]:
    given: dict[str, Any] = {"hostname": "us.example", "allowed": LOCAL, "sandbox_port": 0} | changes
    connection = await connect(smtp, timeouts=timeouts, **given)
    yield connection
    await connection.close()


async def refusal(smtp: Smtp, timeouts: Timeouts = TIMEOUTS, **changes: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as fault:
        async with reached(smtp, timeouts, **changes):
            pass
    return fault.value


# Dialling.


async def test_our_name_is_said_in_ehlo() -> None:
    async with Upstream() as upstream:
        async with reached(account(upstream)):
            pass
        async with reached(account(upstream, name="mail.tenant.example")):
            pass
        async with reached(account(upstream, name="no name\r\nMAIL FROM:<>")):
            pass
    assert upstream.said("EHLO") == ["EHLO us.example", "EHLO mail.tenant.example", "EHLO localhost"]


async def test_a_private_host_is_refused_unless_allowed() -> None:
    async with Upstream() as upstream:
        fault = await refusal(account(upstream), allowed=[])
        assert upstream.connections == 0
    assert (fault.stage, fault.kind, fault.reply.code) == (Stage.CONNECT, "forbidden", 550)
    assert fault.reply.text == "127.0.0.1 refused: loopback address"


async def test_a_name_that_points_inside_is_refused() -> None:
    async with Upstream() as upstream:
        smtp = Smtp("mx.example.com", upstream.port, tls=Tls.NONE)
        fault = await refusal(smtp, allowed=[], resolver=answering("127.0.0.1", port=upstream.port))
        assert (fault.kind, upstream.connections) == ("forbidden", 0)


async def test_the_address_that_was_judged_is_the_one_that_is_dialled() -> None:
    # Given a name that leads to a permitted address when it is judged, and elsewhere later
    async with Upstream() as upstream:
        fickle = Fickle(upstream.port)
        async with reached(Smtp("mx.example.com", upstream.port, tls=Tls.NONE), resolver=fickle) as connection:
            assert connection.usable
        assert fickle.asked == 1


async def test_the_sandbox_is_the_sink_of_this_machine() -> None:
    async with (
        Upstream() as upstream,
        reached(Smtp("sandbox", 25), allowed=[], sandbox_port=upstream.port) as connection,
    ):
        assert connection.usable


async def test_without_a_sandbox_its_name_is_a_name_like_others() -> None:
    fault = await refusal(Smtp("sandbox", 25), resolver=answering(port=25))
    assert fault.kind == "dns"


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with Upstream() as upstream:
        smtp = Smtp("mx.example.com", upstream.port, tls=Tls.NONE)
        async with reached(smtp, resolver=answering("127.0.0.2", "127.0.0.1", port=upstream.port)) as connection:
            assert connection.usable


async def test_nobody_there_is_said_with_host_and_port() -> None:
    async with Upstream() as upstream:
        smtp = account(upstream)
    fault = await refusal(smtp)
    assert (fault.stage, fault.kind, fault.reply.enhanced) == (Stage.CONNECT, "unreachable", "4.4.1")
    assert str(smtp.port) in fault.reply.text
    assert "refused" in fault.reply.text


async def test_a_resolver_that_hangs_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        await asyncio.Event().wait()
        return []

    fault = await refusal(Smtp("mx.example.com", 25), HASTY, resolver=never)
    assert (fault.kind, fault.reply.enhanced) == ("dns", "4.4.3")


# Greeting and EHLO.


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
@pytest.mark.parametrize("how", ["hang", "endless", "huge", "drop"])
async def test_an_upstream_that_does_not_greet_is_given_up(verb: str, how: str) -> None:
    async with Upstream() as upstream:
        getattr(upstream.when(verb), how)()
        fault = await refusal(account(upstream), HASTY)
    assert (str(fault.stage), fault.reply.code) == (verb.lower(), 451)


async def test_a_greeting_that_drips_does_not_get_more_time() -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").drip(0.05)
        async with asyncio.timeout(PATIENCE):
            await refusal(account(upstream), HASTY)


async def test_a_refused_greeting_is_upstreams_reply() -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").say("554-5.7.1 no\r\n554 5.7.1 thanks").close()
        fault = await refusal(account(upstream))
    assert (fault.stage, fault.kind, str(fault.reply)) == (Stage.CONNECT, "refused", "554 5.7.1 no thanks")


async def test_what_is_not_smtp_is_said_to_be_none() -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").say("HTTP/1.1 400 Bad Request")
        fault = await refusal(account(upstream))
    assert "does not speak SMTP" in fault.reply.text


async def test_a_server_without_ehlo_is_greeted_with_helo() -> None:
    async with Upstream() as upstream:
        upstream.when("EHLO").say("502 5.5.1 what")
        async with reached(account(upstream)) as connection:
            assert connection.extensions == {}
        assert upstream.said("HELO")


# TLS.


@pytest.mark.parametrize(
    ("kind", "tls"), [("implicit", Tls.IMPLICIT), ("starttls", Tls.STARTTLS), ("starttls", Tls.OPPORTUNISTIC)]
)
@pytest.mark.usefixtures("trusted")
async def test_mail_goes_through_tls(kind: str, tls: Tls) -> None:
    async with Upstream(implicit=kind == "implicit", starttls=kind == "starttls") as upstream:
        async with reached(account(upstream, tls)) as connection:
            assert connection.encrypted
            await connection.transact(Envelope("a@b.example", ("c@d.example",), 3), [b"x\r\n"])
        assert upstream.taken[0].encrypted


@pytest.mark.usefixtures("trusted")
async def test_the_certificate_must_be_the_hosts_own() -> None:
    async with Upstream(implicit=True) as upstream:
        smtp = Smtp("mx.example.com", upstream.port, tls=Tls.IMPLICIT)
        fault = await refusal(smtp, resolver=answering("127.0.0.1", port=upstream.port))
    assert (fault.stage, fault.kind) == (Stage.TLS, "certificate")
    assert "mx.example.com" in fault.reply.text


@pytest.mark.parametrize(("kind", "tls"), [("implicit", Tls.IMPLICIT), ("starttls", Tls.OPPORTUNISTIC)])
async def test_an_unknown_certificate_is_refused_unless_the_account_takes_it(kind: str, tls: Tls) -> None:
    async with Upstream(implicit=kind == "implicit", starttls=kind == "starttls") as upstream:
        fault = await refusal(account(upstream, tls))
        assert (fault.stage, fault.kind, fault.reply.enhanced) == (Stage.TLS, "certificate", "4.7.5")
        async with reached(account(upstream, tls, verify_certificate=False)) as connection:
            assert connection.encrypted


async def test_starttls_that_is_not_offered_is_never_done_without() -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        fault = await refusal(account(upstream, Tls.STARTTLS, user="ann", password="secret"))
        assert upstream.said("AUTH") == []
    assert (fault.stage, fault.kind) == (Stage.TLS, "tls")


async def test_opportunistic_goes_on_without_tls() -> None:
    async with Upstream() as upstream, reached(account(upstream, Tls.OPPORTUNISTIC)) as connection:
        assert not connection.encrypted


async def test_none_does_not_ask_for_tls() -> None:
    async with Upstream(starttls=True) as upstream, reached(account(upstream)) as connection:
        assert not connection.encrypted


async def test_tls_with_a_server_that_has_none_is_said_to_fail() -> None:
    async with Upstream() as upstream:
        fault = await refusal(account(upstream, Tls.IMPLICIT))
    assert (fault.stage, fault.kind) == (Stage.TLS, "tls")


async def test_a_refused_starttls_is_upstreams_reply() -> None:
    async with Upstream(starttls=True) as upstream:
        upstream.when("STARTTLS").say("454 4.7.0 not now")
        fault = await refusal(account(upstream, Tls.OPPORTUNISTIC))
    assert (fault.stage, str(fault.reply)) == (Stage.TLS, "454 4.7.0 not now")


async def test_plaintext_injected_behind_starttls_is_never_read() -> None:
    # Given somebody in the middle who adds a reply of his own to the answer to STARTTLS
    async with Upstream(starttls=True, size=1000) as upstream:
        upstream.when("STARTTLS").say("220 go ahead\r\n250-evil.example\r\n250 SIZE 1")
        # When TLS is there
        async with reached(account(upstream, Tls.STARTTLS, verify_certificate=False)) as connection:
            # Then only what came through it counts
            assert connection.extensions["size"] == "1000"
            await connection.transact(Envelope("a@b.example", ("c@d.example",), 3), [b"x\r\n"])
        assert len(upstream.taken) == 1


# Login.


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_password_is_said_in_the_way_that_upstream_offers(method: str) -> None:
    async with Upstream(auth=[method]) as upstream:
        async with reached(account(upstream, user="ann", password="secret")) as connection:
            await connection.transact(Envelope("a@b.example", ("c@d.example",), 3), [b"x\r\n"])
        assert upstream.taken[0].user == "ann"


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_wrong_password_is_refused_once(method: str) -> None:
    async with Upstream(auth=[method]) as upstream:
        fault = await refusal(account(upstream, user="ann", password="wrong"))
        assert len(upstream.said("AUTH")) == 1
    assert (fault.stage, fault.kind, fault.reply.code) == (Stage.AUTH, "refused", 535)
    assert "wrong" not in str(fault).replace("wrong user or password", "")


@pytest.mark.parametrize(("tls", "first"), [(Tls.NONE, "CRAM-MD5"), (Tls.IMPLICIT, "PLAIN")])
async def test_a_password_goes_in_the_clear_last(tls: Tls, first: str) -> None:
    async with Upstream(implicit=tls is Tls.IMPLICIT, auth=("LOGIN", "PLAIN", "CRAM-MD5")) as upstream:
        async with reached(account(upstream, tls, user="ann", password="secret", verify_certificate=False)):
            pass
        assert upstream.said("AUTH")[0].split()[1] == first


async def test_a_forced_method_is_the_only_one_tried() -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        async with reached(account(upstream, user="ann", password="secret", auth_method="login")):
            pass
        assert upstream.said("AUTH") == ["AUTH LOGIN"]


async def test_a_method_that_upstream_only_pretends_to_have_gives_way_to_the_next() -> None:
    async with Upstream(auth=("CRAM-MD5", "PLAIN")) as upstream:
        upstream.when("AUTH", "CRAM-MD5").say("504 5.5.4 unrecognized mechanism")
        async with reached(account(upstream, user="ann", password="secret")):
            pass
        assert [line.split()[1] for line in upstream.said("AUTH")] == ["CRAM-MD5", "PLAIN"]


async def test_a_token_is_said_with_xoauth2() -> None:
    async with Upstream(auth=("PLAIN", "XOAUTH2")) as upstream:
        async with reached(account(upstream, user="ann", access_token="secret")):
            pass
        assert upstream.said("AUTH")[0].startswith("AUTH XOAUTH2 ")


async def test_a_refused_token_says_why() -> None:
    async with Upstream(auth=("XOAUTH2",)) as upstream:
        fault = await refusal(account(upstream, user="ann", access_token="expired"))
    assert (fault.reply.code, fault.reply.enhanced) == (535, "5.7.8")
    assert '"status":"401"' in fault.reply.text
    assert "expired" not in fault.reply.text


@pytest.mark.parametrize(
    ("auth", "changes", "code", "words"),
    [
        ((), {"password": "secret"}, 504, "upstream offers: none"),
        (("NTLM", "GSSAPI"), {"password": "secret"}, 504, "NTLM, GSSAPI"),
        (("PLAIN",), {"access_token": "t"}, 504, "PLAIN"),
        (("PLAIN",), {}, 535, "neither password nor access token"),
        (("PLAIN",), {"password": "secret", "auth_method": "ntlm"}, 504, "PLAIN"),
    ],
)
async def test_a_login_that_cannot_be_is_said_to_be_none(
    auth: tuple[str, ...], changes: dict[str, Any], code: int, words: str
) -> None:
    async with Upstream(auth=auth) as upstream:
        fault = await refusal(account(upstream, user="ann", **changes))
        assert upstream.said("AUTH") == []
    assert (fault.stage, fault.reply.code) == (Stage.AUTH, code)
    assert words in fault.reply.text


async def test_a_login_that_upstream_ends_is_a_break() -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        upstream.when("AUTH").drop()
        fault = await refusal(account(upstream, user="ann", password="secret"))
    assert (fault.stage, fault.kind) == (Stage.AUTH, "lost")


async def test_a_login_without_answer_is_given_up() -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        upstream.when("AUTH").hang()
        fault = await refusal(account(upstream, user="ann", password="secret"), HASTY)
    assert (fault.stage, fault.reply.enhanced) == (Stage.AUTH, "4.4.2")


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "AUTH"])
@pytest.mark.parametrize("say", ["535 no", "421 going down"])
@pytest.mark.parametrize("tls", [Tls.NONE, Tls.IMPLICIT])
async def test_nothing_stays_open_after_a_failure(tls: Tls, verb: str, say: str) -> None:
    async with Upstream(implicit=tls is Tls.IMPLICIT, auth=("PLAIN",)) as upstream:
        upstream.when(verb).say(say)
        fault = await refusal(account(upstream, tls, user="ann", password="secret", verify_certificate=False))
        assert str(fault.reply) == say
        async with asyncio.timeout(5):
            while upstream.open:  # noqa: ASYNC110 (it is the fake's own count)
                await asyncio.sleep(0)
