"""Accounts over HTTP: made, changed, shown, refused, deleted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import reading
from api.call import House
from relay import enrol
from relay.core.verification import Result, Step, StepState
from relay.store import accounts, db, mailboxes, tokens, verifications
from tests.api.client import SHOP, Client, Login


async def test_a_new_account_is_told_from_an_existing_one(admin: Client) -> None:
    assert await admin.ok("POST", "/v1/account", SHOP) == {"account": "shop", "state": "new"}
    assert await admin.ok("POST", "/v1/account", SHOP) == {"account": "shop", "state": "existing"}


async def test_an_account_without_an_id_gets_one(admin: Client) -> None:
    made = await admin.ok("POST", "/v1/account", {"account": None, "name": "X"})
    assert (await admin.ok("GET", f"/v1/account/{made['account']}"))["name"] == "X"


async def test_secrets_are_shown_as_stars_and_stored_sealed(
    admin: Client, shop: str, pool: db.Pool, house: House
) -> None:
    shown = await admin.ok("GET", "/v1/account/shop")
    assert shown["smtp"]["auth"] == {"user": "shop", "pass": "******"}
    async with db.connection(pool) as conn:
        row = await accounts.find(conn, "shop")
        found = await accounts.get(conn, house.vault, "shop")
    assert row is not None
    assert "s3cret-pass" not in repr(row)
    assert found is not None
    assert found.smtp is not None
    assert found.smtp.password == "s3cret-pass"


@pytest.mark.parametrize("smtp", [{"port": 2501}, {"auth": {"pass": "******"}}, {"auth": {"user": "other"}}])
async def test_a_put_keeps_the_secret_that_it_leaves_out(
    admin: Client, shop: str, pool: db.Pool, house: House, smtp: dict[str, Any]
) -> None:
    await admin.ok("PUT", "/v1/account/shop", {"smtp": smtp})
    async with db.connection(pool) as conn:
        found = await accounts.get(conn, house.vault, "shop")
    assert found is not None
    assert found.smtp is not None
    assert found.smtp.password == "s3cret-pass"
    assert found.name == "The Shop"


async def test_a_secret_does_not_follow_to_another_host(admin: Client, shop: str) -> None:
    status, error = await admin.ask("PUT", "/v1/account/shop", {"smtp": {"host": "thief.example.org"}})
    assert (status, error["fields"][0]["key"]) == (400, "smtp.auth.pass")
    assert "cannot be used: smtp.auth.pass must be given again" in error["message"], "for who looks at that alone"
    given = {"smtp": {"host": "new.example.org", "auth": {"pass": "another"}}}
    assert (await admin.ok("PUT", "/v1/account/shop", given))["state"] == "existing"


async def test_null_removes(admin: Client, shop: str) -> None:
    await admin.ok("PUT", "/v1/account/shop", {"smtp": None, "limits": {"perHour": 10}})
    assert (await admin.ok("GET", "/v1/account/shop"))["smtp"] is None
    await admin.ok("PUT", "/v1/account/shop", {"limits": {"perHour": None}})
    assert "perHour" not in (await admin.ok("GET", "/v1/account/shop"))["limits"]


async def test_every_field_of_the_wire_is_kept(admin: Client) -> None:
    given = {
        "account": "full",
        "name": "Füll",
        "email": "full@example.com",
        "smtp": {
            "host": "mail.example.com",
            "port": 465,
            "secure": True,
            "auth": {"user": "u", "accessToken": "t", "method": "xoauth2"},
            "tls": {"rejectUnauthorized": False, "name": "relay.example.com"},
        },
        "imap": {
            "host": "imap.example.com",
            "port": 993,
            "secure": True,
            "auth": {"user": "u", "pass": "p"},
            "tls": {"rejectUnauthorized": True},
            "sentMailPath": "Sent",
            "disabled": False,
        },
        "copy": True,
        "locale": "de",
        "tz": "Europe/Berlin",
        "limits": {"perMinute": 1, "perHour": 2, "perDay": 3, "connections": 4, "messagesPerConnection": 5},
        "webhooks": "https://hooks.example.com/postferry",
        "tracking": {
            "opens": False,
            "own": ["198.51.100.7/32", "2001:db8::/48"],
            "alerts": {
                "opened": True,
                "unopened": True,
                "unopenedDays": 7,
                "unopenedMail": True,
                "to": "boss@example.com",
            },
        },
    }
    await admin.ok("POST", "/v1/account", given)
    shown = await admin.ok("GET", "/v1/account/full")
    given["smtp"]["auth"]["accessToken"] = given["imap"]["auth"]["pass"] = "******"  # type: ignore[index]
    assert {key: shown[key] for key in given} == given


REFUSED = [
    ({"smtp": {"host": "10.0.0.5"}}, "smtp.host", "private address"),
    ({"smtp": {"host": "169.254.169.254"}}, "smtp.host", "metadata"),
    ({"imap": {"host": "192.168.1.1"}}, "imap.host", "private address"),
    ({"smtp": {"host": "a b"}}, "smtp.host", "host name"),
    ({"smtp": {"host": "http://x"}}, "smtp.host", "host name"),
    ({"smtp": {"port": 25}}, "smtp.host", "missing"),
    ({"smtp": {"host": "x.example", "port": 70000}}, "smtp.port", "whole number"),
    ({"smtp": {"host": "x.example", "port": "25"}}, "smtp.port", "integer"),
    ({"smtp": {"host": "x.example", "auth": {"pass": "p"}}}, "smtp.auth.user", "missing"),
    ({"smtp": {"host": "x.example", "auth": {"user": "a\r\nb", "pass": "p"}}}, "smtp.auth.user", "control"),
    ({"smtp": {"host": "x.example", "auth": {"user": "a", "method": "ntlm"}}}, "smtp.auth.method", "plain"),
    ({"smtp": {"host": "x.example", "secure": True, "tls": {"mode": "none"}}}, "smtp.tls.mode", "leave it out"),
    ({"smtp": {"host": "x.example", "prot": 1}}, "smtp.prot", "not a known field"),
    ({"webhooks": "ftp://x"}, "webhooks", "must begin with https:// or http://"),
    ({"email": "no address"}, "email", "address"),
    ({"email": "a@b.example\r\nRCPT TO:<x@y.example>"}, "email", "control"),
    ({"name": "a\u2028b"}, "name", "control"),
    ({"name": "a\x00b"}, "name", "control"),
    ({"tz": "Mars/Olympus"}, "tz", "time zone"),
    ({"locale": "not a locale"}, "locale", "language"),
    ({"limits": {"perMinute": 0}}, "limits.perMinute", "whole number"),
    ({"limits": {"perMinute": 10**30}}, "limits.perMinute", "whole number"),
    ({"copy": "sometimes"}, "copy", ""),
    ({"tracking": {"own": ["the office"]}}, "tracking.own", "addresses or networks"),
    ({"tracking": {"own": ["10.0.0.1"] * 101}}, "tracking.own", "at most 100"),
    ({"tracking": {"alerts": {"unopenedDays": 0}}}, "tracking.alerts.unopenedDays", "from 1 to 365"),
    ({"tracking": {"alerts": {"to": "nobody"}}}, "tracking.alerts.to", "address"),
    ({"account": "a b"}, "account", "letters, digits"),
    ({"account": "../x"}, "account", "letters, digits"),
    ({"account": "x" * 200}, "account", "letters, digits"),
]


@pytest.mark.parametrize(
    ("given", "key", "words"), REFUSED, ids=[f"{key}-{at}" for at, (_, key, _) in enumerate(REFUSED)]
)
async def test_what_cannot_be_used_is_named(admin: Client, given: dict[str, Any], key: str, words: str) -> None:
    status, error = await admin.ask("POST", "/v1/account", {"account": "bad", **given})
    assert status == 400, error
    found = {fault["key"]: fault["message"] for fault in error["fields"]}
    assert words in found[key], error
    if "account" not in given:
        assert (await admin.ask("GET", "/v1/account/bad"))[0] == 404


async def test_every_fault_is_told_at_once(admin: Client) -> None:
    _, error = await admin.ask(
        "POST", "/v1/account", {"account": "bad", "limits": {"perDay": 0}, "locale": "?", "tz": ""}
    )
    assert {fault["key"] for fault in error["fields"]} >= {"limits.perDay", "locale"}


async def test_the_sandbox_is_a_host_only_where_there_is_one(admin: Client, house: House) -> None:
    assert house.settings.sandbox_port == 0
    await admin.ok("POST", "/v1/account", {"account": "s", "smtp": {"host": "sandbox", "port": 25}})


async def test_two_accounts_may_share_an_email_and_who_takes_it_is_told(admin: Client, shop: str, login: Login) -> None:
    told = "shop@example.com is the email of account shop too: mail from it needs a login or X-Account now"
    made = await admin.ok("POST", "/v1/account", {**SHOP, "account": "shop2"})
    assert (made["state"], [told in one for one in made["warnings"]]) == ("new", [True])
    assert (await admin.ok("GET", "/v1/account/shop2"))["email"] == "shop@example.com"
    email = {"email": "Shop@example.com"}
    assert told in (await admin.ok("PUT", "/v1/account/shop2", email))["warnings"][0]
    quiet = {"account": "shop2", "state": "existing"}
    assert await admin.ok("PUT", "/v1/account/shop2", {"name": "Two"}) == quiet
    assert await (await login("api", account="shop2")).ok("PUT", "/v1/account/shop2", email) == quiet
    assert await admin.ok("PUT", "/v1/account/shop2", {"email": "two@example.com"}) == quiet


async def test_a_change_of_an_unknown_account_is_a_404(admin: Client) -> None:
    assert (await admin.ask("PUT", "/v1/account/none", {"name": "X"}))[0] == 404


async def test_a_change_of_an_account_that_goes_meanwhile_makes_none(
    admin: Client, shop: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever deleted it would find a husk of it."""

    async def gone(*_: object) -> None:
        await enrol.delete(house.pool, shop)

    monkeypatch.setattr("api.accounts._check_email", gone)
    assert (await admin.ask("PUT", f"/v1/account/{shop}", {"email": "new@example.com"}))[0] == 404
    assert (await admin.ask("GET", f"/v1/account/{shop}"))[0] == 404


