"""Accounts are connected over HTTP: begun with a token, ended by whoever signed in: once, in time, as its user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from api.call import House
from relay.store import accounts, db
from tests.api.client import Client, Login
from tests.fakes.issuer import SECRET, Issuer

ANN = "ann@here.example"
AUTHORIZE = "/v1/account/shop/oauth2/authorize"
NOWHERE = {"host": "127.0.0.1", "port": 1}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(rotates=True) as issuer:
        yield issuer


@pytest.fixture
async def ready(admin: Client, issuer: Issuer) -> Client:
    """The admin; the account `shop` is to be connected."""
    given = {"account": "shop", "email": ANN, "smtp": NOWHERE, "oauth2": issuer.settings(ANN)}
    await admin.ok("POST", "/v1/account", given)
    return admin


async def began(ready: Client, issuer: Issuer, user: str = ANN, answer: str = "") -> dict[str, str]:
    """What the browser brings back."""
    return await issuer.agree((await ready.ok("POST", AUTHORIZE))["url"], user, answer)


async def page(nobody: Client, back: dict[str, str], path: str = "/v1/oauth2/callback") -> tuple[int, str]:
    response = await nobody.open("GET", path, params=back)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["Referrer-Policy"] == "no-referrer"
    text = await response.text()
    assert "<script" not in text
    return response.status, unescape(text)


async def refresh(house: House) -> str | None:
    async with db.connection(house.pool) as conn:
        row = await accounts.find(conn, "shop")
    assert row is not None
    return row.fields(house.vault).get("oauth2.refreshToken")


async def test_an_account_is_connected(ready: Client, nobody: Client, issuer: Issuer, house: House) -> None:
    status, text = await page(nobody, await began(ready, issuer))
    assert (status, f"The mailbox of {ANN} is connected" in text) == (200, True)
    shown = await ready.ok("GET", "/v1/account/shop")
    assert shown["oauth2"]["refreshToken"] == shown["oauth2"]["clientSecret"] == "******"
    async with db.connection(house.pool) as conn:
        account = await accounts.get(conn, house.vault, "shop")
    assert account is not None
    armed = await house.tokens.armed(account)
    assert armed.smtp is not None
    assert armed.smtp.access_token == issuer.access[0]
    assert [asked.form["grant_type"] for asked in issuer.asked] == ["authorization_code"]


async def test_what_is_asked_of_the_provider(ready: Client, issuer: Issuer, house: House) -> None:
    begun = await ready.ok("POST", AUTHORIZE)
    query = dict(parse_qsl(urlsplit(begun["url"]).query))
    assert query["redirect_uri"] == f"{house.settings.public_url}/v1/oauth2/callback"
    assert (query["code_challenge_method"], query["login_hint"]) == ("S256", ANN)
    assert query["scope"] == "openid email offline_access"
    assert SECRET not in str(begun)
    assert begun["link"].startswith(f"{house.settings.public_url}/v1/oauth2/start/")
    again = await ready.ok("POST", AUTHORIZE)
    assert again["url"] != begun["url"]


async def test_the_link_leads_to_a_fresh_authorisation(ready: Client, nobody: Client, issuer: Issuer) -> None:
    link = urlsplit((await ready.ok("POST", AUTHORIZE))["link"]).path
    assert (await nobody.open("HEAD", link, allow_redirects=False)).status == 200
    leads = await nobody.open("GET", link, allow_redirects=False)
    assert leads.status == 302
    assert (await page(nobody, await issuer.agree(leads.headers["Location"])))[0] == 200


@pytest.mark.parametrize("token", ["x", "A" * 40, "%3Cscript%3E"])
async def test_a_link_that_is_not_ours_is_a_page_that_says_so(nobody: Client, token: str) -> None:
    status, text = await page(nobody, {}, f"/v1/oauth2/start/{token}")
    assert (status, "not good" in text) == (410, True)


async def test_a_state_is_good_for_one_use(ready: Client, nobody: Client, issuer: Issuer, house: House) -> None:
    back = await began(ready, issuer)
    assert (await page(nobody, back))[0] == 200
    kept = await refresh(house)
    status, text = await page(nobody, back)
    assert (status, "finished already" in text) == (410, True)
    assert await refresh(house) == kept
    assert len(issuer.asked) == 1


async def test_a_state_ends(ready: Client, nobody: Client, issuer: Issuer, house: House) -> None:
    back = await began(ready, issuer)
    async with db.connection(house.pool) as conn:
        await conn.execute("update authorisations set expires_at = now()")
    assert (await page(nobody, back))[0] == 410
    assert issuer.asked == []


@pytest.mark.parametrize("back", [{}, {"state": "guessed", "code": "x"}, {"code": "x"}, {"state": "\x00ü" * 20}])
async def test_a_state_that_is_not_ours_is_nothing(ready: Client, nobody: Client, back: dict[str, str]) -> None:
    assert (await page(nobody, back))[0] == 410


async def test_a_state_is_kept_as_a_hash(ready: Client, issuer: Issuer, house: House) -> None:
    begun = await ready.ok("POST", AUTHORIZE)
    state = dict(parse_qsl(urlsplit(begun["url"]).query))["state"]
    async with db.connection(house.pool) as conn:
        rows = await (await conn.execute("select a::text from authorisations a")).fetchall()
    assert len(rows) == 1
    assert state not in str(rows)
    assert state.encode().hex() not in str(rows)


@pytest.mark.parametrize("turned", [{"smtp": {"host": "127.0.0.2"}}, {"oauth2": {"clientId": "other"}}])
async def test_settings_that_change_meanwhile_void_it(
    ready: Client, nobody: Client, issuer: Issuer, house: House, turned: dict[str, Any]
) -> None:
    """Else whoever may change the host would be told the tokens of whoever signs in."""
    back = await began(ready, issuer)
    await ready.ok("PUT", "/v1/account/shop", turned)
    status, text = await page(nobody, back)
    assert (status, "changed while you signed in" in text) == (409, True)
    assert issuer.asked == []
    assert await refresh(house) is None


async def test_another_user_is_told_apart(ready: Client, nobody: Client, issuer: Issuer, house: House) -> None:
    status, text = await page(nobody, await began(ready, issuer, user="eve@<b>here.example"))
    assert status == 409
    assert f"You signed in as eve@<b>here.example, but this account is for {ANN}" in text
    assert await refresh(house) is None
    raw = await (await nobody.open("GET", "/v1/oauth2/callback", params=await began(ready, issuer, "<b>@x"))).text()
    assert "<b>" not in raw


async def test_an_issuer_that_does_not_tell_who_it_was_is_taken_at_its_word(
    ready: Client, nobody: Client, issuer: Issuer
) -> None:
    issuer.identity = False
    assert (await page(nobody, await began(ready, issuer)))[0] == 200


async def test_a_user_who_says_no_is_told_kindly(ready: Client, nobody: Client, issuer: Issuer) -> None:
    back = await began(ready, issuer, answer="access_denied")
    status, text = await page(nobody, back)
    assert status == 422
    assert "did not allow it" in text
    assert "No <thanks>" in text
    assert (await page(nobody, back))[0] == 410


async def test_without_a_refresh_token_it_is_not_connected(ready: Client, nobody: Client, issuer: Issuer) -> None:
    issuer.refreshes = False
    status, text = await page(nobody, await began(ready, issuer))
    assert (status, "no refresh token" in text) == (422, True)


async def test_an_answer_of_another_issuer_is_refused(ready: Client, nobody: Client, issuer: Issuer) -> None:
    back = {**await began(ready, issuer), "iss": "https://evil.example"}
    assert (await page(nobody, back))[0] == 422
    assert issuer.asked == []


async def test_an_issuer_that_is_away_is_said(ready: Client, nobody: Client, issuer: Issuer) -> None:
    back = await began(ready, issuer)
    issuer.when().say(503, "<html>")
    status, text = await page(nobody, back)
    assert (status, "Begin again" in text, "by itself" in text) == (503, True, False)
    await issuer.stop()
    await ready.ok("PUT", "/v1/account/shop", {"oauth2": {"issuer": f"{issuer.url}/other", "clientSecret": SECRET}})
    status, answer = await ready.ask("POST", AUTHORIZE)
    assert (status, answer["code"]) == (503, "IssuerAway")


async def test_an_account_that_was_stopped_goes_on(ready: Client, nobody: Client, issuer: Issuer, house: House) -> None:
    async with db.connection(house.pool) as conn:
        await conn.execute("update accounts set state = 'refused', reason = 'x', retry_at = now() + interval '1 h'")
    await page(nobody, await began(ready, issuer))
    shown = await ready.ok("GET", "/v1/account/shop")
    assert (shown["state"], shown["reason"], shown["retryAt"]) == ("active", "", None)


async def test_a_pause_by_an_operator_stands(ready: Client, nobody: Client, issuer: Issuer) -> None:
    await ready.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    assert (await page(nobody, await began(ready, issuer)))[0] == 200
    assert (await ready.ok("GET", "/v1/account/shop"))["state"] == "paused"


async def test_an_account_without_oauth2_cannot_be_connected(admin: Client, shop: str) -> None:
    status, answer = await admin.ask("POST", AUTHORIZE)
    assert (status, answer["code"]) == (422, "NoOAuth2")
    status, answer = await admin.ask("POST", "/v1/account/none/oauth2/authorize")
    assert (status, answer["code"]) == (404, "AccountNotFound")


async def test_a_tenant_connects_its_own_alone(ready: Client, login: Login, issuer: Issuer) -> None:
    await ready.ok("POST", "/v1/account", {"account": "other"})
    assert (await (await login("api", account="shop")).ask("POST", AUTHORIZE))[0] == 200
    assert (await (await login("api", account="other")).ask("POST", AUTHORIZE))[0] == 403
    assert (await (await login("smtp", account="shop")).ask("POST", AUTHORIZE))[0] == 403


async def test_a_link_is_for_one_account(ready: Client, house: House) -> None:
    link = (await ready.ok("POST", AUTHORIZE))["link"]
    linked = house.tokens.linked(link.rpartition("/")[2])
    assert linked is not None
    assert linked.account == "shop"


async def test_a_link_ends_with_its_account(ready: Client, nobody: Client, issuer: Issuer) -> None:
    """Given another account of the same id: whoever has the old link is a stranger to it."""
    link = urlsplit((await ready.ok("POST", AUTHORIZE))["link"]).path
    await ready.ok("DELETE", "/v1/account/shop")
    assert (await page(nobody, {}, link))[0] == 404
    given = {"account": "shop", "email": "eve@here.example", "smtp": NOWHERE, "oauth2": issuer.settings(ANN)}
    await ready.ok("POST", "/v1/account", given)
    status, text = await page(nobody, {}, link)
    assert (status, "was removed" in text, "eve@" in text) == (410, True, False)
    fresh = urlsplit((await ready.ok("POST", AUTHORIZE))["link"]).path
    assert (await nobody.open("GET", fresh, allow_redirects=False)).status == 302


async def test_google_is_found_by_an_address(admin: Client) -> None:
    given = {
        "account": "shop",
        "email": "ann@example.com",
        "oauth2": {"provider": "google", "clientId": "c", "clientSecret": "s"},
    }
    await admin.ok("POST", "/v1/account", given)
    shown = await admin.ok("GET", "/v1/account/shop")
    assert shown["smtp"] == {"host": "smtp.gmail.com", "port": 465, "secure": True}
    assert shown["imap"] == {"host": "imap.gmail.com", "port": 993, "secure": True}
    url = (await admin.ok("POST", AUTHORIZE))["url"]
    query = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith("https://accounts.google.com/o/oauth2/v2/auth?")
    assert (query["access_type"], query["prompt"]) == ("offline", "consent")
    assert query["scope"] == "https://mail.google.com/ openid email"


async def test_no_secret_of_the_way_is_logged(
    ready: Client, nobody: Client, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "postferry")
    back = await began(ready, issuer)
    for _ in range(2):
        await page(nobody, back)
    link = (await ready.ok("POST", AUTHORIZE))["link"]
    for secret in (back["state"], back["code"], SECRET, *issuer.access, link):
        assert secret not in caplog.text
