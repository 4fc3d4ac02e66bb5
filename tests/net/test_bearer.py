"""Access tokens are said as servers offer, and a server that repeats what it is told does not make them known."""

from __future__ import annotations

import base64
import logging

import pytest

from relay.core import bearer
from relay.core.masking import masked
from relay.core.tenant import Imap, Tls
from relay.net import imap as mailbox
from tests.fakes.imap import Mailserver
from tests.fakes.upstream import Upstream
from tests.net.test_connect import LOCAL, account, reached, refusal

TOKEN = "ya29.a0Af-token_of~the+account/1234567890=="


async def login(server: Mailserver, token: str = TOKEN) -> None:
    imap = Imap(server.host, server.port, Tls.NONE, user="ann", access_token=token)
    connection = await mailbox.connect(imap, allowed=LOCAL, seconds=5)
    await connection.close()


async def test_a_server_that_offers_oauthbearer_alone_is_told_by_it() -> None:
    async with Upstream(auth=("PLAIN", "OAUTHBEARER"), users={"ann,b=c": TOKEN}) as upstream:
        async with reached(account(upstream, user="ann,b=c", access_token=TOKEN)):
            pass
        [said] = upstream.said("AUTH")
    head, response = said.rsplit(" ", 1)
    assert head == "AUTH OAUTHBEARER"
    expected = f"n,a=ann=2Cb=3Dc,\x01host=127.0.0.1\x01port={upstream.port}\x01auth=Bearer {TOKEN}\x01\x01"
    assert base64.b64decode(response).decode() == expected


async def test_where_both_are_offered_it_is_xoauth2_unless_the_account_says() -> None:
    async with Upstream(auth=("OAUTHBEARER", "XOAUTH2"), users={"ann": TOKEN}) as upstream:
        for method in ("", "oauthbearer"):
            async with reached(account(upstream, user="ann", access_token=TOKEN, auth_method=method)):
                pass
        assert [line.split()[1] for line in upstream.said("AUTH")] == ["XOAUTH2", "OAUTHBEARER"]


async def test_the_challenge_of_a_refusal_is_answered_and_told() -> None:
    async with Upstream(auth=("OAUTHBEARER",)) as upstream:
        fault = await refusal(account(upstream, user="ann", access_token=TOKEN))
    assert fault.reply.code == 535
    assert fault.reply.text.startswith('OAUTHBEARER refused: {"status":"invalid_token"')


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_an_upstream_that_repeats_our_login_is_not_repeated(
    mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Upstream(auth=(mechanism,)) as upstream:
        echo = base64.b64encode(bearer.response(mechanism, "ann", TOKEN, upstream.host, upstream.port)).decode()
        upstream.when("AUTH").say(f"535 5.7.8 what is {echo} or {TOKEN}?")
        fault = await refusal(account(upstream, user="ann", access_token=TOKEN))
    for text in (str(fault), caplog.text):
        assert TOKEN not in text
        assert base64.b64encode(TOKEN.encode())[4:24].decode() not in text
        assert echo[60:100] not in text


@pytest.mark.parametrize("before", range(7))
def test_a_secret_does_not_show_wherever_it_stands_in_base64(before: int) -> None:
    encoded = base64.b64encode(b"x" * before + TOKEN.encode() + b"\x01\x01").decode()
    left = masked(encoded, [TOKEN])
    assert len(left) <= (before + 2) * 8 // 6 + 8


async def test_a_mailbox_that_offers_oauthbearer_alone_is_told_by_it() -> None:
    async with Mailserver(users={"ann": TOKEN}, capabilities="IMAP4rev1 AUTH=OAUTHBEARER AUTH=PLAIN") as server:
        await login(server)
        assert server.said("AUTHENTICATE") == ["AUTHENTICATE OAUTHBEARER"]


async def test_a_mailbox_that_refuses_a_bearer_says_why() -> None:
    async with Mailserver(capabilities="IMAP4rev1 AUTH=OAUTHBEARER") as server:
        with pytest.raises(mailbox.MailboxError) as caught:
            await login(server)
    assert (caught.value.step, caught.value.kind) == ("login", "refused")
    assert str(caught.value).startswith('OAUTHBEARER refused: {"status":"400"')
    assert TOKEN not in str(caught.value)


def test_what_is_no_base64_is_told_as_it_is() -> None:
    assert bearer.reason("no json") == "no json"
    assert bearer.reason(base64.b64encode(b'{"status":"401"}')) == '{"status":"401"}'