async def test_accounts_come_in_pages_and_by_cursor(admin: Client) -> None:
    for number in range(7):
        await admin.ok("POST", "/v1/account", {"account": f"a{number}"})
    first = await admin.ok("GET", "/v1/accounts?pageSize=3")
    assert (first["total"], first["page"], first["pages"]) == (7, 0, 3)
    assert [one["account"] for one in first["items"]] == ["a0", "a1", "a2"]
    third = await admin.ok("GET", "/v1/accounts?pageSize=3&page=2")
    assert ([one["account"] for one in third["items"]], third["cursor"]) == (["a6"], None)
    second = await admin.ok("GET", f"/v1/accounts?pageSize=3&cursor={first['cursor']}")
    assert ([one["account"] for one in second["items"]], second["page"]) == (["a3", "a4", "a5"], 1)
    last = await admin.ok("GET", f"/v1/accounts?pageSize=3&cursor={second['cursor']}")
    assert ([one["account"] for one in last["items"]], last["cursor"]) == (["a6"], None)


@pytest.mark.parametrize(
    "query",
    [
        "page=-1",
        "pageSize=0",
        "pageSize=1001",
        "page=x",
        "nope=1",
        "cursor=!!!",
        "cursor=W10",
        "cursor=WzEsMCwiXHUwMDAwIl0",
        "cursor=WzEsMCwiXHVkODAwIl0",
        "page=1&page=2",
    ],
)
async def test_a_query_that_makes_no_sense_is_a_400(admin: Client, query: str) -> None:
    assert (await admin.ask("GET", f"/v1/accounts?{query}"))[0] == 400


