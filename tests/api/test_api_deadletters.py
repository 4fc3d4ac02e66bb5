"""Dead letters over HTTP: listed by account, reason and time; replayed singly and in bulk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.store import db, suppressions
from relay.store.suppressions import Suppression
from tests.api.client import Client
from tests.api.test_api_outbox import become, submit

REPLAY = "/v1/deadletters/replay"


@pytest.fixture
async def dead(admin: Client, shop: str, pool: db.Pool) -> list[int]:
    """Three dead letters of one message, which failed a minute apart; their ids, the last to fail first."""
    queue_id = await submit(admin, *(f"{name}@example.com" for name in "abc"))
    for name in "abc":
        await become(pool, queue_id, f"{name}@example.com", "failed")
    async with db.connection(pool) as conn:
        await conn.execute("update deliveries set finished_at = '2026-01-01'::timestamptz + id * interval '1 minute'")
        cursor = await conn.execute("select id from deliveries order by id desc")
        return [row[0] for row in await cursor.fetchall()]


async def states(pool: db.Pool) -> list[tuple[Any, ...]]:
    async with db.connection(pool) as conn:
        cursor = await conn.execute(
            "select state::text, ready, attempts, finished_at, due_at <= now(), expires_at > now()"
            " from deliveries order by id"
        )
        return await cursor.fetchall()


ALIVE = ("queued", True, 0, None, True, True)


async def test_a_dead_letter_tells_why(admin: Client, dead: list[int]) -> None:
    found = await admin.ok("GET", "/v1/deadletters")
    assert [one["id"] for one in found["items"]] == dead
    one = found["items"][0]
    assert (one["account"], one["recipient"], one["code"], one["response"]) == (
        "shop",
        "c@example.com",
        550,
        "No such user",
    )


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("account=shop", 3),
        ("reason=unknown-user", 3),
        ("reason=550", 3),
        ("reason=no+such", 3),
        ("reason=full", 0),
        ("from=2026-01-01T00:02:00Z&to=2026-01-01T00:03:00Z", 1),
        ("from=2026-01-01T02:02:00+02:00&to=2026-01-01T00:03:00.000+0000", 1),
        ("from=2030-01-01", 0),
        ("to=2025-01-01T00:00:00Z", 0),
    ],
)
async def test_they_are_found_by_account_reason_and_time(
    admin: Client, dead: list[int], query: str, count: int
) -> None:
    assert (await admin.ok("GET", f"/v1/deadletters?{query}"))["total"] == count


async def test_the_list_goes_on_by_cursor(admin: Client, dead: list[int]) -> None:
    first = await admin.ok("GET", "/v1/deadletters?pageSize=2")
    second = await admin.ok("GET", f"/v1/deadletters?pageSize=2&cursor={first['cursor']}")
    assert [one["id"] for one in first["items"] + second["items"]] == dead


async def test_one_is_replayed_with_a_new_life(admin: Client, dead: list[int], pool: db.Pool) -> None:
    answer = await admin.ok("POST", REPLAY, {"ids": [dead[0], 10**6]})
    assert answer == {"replayed": 1, "skipped": 1, "suppressed": 0, "suppressions": []}
    assert (await states(pool))[-1] == ALIVE
    assert (await admin.ok("GET", "/v1/deadletters"))["total"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {"account": "shop"},
        {"reason": "unknown-user"},
        {"from": "2026-01-01T00:00:00Z"},
        {"to": 1_900_000_000},
        {"all": True},
    ],
)
async def test_many_are_replayed(admin: Client, dead: list[int], pool: db.Pool, body: object) -> None:
    assert (await admin.ok("POST", REPLAY, body))["replayed"] == 3
    assert await states(pool) == [ALIVE] * 3


async def test_two_replays_at_once_share_the_work(admin: Client, dead: list[int]) -> None:
    answers = await asyncio.gather(*(admin.ok("POST", REPLAY, {"all": True}) for _ in range(4)))
    assert sum(answer["replayed"] for answer in answers) == 3


async def test_a_replay_leaves_an_event(admin: Client, dead: list[int], pool: db.Pool) -> None:
    await admin.ok("POST", REPLAY, {"all": True})
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select count(*) from events where type = 'messageReplayed'")
        assert await cursor.fetchone() == (3,)


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"all": False}, {"ids": []}, {"ids": ["1"]}, {"ids": [10**30]}, {"reason": ""}, {"from": "x"}, {"x": 1}),
        *({"ids": None}, {"queueId": None, "reason": None, "from": None, "to": None, "account": None}, {"from": ""}),
    ],
)
async def test_a_replay_of_nothing_in_particular_is_a_400(admin: Client, dead: list[int], body: object) -> None:
    assert (await admin.ask("POST", REPLAY, body))[0] == 400
    assert (await admin.ok("GET", "/v1/deadletters"))["total"] == 3


async def test_one_that_is_still_suppressed_is_not_replayed_and_told(
    admin: Client, dead: list[int], pool: db.Pool
) -> None:
    async with db.connection(pool) as conn:
        await suppressions.add(conn, "shop", [Suppression("c@example.com", "complaint")])
    answer = await admin.ok("POST", REPLAY, {"ids": dead})
    assert (answer["replayed"], answer["skipped"], answer["suppressed"]) == (2, 0, 1)
    (told,) = answer["suppressions"]
    assert (told["id"], told["recipient"], told["reason"]) == (dead[0], "c@example.com", "complaint")
    async with db.connection(pool) as conn:
        await suppressions.lift(conn, "shop", "c@example.com")
    assert (await admin.ok("POST", REPLAY, {"all": True}))["replayed"] == 1
