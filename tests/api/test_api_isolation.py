"""No tenant sees or touches another's: every call of the document, walked with another tenant's token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.app import OPERATIONS
from relay.store import db
from tests.api.client import SHOP, Client, Login
from tests.api.test_api_outbox import become, submit

BODIES: dict[str, Any] = {
    "submit.submit": {"to": {"address": "x@example.com"}, "text": "x"},
    "outbox.move": {"sendAt": "2027-01-01T00:00:00Z"},
    "deadletters.replay": {"all": True},
    "queue.pause": {"paused": True},
    "accounts.create": {"account": "shop", "name": "mine"},
    "accounts.change": {"name": "mine"},
    "tokens.create": {"scopes": ["api"], "account": "shop"},
    "tracking.note": {"pinned": True, "notes": "mine"},
    "tracking.note_again": {"pinned": True, "notes": "mine"},
}
CALLS = [operation for operation in OPERATIONS if operation.scope]


@pytest.fixture
async def thief(admin: Client, shop: str, login: Login) -> Client:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "thief"})
    return await login("*", account="thief")


async def everything(pool: db.Pool) -> list[Any]:
    async with db.connection(pool) as conn:
        cursor = await conn.execute(
            "select (select jsonb_agg(a order by id) from accounts a), (select jsonb_agg(t order by id) from tokens t),"
            " (select jsonb_agg(d order by id) from deliveries d), (select count(*) from messages),"
            " (select count(*) from notes)"
        )
        return list(await cursor.fetchone() or ())


@pytest.mark.parametrize("operation", CALLS, ids=[operation.name for operation in CALLS])
async def test_another_tenants_token_gets_nowhere(admin: Client, thief: Client, pool: db.Pool, operation: Any) -> None:
    """Given mail and a dead letter of the shop, when a thief asks by every call, then nothing is shown or changed."""
    queue_id = await submit(admin, "secret@example.com", "dead@example.com")
    await become(pool, queue_id, "dead@example.com", "failed")
    before = await everything(pool)
    path = operation.path.replace("{account}", "shop").replace("{queueId}", queue_id).replace("{token}", "1")
    path = path.replace("{tracking_id}", "2").replace("{address}", "dead%40example.com")  # the dead one
    for query in ("", "?account=shop"):
        response = await thief.open(operation.method, path + query, BODIES.get(operation.name))
        text = await response.text()
        assert "secret@example.com" not in text
        assert "dead@example.com" not in text
        assert queue_id not in text or response.status == 404
        if response.status == 200:
            found = json.loads(text)
            items = found.get("items", found.get("messages", []))
            assert all(one["account"] == "thief" for one in items)
            assert found.get("replayed", 0) == found.get("pending", 0) == 0
        else:
            assert response.status in (400, 403, 404), text
    assert await everything(pool) == before


@pytest.mark.parametrize("operation", CALLS, ids=[operation.name for operation in CALLS])
async def test_nothing_is_told_of_whether_another_account_is_there(thief: Client, operation: Any) -> None:
    if "{account}" not in operation.path:
        return
    answers = []
    for account in ("shop", "not-there"):
        path = operation.path.replace("{account}", account).replace("{tracking_id}", "1").replace("{address}", "a%40b")
        response = await thief.open(
            operation.method, path, BODIES.get(operation.name), headers={"X-Request-Id": "same"}
        )
        answers.append((response.status, await response.text()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


async def test_a_tenant_does_what_is_his(thief: Client) -> None:
    await thief.ok("PUT", "/v1/account/thief", {"name": "Mine"})
    queue_id = await submit(thief, account="thief")
    assert [one["queueId"] for one in (await thief.ok("GET", "/v1/outbox"))["messages"]] == [queue_id]
    assert (await thief.ok("GET", "/v1/queue/status"))["pending"] == 1
    assert (await thief.ok("DELETE", f"/v1/outbox/{queue_id}"))["cancelled"] == 1
