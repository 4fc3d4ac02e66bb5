"""Issuers are asked with care: bounded, without redirects, at judged addresses, and nothing secret is told of it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.oauth import Client, Denied, Granted, refresh_form
from relay.core.tenant import OAuth2
from relay.net.oauth import Asker
from tests.fakes.issuer import CLIENT, SECRET, Issuer

LOCAL = [ip_network("127.0.0.0/8")]


@asynccontextmanager
async def asking(seconds: float = 10, allowed: Sequence[Any] = LOCAL, **more: Any) -> AsyncIterator[Asker]:
    asker = Asker(seconds=seconds, allowed=allowed, **more)
    try:
        yield asker
    finally:
        await asker.close()


async def asked(issuer: Issuer, refresh: str, *, basic: bool = False, **more: Any) -> Granted:
    async with asking(**more) as asker:
        return await asker.tokens(f"{issuer.url}/token", refresh_form(refresh), Client(CLIENT, SECRET, basic))


async def denial(issuer: Issuer, refresh: str = "refresh-token-of-ann", **more: Any) -> Denied:
    with pytest.raises(Denied) as caught:
        await asked(issuer, refresh, **more)
    return caught.value


def resolving(address: str) -> Any:
    async def resolve(host: str, port: int) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve


@pytest.mark.parametrize("basic", [False, True])
async def test_a_token_is_had(basic: bool) -> None:
    async with Issuer(rotates=True) as issuer:
        granted = await asked(issuer, issuer.grant(), basic=basic)
        assert [granted.access_token] == issuer.access
        assert granted.refresh_token.startswith("refresh-")
        assert (issuer.asked[0].basic, issuer.asked[0].secret) == (basic, SECRET)


@pytest.mark.parametrize(
    ("path", "oidc"), [("", True), ("/realms/mail", True), ("/realms/mail", False)], ids=["root", "path", "rfc8414"]
)
async def test_an_issuer_tells_where_it_is_asked(path: str, oidc: bool) -> None:
    async with Issuer(path=path, oidc=oidc) as issuer, asking() as asker:
        told = await asker.metadata(OAuth2("custom", issuer=issuer.url))
        assert (told.authorize, told.token) == (f"{issuer.url}/authorize", f"{issuer.url}/token")
        assert told.scopes == ("openid", "email", "offline_access")


async def test_an_issuer_leads_nowhere_inside() -> None:
    async with Issuer(metadata={"token_endpoint": "http://10.0.0.1/token"}) as issuer, asking() as asker:
        with pytest.raises(Denied, match="its token_endpoint leads to a private address"):
            await asker.metadata(OAuth2("custom", issuer=issuer.url))


async def test_a_refusal_is_final_and_says_so() -> None:
    async with Issuer() as issuer:
        fault = await denial(issuer)
    assert (fault.code, fault.final, fault.away) == ("invalid_grant", True, False)


@pytest.mark.parametrize("status", [500, 503, 429, 404])
async def test_an_issuer_in_trouble_is_away(status: int) -> None:
    async with Issuer() as issuer:
        issuer.when().say(status, "<html>oops</html>")
        assert (await denial(issuer)).away


async def test_an_issuer_that_hangs_is_away() -> None:
    async with Issuer() as issuer:
        issuer.when().hang()
        fault = await denial(issuer, seconds=0.2)
    assert fault.away
    assert "no answer within 0.2 s" in str(fault)


async def test_an_issuer_that_is_gone_is_away() -> None:
    async with Issuer() as issuer:
        pass
    assert (await denial(issuer)).away


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    async with Issuer() as issuer:
        issuer.when().huge(1 << 24)
        assert (await denial(issuer)).away


async def test_a_redirect_is_not_followed() -> None:
    async with Issuer() as issuer, Issuer() as other:
        issuer.when().redirect(f"{other.url}/token?secret={SECRET}")
        fault = await denial(issuer)
        assert other.asked == []
    assert fault.away
    assert SECRET not in str(fault)


async def test_nothing_of_what_was_sent_is_told() -> None:
    """An issuer that repeats all it is told, in its error and its words."""
    async with Issuer() as issuer:
        told = f"what is refresh-token-of-ann, and {SECRET}?"
        issuer.when().say(400, json.dumps({"error": "invalid_grant", "error_description": told}))
        fault = await denial(issuer)
    assert "refresh-token-of-ann" not in str(fault)
    assert SECRET not in str(fault)
    assert "what is ***" in str(fault)


async def test_what_a_name_means_is_judged_as_it_is_dialled() -> None:
    async with asking(resolver=resolving("10.0.0.1")) as asker:
        with pytest.raises(Denied, match="private address") as caught:
            await asker.tokens("https://id.example.com/token", refresh_form("r"), Client("c"))
    assert caught.value.away


async def test_without_tls_nothing_goes_outside() -> None:
    """A name may be saved with http://, for it may be inside; where it is not, nothing is said to it."""
    async with asking(resolver=resolving("8.8.8.8")) as asker:
        with pytest.raises(Denied, match="without TLS") as caught:
            await asker.tokens("http://keycloak/token", refresh_form("r"), Client("c"))
    assert caught.value.away


async def test_what_the_operator_closed_since_is_closed() -> None:
    async with Issuer() as issuer:
        fault = await denial(issuer, allowed=[])
        assert issuer.asked == []
    assert "loopback address" in str(fault)
