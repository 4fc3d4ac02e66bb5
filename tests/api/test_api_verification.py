"""Servers are tried over HTTP, stored or not: told step by step, within bounds, and without a mail."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from api import quota
from api.call import House
from api.problems import Problem
from relay.core.vault import Vault
from relay.store import accounts, db, verifications
from relay.store.tokens import Token
from tests.api.client import Client, Login
from tests.dovecot import PASSWORDS, Dovecot
from tests.fakes.imap import Mailserver
from tests.fakes.upstream import Upstream
from tests.stack import until

LOGIN = {"user": "ann", "pass": "secret"}


def given(upstream: Upstream | None = None, server: Mailserver | Dovecot | None = None, **imap: Any) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if upstream is not None:
        body["smtp"] = {"host": upstream.host, "port": upstream.port}
    if server is not None:
        body["imap"] = {"host": server.host, "port": server.port, "secure": False, "auth": LOGIN, **imap}
    return body


def states(server: Any) -> str:
    return " ".join(f"{step['step']}:{step['state']}" for step in server["steps"])


async def stored(house: House) -> int:
    async with db.connection(house.pool) as conn:
        return (await accounts.page(conn))[0]


# -- Settings that are not stored --------------------------------------------------------------------------------------


async def test_both_servers_are_tried_and_nothing_is_stored(
    admin: Client, upstream: Upstream, dovecot: Dovecot, house: House
) -> None:
    body = given(upstream, dovecot, tls={"rejectUnauthorized": False})
    answer = await admin.ok("POST", "/v1/verifyAccount", body)
    assert states(answer["smtp"]) == "settings:ok resolve:ok connect:ok ehlo:ok tls:skipped auth:skipped"
    assert states(answer["imap"]) == "settings:ok resolve:ok connect:ok greeting:ok tls:ok login:ok folders:ok"
    assert (answer["smtp"]["success"], answer["imap"]["success"]) == (True, True)
    assert answer["imap"]["folders"]["sent"] == "Verschickt & raus"
    assert answer["mailboxes"] is None
    assert upstream.said("MAIL") == []
    assert await stored(house) == 0


async def test_a_failure_has_emailengines_fields_and_advice(admin: Client, dovecot: Dovecot) -> None:
    body = given(None, dovecot, auth={"user": "ann", "pass": "not-this-one"}, tls={"mode": "none"})
    answer = await admin.ok("POST", "/v1/verifyAccount", body)
    assert answer["smtp"] is None
    imap = answer["imap"]
    assert {key: imap[key] for key in ("success", "error", "code", "responseText")} == {
        "success": False,
        "error": "[AUTHENTICATIONFAILED] Authentication failed.",
        "code": "AUTHENTICATIONFAILED",
        "responseText": "[AUTHENTICATIONFAILED] Authentication failed.",
    }
    login = imap["steps"][5]
    assert (login["step"], login["state"]) == ("login", "failed")
    assert "app password" in login["advice"]
    assert "not-this-one" not in str(answer)


async def test_folders_are_listed_when_they_are_asked_for(admin: Client, dovecot: Dovecot) -> None:
    body = given(None, dovecot, tls={"mode": "none"}) | {"mailboxes": True}
    answer = await admin.ok("POST", "/v1/verifyAccount", body)
    listed = {one["path"]: one for one in answer["mailboxes"]}
    assert listed["Müll"] == {
        "path": "Müll",
        "name": "Müll",
        "parentPath": "",
        "delimiter": "/",
        "specialUse": "\\Trash",
        "specialUseSource": "extension",
    }
    assert listed["INBOX"]["specialUse"] is None
    assert listed.keys() == {"INBOX", "Ablage", "Verschickt & raus", "Müll", "Unfertig", "Kram"}
    assert PASSWORDS["ann"] not in str(answer)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"smtp": {"host": "10.0.0.1"}}, "private address"),
        ({"smtp": {"host": "smtp.example.com", "port": 465}}, "TLS from the first byte"),
        ({"smtp": {"host": "smtp.example.com", "port": 587, "secure": True}}, "starts in the clear"),
        ({"smtp": {"host": "smtp.example.com", "auth": {"user": "ann"}}}, "neither password nor access token"),
        ({"imap": {"host": "imap.example.com"}}, "no user"),
        ({"imap": {"host": "imap.example.com", "port": 25, "auth": LOGIN}}, "is for SMTP"),
        ({"imap": {"host": "imap.example.com", "auth": {"user": "ann", "pass": "******"}}}, "neither password"),
    ],
)
async def test_what_is_certainly_wrong_is_a_failed_step(admin: Client, body: dict[str, Any], words: str) -> None:
    answer = await admin.ok("POST", "/v1/verifyAccount", body)
    found = answer["smtp"] or answer["imap"]
    assert found["code"] == "ESETTINGS"
    assert words in found["error"]
    assert {step["state"] for step in found["steps"][1:]} == {"skipped"}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"smtp": {"host": "not a host"}}, "smtp.host"),
        ({"smtp": {"host": "h", "port": 0}}, "smtp.port"),
        ({"smtp": {"hots": "h"}}, "smtp.hots"),
        ({"imap": {"port": 143}}, "imap.host"),
        ({"mailboxes": "yes"}, "mailboxes"),
    ],
)
async def test_what_no_account_may_have_is_a_400(admin: Client, body: dict[str, Any], key: str) -> None:
    status, error = await admin.ask("POST", "/v1/verifyAccount", body)
    assert (status, error["fields"][0]["key"]) == (400, key)


@pytest.mark.parametrize("body", [{}, {"name": "X"}, {"imap": {"host": "h.example", "disabled": True}}])
async def test_without_a_server_there_is_nothing_to_try(admin: Client, body: dict[str, Any]) -> None:
    assert (await admin.ask("POST", "/v1/verifyAccount", body))[0] == 400


async def test_another_accounts_name_is_not_for_a_bound_token(login: Login, shop: str, upstream: Upstream) -> None:
    bound = await login("api", account="shop")
    assert (await bound.ask("POST", "/v1/verifyAccount", given(upstream) | {"account": "other"}))[0] == 403
    assert (await bound.ask("POST", "/v1/account/other/verify"))[0] == 403
    assert (await bound.ok("POST", "/v1/verifyAccount", given(upstream)))["smtp"]["success"]


# -- A stored account --------------------------------------------------------------------------------------------------


async def test_a_stored_account_is_tried_and_what_was_found_is_shown(admin: Client, upstream: Upstream) -> None:
    async with Mailserver() as server:
        await admin.ok("POST", "/v1/account", given(upstream, server) | {"account": "a"})
        shown = (await admin.ok("GET", "/v1/account/a"))["verification"]
        assert shown == {"at": None, "pending": True, "smtp": None, "imap": None}
        answer = await admin.ok("POST", "/v1/account/a/verify")
    assert (answer["smtp"]["success"], answer["imap"]["success"]) == (True, True)
    shown = (await admin.ok("GET", "/v1/account/a"))["verification"]
    assert shown["pending"] is False
    assert shown["at"] is not None
    assert (shown["smtp"], shown["imap"]) == (answer["smtp"], answer["imap"])
    assert "secret" not in str(shown)


async def test_an_account_that_was_never_verified_shows_none(admin: Client) -> None:
    await admin.ok("POST", "/v1/account", {"account": "a", "name": "X"})
    assert (await admin.ok("GET", "/v1/account/a"))["verification"] is None


async def test_a_change_makes_what_was_found_unknown(admin: Client, upstream: Upstream) -> None:
    await admin.ok("POST", "/v1/account", given(upstream) | {"account": "a"})
    await admin.ok("POST", "/v1/account/a/verify")
    await admin.ok("PUT", "/v1/account/a", {"smtp": {"port": 2599}})
    shown = (await admin.ok("GET", "/v1/account/a"))["verification"]
    assert shown == {"at": None, "pending": True, "smtp": None, "imap": None}


async def test_an_account_without_servers_has_nothing_to_tell(admin: Client) -> None:
    await admin.ok("POST", "/v1/account", {"account": "a", "name": "X"})
    assert await admin.ok("POST", "/v1/account/a/verify") == {"smtp": None, "imap": None, "mailboxes": None}


async def test_an_account_that_is_not_there_is_a_404(admin: Client) -> None:
    assert (await admin.ask("POST", "/v1/account/nobody/verify"))[0] == 404


async def test_an_account_is_tried_by_one_at_a_time(admin: Client, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.when("CONNECT").wait(gate).say("220 ready")
    await admin.ok("POST", "/v1/account", given(upstream) | {"account": "a"})
    first = asyncio.create_task(admin.ok("POST", "/v1/account/a/verify"))
    await until(lambda: upstream.connections == 1)
    response = await admin.open("POST", "/v1/account/a/verify")
    assert (response.status, response.headers["Retry-After"]) == (429, "5")
    gate.set()
    assert (await first)["smtp"]["success"]
    assert (await admin.ok("POST", "/v1/account/a/verify"))["smtp"]["success"]


async def test_secrets_that_cannot_be_opened_are_told(admin: Client, house: House, upstream: Upstream) -> None:
    async with db.connection(house.pool) as conn:
        other = Vault(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="])
        fields = {"smtp.host": upstream.host, "smtp.port": upstream.port, "smtp.auth.user": "u", "smtp.auth.pass": "p"}
        await accounts.save(conn, other, "a", lambda _: fields)
    answer = await admin.ok("POST", "/v1/account/a/verify")
    assert answer["smtp"]["code"] == "ESETTINGS"
    assert "POSTFERRY_SECRET_KEYS" in answer["smtp"]["steps"][0]["advice"]


# -- Bounds ------------------------------------------------------------------------------------------------------------


async def test_a_token_has_so_many_tries_a_minute(
    admin: Client, login: Login, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "BOUND", 2)
    bound, again = await login("api", account="shop"), await login("api", account="shop")
    body = {"smtp": {"host": "smtp.example.com", "port": 465}}
    for client in (bound, again):
        await client.ok("POST", "/v1/verifyAccount", body)
    for client in (bound, again):  # those of one account share their tries
        response = await client.open("POST", "/v1/verifyAccount", body)
        assert response.status == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert response.headers["RateLimit-Limit"] == "2"
    await admin.ok("POST", "/v1/verifyAccount", body)


@pytest.mark.parametrize(("at_once", "shares"), [(8, 4), (2, 1)], ids=["of one", "of all"])
async def test_few_are_tried_at_once(
    admin: Client, login: Login, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, at_once: int, shares: int
) -> None:
    monkeypatch.setattr(quota, "AT_ONCE", at_once)
    monkeypatch.setattr(quota, "SHARES", shares)
    gate = asyncio.Event()
    upstream.when("CONNECT").wait(gate).say("220 ready")
    running = [asyncio.create_task(admin.ok("POST", "/v1/verifyAccount", given(upstream))) for _ in range(2)]
    await until(lambda: upstream.connections == 2)
    other = await login("api")
    assert (await admin.ask("POST", "/v1/verifyAccount", given(upstream)))[0] == 429
    late = asyncio.create_task(other.ask("POST", "/v1/verifyAccount", given(upstream)))
    if at_once > 2:
        await until(lambda: upstream.connections == 3)
    else:
        assert (await late)[0] == 429
    gate.set()
    assert all(answer["smtp"]["success"] for answer in await asyncio.gather(*running))
    await late
    assert (await admin.ok("POST", "/v1/verifyAccount", given(upstream)))["smtp"]["success"]


async def test_a_few_tenants_whose_servers_hang_leave_room_for_others() -> None:
    """Each of those that ask for all they can get has less than the one before; a stranger is let in all the same."""
    bounds, found = quota.Quota(asyncio.get_running_loop().time), list[int]()
    with ExitStack() as hanging:
        for tenant in range(8):
            token = Token(id=tenant, scopes=("api",), account=f"tenant-{tenant}")
            with suppress(Problem):
                for count in range(1, quota.AT_ONCE + 1):
                    hanging.enter_context(bounds.admitted(token))
                    found[tenant:] = [count]
    assert found == [4, 3, 2, 1, 1, 1, 1, 1]
    assert sum(found) < quota.AT_ONCE


async def test_a_refused_try_leaves_the_account_free(
    admin: Client, upstream: Upstream, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.ok("POST", "/v1/account", given(upstream) | {"account": "a"})
    monkeypatch.setattr(quota, "UNBOUND", 0)
    assert (await admin.ask("POST", "/v1/account/a/verify"))[0] == 429
    async with db.connection(house.pool) as conn:
        assert await verifications.claim_one(conn, "a", 60) is not None
