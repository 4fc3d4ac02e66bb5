"""What is one tenant's is of no use to another: states and codes of sign-ins, ids of mail, files of suppressions."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.app import OPERATIONS
from relay.store import db
from tests.api.client import SHOP, Client, Login
from tests.api.test_api_messages import put, settings_of
from tests.fakes.issuer import Issuer
from tests.fakes.mailbox import MailboxServer

CALLBACK = "/v1/oauth2/callback"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def two(admin: Client, issuer: Issuer) -> Client:
    """The admin; accounts `ann` and `bob` may be connected with one issuer."""
    for name in ("ann", "bob"):
        email = f"{name}@here.example"
        smtp = {"host": "127.0.0.1", "port": 1}
        given = {"account": name, "email": email, "smtp": smtp, "oauth2": issuer.settings(email)}
        await admin.ok("POST", "/v1/account", given)
    return admin


async def began(admin: Client, issuer: Issuer, name: str) -> dict[str, str]:
    """What the browser of its user brings back."""
    url = (await admin.ok("POST", f"/v1/account/{name}/oauth2/authorize"))["url"]
    return await issuer.agree(url, f"{name}@here.example")


async def connected(admin: Client, name: str) -> bool:
    return "refreshToken" in (await admin.ok("GET", f"/v1/account/{name}"))["oauth2"]


async def test_a_state_takes_no_code_of_another_accounts_sign_in(two: Client, nobody: Client, issuer: Issuer) -> None:
    """Given both have signed in, when their codes are exchanged on the way back, then neither is connected, and neither
    state is of use any more."""
    ann, bob = [await began(two, issuer, name) for name in ("ann", "bob")]
    for mine, theirs in ((ann, bob), (bob, ann)):
        mixed = {**mine, "code": theirs["code"]}
        assert (await nobody.open("GET", CALLBACK, params=mixed)).status == 422
        assert (await nobody.open("GET", CALLBACK, params=mine)).status == 410
    assert [await connected(two, name) for name in ("ann", "bob")] == [False, False]


async def test_a_sign_in_connects_the_account_it_was_begun_for_whoever_brings_it_back(
    two: Client, login: Login, issuer: Issuer
) -> None:
    """An account in the query, or a token of another account, makes nothing else of it."""
    bob = await login("*", account="bob")
    back = await began(two, issuer, "ann")
    assert (await bob.open("GET", CALLBACK, params={**back, "account": "bob"})).status == 200
    assert [await connected(two, name) for name in ("ann", "bob")] == [True, False]


@pytest.mark.parametrize("fields", [("state",), ("code",), ("error", "state"), ("error", "error_description", "state")])
async def test_what_a_provider_says_is_no_html(two: Client, nobody: Client, issuer: Issuer, fields: Any) -> None:
    back = await began(two, issuer, "ann")
    given = {**back, **dict.fromkeys(fields, SCRIPT), "state": SCRIPT if fields == ("state",) else back["state"]}
    response = await nobody.open("GET", CALLBACK, params=given)
    text = await response.text()
    assert response.content_type == "text/html"
    assert SCRIPT not in text
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if "error_description" in fields:
        assert html.escape(SCRIPT) in text


async def test_no_answer_but_a_page_is_a_page(admin: Client, nobody: Client) -> None:
    """Given words of strangers in every part and the query, then they come back as JSON that no browser reads as HTML,
    or escaped."""
    offenders = []
    for operation in OPERATIONS:
        path = operation.path
        for part in operation.parts:
            path = path.replace(f"{{{operation.outside(part)}}}", "%3Cscript%3Ealert(1)%3C%2Fscript%3E")
        asker = admin if operation.scope else nobody
        body = {SCRIPT: SCRIPT} if operation.method not in ("GET", "DELETE") else None
        response = await asker.open(operation.method, path, body, params={SCRIPT: SCRIPT})
        repeated = b"<script>alert" in await response.read()
        sniffed = response.headers.get("X-Content-Type-Options") != "nosniff"
        if sniffed or (repeated and response.content_type != "application/json"):
            offenders.append((operation.name, response.status, response.content_type))
    assert offenders == []


async def test_an_id_of_anothers_mail_leads_into_ones_own_mailbox(admin: Client, login: Login) -> None:
    """An id says where in a mailbox a mail lies, and not in whose: it is looked for in that of the account asked."""
    async with MailboxServer() as mine, MailboxServer() as theirs:
        await admin.ok("POST", "/v1/account", {**SHOP, "imap": settings_of(mine)})
        await admin.ok("POST", "/v1/account", {**SHOP, "account": "other", "email": "", "imap": settings_of(theirs)})
        id = put(theirs, b"Subject: Theirs\r\n\r\nsecret of theirs\r\n")
        shop = await login("api", account="shop")
        before = theirs.connections
        for path in (f"message/{id}", f"message/{id}/source", f"attachment/{id}.0"):
            response = await shop.open("GET", f"/v1/account/shop/{path}")
            assert response.status == 404
            assert "secret of theirs" not in await response.text()
            assert (await shop.open("GET", f"/v1/account/other/{path}")).status == 403
        given = {"to": {"address": "a@x.example"}, "text": "x", "reference": {"message": id, "inline": True}}
        assert (await shop.ask("POST", "/v1/account/shop/submit", given))[0] == 404
        assert theirs.connections == before


async def test_a_file_of_suppressions_is_for_the_account_that_brings_it(
    admin: Client, login: Login, pool: db.Pool
) -> None:
    """A column that names another account, as an export of all has it, means nothing."""
    for name in ("shop", "other"):
        await admin.ok("POST", "/v1/account", {**SHOP, "account": name, "email": ""})
    shop = await login("api", account="shop")
    table = "account,address,reason\r\nother,ann@x.example,manual\r\n"
    headers = {"Content-Type": "text/csv"}
    response = await shop.http.post(
        "/v1/suppressions", data=table.encode(), headers={**headers, "Authorization": f"Bearer {shop.token}"}
    )
    assert (await response.json())["ignoredColumns"] == ["account"]
    async with db.connection(pool) as conn:
        found = await (await conn.execute("select account_id, address from suppressions")).fetchall()
    assert found == [("shop", "ann@x.example")]