async def test_a_deleted_account_leaves_neither_tokens_nor_mail(
    admin: Client, shop: str, login: Login, pool: db.Pool
) -> None:
    tenant = await login("api", account="shop")
    message = {"to": {"address": "ada@example.com"}, "text": "x", "sendAt": "2030-01-01T00:00:00Z"}
    queue_id = (await admin.ok("POST", "/v1/account/shop/submit", message))["queueId"]
    assert await admin.ok("DELETE", "/v1/account/shop") == {"account": "shop", "deleted": True}
    assert (await admin.ask("GET", f"/v1/outbox/{queue_id}"))[0] == 404
    assert (await admin.ask("DELETE", "/v1/account/shop"))[0] == 404
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select (select count(*) from tokens where account_id = 'shop')")
        assert await cursor.fetchone() == (0,)
        for table in ("messages", "bodies", "deliveries", "events"):
            cursor = await conn.execute(f"select count(*) from {table}")
            assert await cursor.fetchone() == (0,), table
    assert tenant.token


async def test_a_call_that_began_before_its_account_was_removed_is_not_the_next_ones(
    admin: Client, shop: str, login: Login, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a body that comes slowly: meanwhile the account goes, and another of the same id is made."""
    tenant, read, begun = await login("api", account="shop"), reading._read, asyncio.Event()

    async def reads(*given: Any) -> bytes:
        begun.set()
        return await read(*given)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"to": {"address": "ada@example.com"}, '
        await begun.wait()
        await admin.ok("DELETE", "/v1/account/shop")
        await admin.ok("POST", "/v1/account", SHOP)
        house.directory._tokens.forget(tokens.digest(tenant.token or ""))  # as it is by itself after a second
        yield b'"text": "x"}'

    monkeypatch.setattr(reading, "_read", reads)
    headers = {"Content-Type": "application/json"}
    status, error = await tenant.ask("POST", "/v1/account/shop/submit", data=slowly(), headers=headers)
    assert (status, error["code"]) == (401, "Unauthorised")
    assert (await admin.ok("GET", "/v1/outbox"))["total"] == 0


async def test_a_tenant_cannot_take_the_address_of_another(admin: Client, shop: str, login: Login) -> None:
    tenant = await login("api", account="shop")
    email = (await admin.ok("GET", "/v1/account/shop"))["email"]
    status, problem = await tenant.ask("PUT", "/v1/account/shop", {"email": "other@example.com"})
    assert (status, problem["code"]) == (403, "BoundToken")
    assert "email" in problem["message"]
    assert (await tenant.ask("PUT", "/v1/account/shop", {"email": email, "name": "New"}))[0] == 200
    assert (await admin.ok("GET", "/v1/account/shop"))["email"] == email


async def test_how_a_mailbox_is_watched_is_shown(admin: Client, shop: str, pool: db.Pool) -> None:
    imap = {"host": "mail.example.org", "auth": {"user": "u", "pass": "p"}}
    await admin.ok("PUT", "/v1/account/shop", {"imap": imap})
    shown = (await admin.ok("GET", "/v1/account/shop"))["mailbox"]
    assert (shown["lookedAt"], shown["error"], shown["nextAt"] is None) == (None, None, False)
    async with db.connection(pool) as conn:
        (due,) = await mailboxes.claim(conn, 1, 60)
        await mailboxes.fail(conn, due, 3600, {}, "it says no")
    assert (await admin.ok("GET", "/v1/account/shop"))["mailbox"]["error"] == "it says no"
    await admin.ok("PUT", "/v1/account/shop", {"imap": {"watch": False}})
    assert (await admin.ok("GET", "/v1/account/shop"))["mailbox"]["nextAt"] is None


async def test_without_a_mailbox_there_is_no_watch(admin: Client) -> None:
    await admin.ok("POST", "/v1/account", {"account": "bare", "name": "X"})
    assert (await admin.ok("GET", "/v1/account/bare"))["mailbox"] is None


async def test_the_command_shows_what_the_api_shows(admin: Client, pool: db.Pool, environ: dict[str, str]) -> None:
    imap = {"host": "127.0.0.1", "port": 993, "auth": {"user": "shop", "pass": "s3cret-pass"}}
    alerts = {"opened": True, "unopened": True, "unopenedDays": 3, "to": "ann@example.com"}
    given = {"imap": imap, "limits": {"perHour": 9}, "tracking": {"alerts": alerts, "own": ["192.0.2.0/24"]}}
    await admin.ok("POST", "/v1/account", SHOP | given | {"locale": "de", "tz": "Europe/Berlin"})
    async with db.connection(pool) as conn:
        due = await verifications.claim_one(conn, "shop", 60)
        assert due is not None
        failed = Result((Step("connect", StepState.FAILED, "nobody listens", "Start it.", seconds=0.1),))
        await verifications.settle(conn, due, failed.told(), None, None)

    shown = await admin.ok("GET", "/v1/account/shop")
    listed = await admin.ok("GET", "/v1/accounts")

    assert set_fields(await command(environ, "account", "show", "shop")) == set_fields(shown)
    assert shown["verification"]["smtp"]["steps"][0]["advice"] == "Start it."
    assert await command(environ, "account", "list", "--json") == listed["items"]


async def command(environ: dict[str, str], *argv: str) -> Any:
    """What `postferry` told in JSON."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *argv), env=os.environ | environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await running.communicate()
    assert running.returncode == 0
    return json.loads(out)


def set_fields(told: Any) -> Any:
    """Without what is null: the command leaves out what a verification did not find."""
    match told:
        case dict():
            return {key: set_fields(value) for key, value in told.items() if value is not None}
        case list():
            return [set_fields(value) for value in told]
    return told
