"""Queues over HTTP: what waits and why, pause and resume."""

from __future__ import annotations

import pytest

from relay.store import accounts, db
from tests.api.client import Client, Login
from tests.api.test_api_outbox import LATER, become, submit


async def test_an_empty_queue(admin: Client, shop: str) -> None:
    status = await admin.ok("GET", "/v1/account/shop/queue/status")
    assert (status["pending"], status["leased"], status["deferred"], status["held"]) == (0, 0, 0, 0)
    assert (status["oldestDueSeconds"], status["nextSlotAt"], status["maxPerHour"]) == (None, None, None)


async def test_states_are_counted(admin: Client, shop: str, pool: db.Pool) -> None:
    await submit(admin, **LATER)
    queue_id = await submit(admin, "a@example.com", "b@example.com", "c@example.com")
    await become(pool, queue_id, "a@example.com", "leased")
    await become(pool, queue_id, "b@example.com", "deferred")
    status = await admin.ok("GET", "/v1/queue/status")
    assert (status["pending"], status["leased"], status["deferred"], status["held"]) == (2, 1, 1, 0)
    assert status["oldestDueSeconds"] >= 0


async def test_a_full_hour_holds_and_tells_when_it_goes_on(admin: Client, shop: str, pool: db.Pool) -> None:
    await admin.ok("PUT", "/v1/account/shop", {"limits": {"perHour": 5}})
    await submit(admin)
    async with db.connection(pool) as conn:
        await conn.execute("insert into slots (account_id, n) values ('shop', 5)")
    status = await admin.ok("GET", "/v1/account/shop/queue/status")
    assert (status["sentThisHour"], status["maxPerHour"], status["held"]) == (5, 5, 1)
    assert status["nextSlotAt"] is not None


async def test_pause_and_resume(admin: Client, shop: str, pool: db.Pool) -> None:
    paused = await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    assert paused == {"account": "shop", "paused": True, "state": "paused", "changed": True}
    assert (await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True}))["changed"] is False
    assert (await admin.ok("GET", "/v1/account/shop"))["state"] == "paused"
    assert (await admin.ok("PUT", "/v1/account/shop/queue", {"paused": False}))["state"] == "active"
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select type from events order by id")
        assert await cursor.fetchall() == [("accountPaused",), ("accountResumed",)]


async def test_a_pause_holds_though_the_account_changes_meanwhile(
    admin: Client, shop: str, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an account whose login is refused at the moment it is paused, then it is paused, as the answer says."""
    find = accounts.find

    async def refused_after(conn: db.Connection, id: str, **how: bool) -> accounts.Row | None:
        row = await find(conn, id, **how)
        await conn.execute("update accounts set state = 'refused' where id = %s", (id,))
        return row

    monkeypatch.setattr(accounts, "find", refused_after)
    told = await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    monkeypatch.undo()
    assert (told["changed"], told["state"]) == (True, "paused")
    assert (await admin.ok("GET", "/v1/account/shop"))["state"] == "paused"


async def test_a_token_of_one_account_is_told_that_it_is_paused(admin: Client, login: Login, shop: str) -> None:
    await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    status = await (await login("api", account="shop")).ok("GET", "/v1/queue/status")
    assert (status["account"], status["paused"]) == ("shop", True)


async def test_an_unknown_account_is_a_404(admin: Client) -> None:
    assert (await admin.ask("PUT", "/v1/account/none/queue", {"paused": True}))[0] == 404
    assert (await admin.ask("GET", "/v1/account/none/queue/status"))[0] == 404


async def test_the_depth_is_in_the_metrics(admin: Client, shop: str) -> None:
    await submit(admin)
    await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    text = await (await admin.open("GET", "/metrics")).text()
    assert 'postferry_queue_depth{account="shop",state="held"} 1.0' in text


async def test_a_query_that_a_call_has_none_of_is_refused_by_name(admin: Client, shop: str) -> None:
    """Otherwise the figures of all accounts would pass for those of one."""
    status, error = await admin.ask("GET", "/v1/queue/status?account=shop")
    assert (status, error["fields"]) == (400, [{"message": "is not a known field", "key": "account"}])
