"""`postferry queue`: what waits, and why, over rows of every kind."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.flow.conftest import Postferry


@pytest.fixture
def conn(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


def account(conn: Any, id: str, **more: Any) -> None:
    columns = {"id": id, **more}
    names = ", ".join(columns)
    conn.execute(f"insert into accounts ({names}) values ({', '.join(['%s'] * len(columns))})", list(columns.values()))


def delivery(
    conn: Any, account: str, state: str = "queued", *, due: float = 0, ready: bool = True, reply: str = ""
) -> None:
    conn.execute(
        "insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at,"
        " expires_at, code, reply, finished_at) values (gen_random_uuid(), %s, 'r@example.com', %s, %s, 1, 9,"
        " now() + %s * interval '1 second', now() + interval '1 day', %s, %s,"
        " case when %s in ('sent', 'failed') then now() end)",
        (account, state, ready, due, 451 if reply else None, reply or None, state),
    )


def rows(postferry: Postferry, *argv: str) -> dict[str, dict[str, Any]]:
    return {row["account"]: row for row in json.loads(postferry("queue", "--json", *argv).out)}


def test_nothing_waits(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop")

    assert postferry("queue").out == "nothing waits (1 account)\n"


def test_every_kind_is_counted_apart(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop")
    for _ in range(3):
        delivery(conn, "shop", due=-100)
    delivery(conn, "shop", "leased")
    delivery(conn, "shop", "deferred", due=300, ready=False, reply="greylisted")
    delivery(conn, "shop", due=3600, ready=False)
    delivery(conn, "shop", "failed")
    delivery(conn, "shop", "sent")

    row = rows(postferry)["shop"]

    assert [row[name] for name in ("ready", "leased", "deferred", "scheduled", "failed")] == [3, 1, 1, 1, 1]
    assert 100 <= row["oldest_due"] < 110
    assert "451 greylisted (again in 5 min)" in row["why"]


def test_a_deferral_whose_time_has_come_is_due_again(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop")
    delivery(conn, "shop", "deferred", due=-1)

    assert rows(postferry)["shop"]["ready"] == 1


def test_who_waited_longest_comes_first(postferry: Postferry, conn: Any) -> None:
    for name, due in (("a", -10.0), ("b", -20.0)):
        account(conn, name)
        delivery(conn, name, due=due)

    assert list(rows(postferry)) == ["b", "a"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"state": "paused", "reason": "moving house"}, "paused: moving house"),
        ({"state": "refused", "reason": "535 no"}, "login refused: 535 no"),
    ],
)
def test_why_an_account_is_held(postferry: Postferry, conn: Any, columns: dict[str, str], words: str) -> None:
    account(conn, "shop", **columns)
    delivery(conn, "shop")

    assert words in postferry("queue").out


def test_an_upstream_in_trouble_is_told(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop", reason="connection refused")
    conn.execute("update accounts set retry_at = now() + interval '30 seconds'")
    delivery(conn, "shop")

    assert "upstream in trouble: connection refused (again in " in postferry("queue").out


def test_a_limit_that_is_reached_is_told(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop", config=json.dumps({"limits": {"perHour": 10, "perDay": 100}}))
    conn.execute("insert into slots (account_id, n) values ('shop', 10)")
    delivery(conn, "shop")

    assert "limit reached: 10 of 10 per hour" in postferry("queue").out


def test_one_account_alone(postferry: Postferry, conn: Any) -> None:
    for name in ("a", "b"):
        account(conn, name)
        delivery(conn, name)

    assert list(rows(postferry, "a")) == ["a"]
    assert postferry("queue", "nobody").code == 65


def test_an_upstreams_words_do_not_steer_the_terminal(postferry: Postferry, conn: Any) -> None:
    account(conn, "shop")
    delivery(conn, "shop", "deferred", due=300, ready=False, reply="later\x1b[2J\r\nfake")

    shown = postferry("queue").out

    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2
