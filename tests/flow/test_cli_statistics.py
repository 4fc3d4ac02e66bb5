"""`postferry statistics`: what differs is told, mended, and then there is nothing to tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.flow.conftest import Postferry

SENT = """
with m as (
    insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit,
        send_at)
    select gen_random_uuid(), %(account)s, 'api', '<m@x>', 's@x', 's', 9, 1, false, false, now() returning id
)
insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at, expires_at,
    finished_at)
select id, %(account)s, 'ann@example.com', 'sent', false, 1, 9, now(), now(), now() from m
"""


@pytest.fixture
def conn(database_url: str) -> Iterator[Any]:
    """Two accounts that each sent a message which no sum knows of."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        for account in ("shop", "club"):
            conn.execute("insert into accounts (id) values (%s)", (account,))
            conn.execute(SENT, {"account": account})
        yield conn


def sums(conn: Any) -> list[Any]:
    query = "select account_id, sum(sent) from tallies group by 1 order by 1"
    return [tuple(row) for row in conn.execute(query).fetchall()]


def test_every_difference_is_told_by_account_row_and_column(postferry: Postferry, conn: Any) -> None:
    shown = postferry("statistics", "verify", "--account", "shop")

    assert shown.code == 1
    assert "shop  recipients  ann@example.com  sent: 0, the rows say 1\n" in shown.out
    assert "club" not in shown.out
    assert "postferry statistics rebuild" in shown.err


def test_verifying_changes_nothing(postferry: Postferry, conn: Any) -> None:
    postferry("statistics", "verify")

    assert sums(conn) == []


def test_what_was_rebuilt_verifies(postferry: Postferry, conn: Any) -> None:
    rebuilt = postferry("statistics", "rebuild")
    verified = postferry("statistics", "verify")

    assert rebuilt.code == 0
    assert "mended" in rebuilt.out
    assert sums(conn) == [("", 2), ("club", 1), ("shop", 1)]
    assert verified.code == 0
    assert verified.out == "the sums of 2 accounts are what the rows say\n"


def test_one_account_is_rebuilt_alone(postferry: Postferry, conn: Any) -> None:
    postferry("statistics", "rebuild", "--account", "shop")

    assert sums(conn) == [("shop", 1)]


def test_differences_as_json(postferry: Postferry, conn: Any) -> None:
    lines = postferry("statistics", "verify", "--account", "shop", "--json").out.splitlines()
    found = [json.loads(line) for line in lines]

    assert {
        "account": "shop",
        "table": "recipients",
        "row": ["ann@example.com"],
        "column": "sent",
        "kept": 0,
        "rows": 1,
    } in found


def test_an_account_that_is_not_there_is_said(postferry: Postferry, conn: Any) -> None:
    shown = postferry("statistics", "verify", "--account", "nobody")

    assert shown.code == 65
    assert "there is no account 'nobody'" in shown.err
