"""The outbox over HTTP: listed, shown, cancelled, moved; honest about what came too late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from relay.store import db
from tests.api.client import Client

LATER = {"sendAt": "2030-01-01T00:00:00Z"}


async def submit(client: Client, *to: str, account: str = "shop", **more: object) -> str:
    given = {"to": [{"address": one} for one in to or ("ada@example.com",)], "subject": "Hello", "text": "x", **more}
    answer = await client.ok("POST", f"/v1/account/{account}/submit", given)
    return str(answer["queueId"])


async def become(pool: db.Pool, queue_id: str, recipient: str, state: str) -> None:
    """As if a worker had done it."""
    async with db.connection(pool) as conn:
        await conn.execute(
            "update deliveries set state = %s::delivery_state, code = 550, reply = 'No such user',"
            " category = 'unknown-user', attempts = 2, finished_at = case when %s in ('sent', 'failed') then now() end"
            " where message_id = %s and recipient = %s",
            (state, state, UUID(queue_id), recipient),
        )


async def test_an_entry_tells_all_about_a_message(admin: Client, shop: str) -> None:
    queue_id = await submit(admin, **LATER)
    entry = await admin.ok("GET", f"/v1/outbox/{queue_id}")
    assert (entry["queueId"], entry["account"], entry["source"], entry["subject"]) == (queue_id, "shop", "api", "Hello")
    assert entry["envelope"] == {"from": "shop@example.com", "to": ["ada@example.com"]}
    assert entry["scheduled"] == entry["nextAttempt"] == "2030-01-01T00:00:00.000Z"
    assert entry["progress"]["status"] == "queued"
    assert entry["states"] == {"queued": 1}
    assert entry["deliveries"][0]["recipient"] == "ada@example.com"


async def test_the_list_holds_what_waits_newest_first(admin: Client, shop: str, pool: db.Pool) -> None:
    ids = [await submit(admin, f"n{number}@example.com") for number in range(4)]
    await become(pool, ids[0], "n0@example.com", "sent")
    await become(pool, ids[1], "n1@example.com", "leased")
    await become(pool, ids[2], "n2@example.com", "deferred")
    found = await admin.ok("GET", "/v1/outbox")
    assert found["total"] == 3
    assert [one["queueId"] for one in found["messages"]] == ids[:0:-1]
    assert [one["progress"]["status"] for one in found["messages"]] == ["queued", "error", "processing"]


async def test_the_list_narrows_to_an_account(admin: Client, shop: str) -> None:
    await admin.ok(
        "POST", "/v1/account", {"account": "b", "email": "b@example.com", "smtp": {"host": "mx.example.com"}}
    )
    await submit(admin)
    mine = await submit(admin, account="b")
    assert [one["queueId"] for one in (await admin.ok("GET", "/v1/outbox?account=b"))["messages"]] == [mine]


async def test_the_list_goes_on_by_cursor(admin: Client, shop: str) -> None:
    ids = [await submit(admin) for _ in range(5)]
    first = await admin.ok("GET", "/v1/outbox?pageSize=2")
    second = await admin.ok("GET", f"/v1/outbox?pageSize=2&cursor={first['cursor']}")
    third = await admin.ok("GET", f"/v1/outbox?pageSize=2&cursor={second['cursor']}")
    pages = [first, second, third]
    assert [one["queueId"] for page in pages for one in page["messages"]] == ids[::-1]
    assert [(page["total"], page["page"], page["pages"]) for page in pages] == [(5, 0, 3), (5, 1, 3), (5, 2, 3)]
    assert third["cursor"] is None


async def test_a_list_shows_the_first_hundred_deliveries_and_counts_all(admin: Client, shop: str) -> None:
    queue_id = await submit(admin, *(f"n{number}@example.com" for number in range(150)))
    entry = (await admin.ok("GET", "/v1/outbox"))["messages"][0]
    assert (len(entry["deliveries"]), entry["states"]) == (100, {"queued": 150})
    assert len((await admin.ok("GET", f"/v1/outbox/{queue_id}"))["deliveries"]) == 150


async def test_a_cancel_stops_what_has_not_begun_and_counts_the_rest(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = await submit(admin, *(f"{name}@example.com" for name in "abcde"))
    for name, state in (("a", "sent"), ("b", "leased"), ("c", "failed"), ("d", "deferred")):
        await become(pool, queue_id, f"{name}@example.com", state)
    assert await admin.ok("DELETE", f"/v1/outbox/{queue_id}") == {
        "queueId": queue_id,
        "deleted": True,
        "cancelled": 2,
        "sent": 1,
        "leased": 1,
        "failed": 1,
    }
    entry = await admin.ok("GET", f"/v1/outbox/{queue_id}")
    assert entry["states"] == {"sent": 1, "leased": 1, "failed": 1, "cancelled": 2}
    again = await admin.ok("DELETE", f"/v1/outbox/{queue_id}")
    assert (again["deleted"], again["cancelled"]) == (False, 0)


async def test_a_cancel_leaves_an_event_for_each_delivery(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = await submit(admin, "a@example.com", "b@example.com")
    await admin.ok("DELETE", f"/v1/outbox/{queue_id}")
    async with db.connection(pool) as conn:
        cursor = await conn.execute(
            "select account_id, type, data->>'recipient', data->>'queueId' from events order by id"
        )
        assert await cursor.fetchall() == [
            ("shop", "messageCancelled", "a@example.com", queue_id),
            ("shop", "messageCancelled", "b@example.com", queue_id),
        ]


async def test_a_move_makes_it_due_at_another_time(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = await submit(admin)
    moved = await admin.ok("PATCH", f"/v1/outbox/{queue_id}", {"sendAt": "2030-02-03T04:05:06Z"})
    assert (moved["sendAt"], moved["moved"]) == ("2030-02-03T04:05:06.000Z", 1)
    entry = await admin.ok("GET", f"/v1/outbox/{queue_id}")
    assert entry["scheduled"] == entry["nextAttempt"] == "2030-02-03T04:05:06.000Z"
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select ready, expires_at > due_at from deliveries")
        assert await cursor.fetchall() == [(False, True)]


@pytest.mark.parametrize("at", ["2001-01-01T00:00:00Z", 1_000_000_000])
async def test_a_move_to_the_past_makes_it_due_now(admin: Client, shop: str, pool: db.Pool, at: object) -> None:
    queue_id = await submit(admin, **LATER)
    moved = await admin.ok("PATCH", f"/v1/outbox/{queue_id}", {"sendAt": at})
    assert abs(datetime.fromisoformat(moved["sendAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select ready, due_at <= now() from deliveries")
        assert await cursor.fetchall() == [(True, True)]


async def test_what_was_sent_is_not_moved(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = await submit(admin)
    await become(pool, queue_id, "ada@example.com", "sent")
    moved = await admin.ok("PATCH", f"/v1/outbox/{queue_id}", LATER)
    assert (moved["moved"], moved["sent"]) == (0, 1)


@pytest.mark.parametrize("body", [{}, {"sendAt": "soon"}, {"sendAt": None}, {"sendAt": "2030-01-01", "x": 1}])
async def test_a_move_to_nowhere_is_a_400(admin: Client, shop: str, body: object) -> None:
    queue_id = await submit(admin)
    assert (await admin.ask("PATCH", f"/v1/outbox/{queue_id}", body))[0] == 400


@pytest.mark.parametrize("at", ["soon", "2999-01-01T00:00:00Z"])
async def test_a_bad_time_is_answered_as_submit_answers_it(admin: Client, shop: str, at: str) -> None:
    queue_id = await submit(admin)
    moved = await admin.ask("PATCH", f"/v1/outbox/{queue_id}", {"sendAt": at})
    hello = {"to": {"address": "ada@example.com"}, "text": "x", "sendAt": at}
    submitted = await admin.ask("POST", "/v1/account/shop/submit", hello)
    for _, error in (moved, submitted):
        del error["requestId"]
    assert moved == submitted
    assert (moved[1]["code"], moved[1]["fields"][0]["key"]) == ("InvalidFields", "sendAt")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_is_not_there_is_a_404(admin: Client, method: str) -> None:
    assert (await admin.ask(method, f"/v1/outbox/{'0' * 32}"))[0] == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_name_that_is_none_of_ours_is_a_404(admin: Client, shop: str, method: str) -> None:
    status, error = await admin.ask(method, "/v1/outbox/1869c5692565f756b33")
    assert (status, error["code"]) == (404, "MessageNotFound")
