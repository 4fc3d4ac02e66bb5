"""`postferry webhook`, over a real database and, where something is posted, a real notifier and receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.core import webhook
from relay.settings import Settings
from relay.store import db
from tests.fakes.receiver import Receiver
from tests.flow.conftest import Postferry, Result
from tests.notifying import Told

URL = "https://hooks.example.com/"


@pytest.fixture
def conn(database_url: str) -> Iterator[Any]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("insert into accounts (id) values ('shop')")
        yield conn


@pytest.fixture
def hook(postferry: Postferry, conn: Any) -> str:
    """The number of an endpoint of the shop."""
    assert postferry("webhook", "add", URL, "--account", "shop", "--description", "CRM").code == 0
    return "1"


def event(conn: Any, state: str = "pending", type: str = "messageSent", **post: Any) -> int:
    """An event of the shop whose posting stands like this; `post`: its last try."""
    (id,) = conn.execute(
        "insert into events (account_id, type, data) values ('shop', %s, '{\"queueId\": \"q\"}') returning id", (type,)
    ).fetchone()
    (posting,) = conn.execute(
        "update postings set state = %s, attempts = attempts + %s, due_at = now() + interval '1 hour'"
        " where event_id = %s returning id",
        (state, int(bool(post)), id),
    ).fetchone()
    if post:
        given = {"status": None, "error": "", "response": "", **post}
        conn.execute(
            "insert into posts (posting_id, endpoint_id, seconds, url, status, error, response)"
            " values (%s, 1, 0.25, %s, %s, %s, %s)",
            (posting, URL, given["status"], given["error"], given["response"]),
        )
    return int(id)


def states(conn: Any) -> list[str]:
    return [row[0] for row in conn.execute("select state::text from postings order by id").fetchall()]


def test_a_new_endpoints_secret_goes_to_stdout_once(postferry: Postferry, conn: Any) -> None:
    added = postferry("webhook", "add", URL, "--account", "shop", "--event", "messageSent", "--event", "trackOpen")
    shown = postferry("webhook", "show", "1")

    assert len(webhook.key(added.out.strip())) == 32
    assert "it is not shown again" in added.err
    assert json.loads(shown.out)["events"] == ["messageSent", "trackOpen"]
    assert added.out.strip() not in shown.out


def test_headers_and_a_secret_come_from_files(postferry: Postferry, conn: Any, tmp_path: Path) -> None:
    secret = webhook.new_secret(b"k" * 32)
    (tmp_path / "headers").write_text("Authorization: Bearer s3cret\n\nX-Shop: 7\n")
    (tmp_path / "secret").write_text(secret + "\n")
    added = postferry("webhook", "add", URL, "--headers", "headers", "--secret-file", "secret")
    shown = postferry("webhook", "show", "1")

    assert (added.code, secret in added.out + added.err) == (0, False)
    assert json.loads(shown.out)["headers"] == {"Authorization": "******", "X-Shop": "******"}
    assert "s3cret" not in shown.out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("http://10.0.0.1/",), "url leads to a private address"),
        ((URL, "--event", "sent"), "there are: messageSent"),
        ((URL, "--account", "nobody"), "there is no account 'nobody'"),
    ],
)
def test_what_cannot_be_used_ends_with_the_reason(
    postferry: Postferry, conn: Any, argv: tuple[str, ...], words: str
) -> None:
    added = postferry("webhook", "add", *argv)

    assert added.code == 65
    assert words in added.err
    assert "Traceback" not in added.err


def test_the_list_tells_how_each_fares(postferry: Postferry, conn: Any, hook: str) -> None:
    assert postferry("webhook", "add", URL + "all").code == 0
    conn.execute("update endpoints set failures = 3, reason = '500 oops\x1b[2J' where id = 1")
    listed = postferry("webhook", "list")

    assert [line.split()[:4] for line in listed.out.splitlines()[1:]] == [
        ["1", "shop", "failing", "(3)"],
        ["2", "(all)", "active", "(all)"],
    ]
    assert "\x1b" not in listed.out
    assert [one["id"] for one in json.loads(postferry("webhook", "list", "--account", "shop", "--json").out)] == [1]


def test_without_an_endpoint_it_says_how_to_make_one(postferry: Postferry, conn: Any) -> None:
    assert "postferry webhook add" in postferry("webhook", "list").out


def test_a_disabled_endpoint_is_enabled(postferry: Postferry, conn: Any, hook: str) -> None:
    conn.execute("update endpoints set state = 'disabled', reason = '410'")
    enabled = postferry("webhook", "enable", hook)

    assert enabled.code == 0
    assert json.loads(postferry("webhook", "show", hook).out)["enabled"] is True


def test_an_endpoint_whose_key_is_gone_says_so(postferry: Postferry, conn: Any, hook: str) -> None:
    conn.execute("update endpoints set secret = 'sealed with a key that is gone'")

    assert "rotate its secret" in json.loads(postferry("webhook", "show", hook).out)["reason"]
    assert "rotate its secret" in postferry("webhook", "list").out


def test_what_waits_for_a_mended_endpoint_goes_at_once(postferry: Postferry, conn: Any, hook: str) -> None:
    """It failed and was not disabled: nobody waits for the next try, which may be hours away."""
    event(conn, status=500, error="it answered 500")
    conn.execute("update endpoints set failures = 1, failing_since = now(), reason = 'it answered 500'")

    assert postferry("webhook", "enable", hook).code == 0
    assert conn.execute("select due_at <= now(), attempts from postings").fetchall() == [(True, 0)]
    assert conn.execute("select failures, failing_since, reason from endpoints").fetchall() == [(0, None, "")]


def test_a_removed_endpoint_is_gone(postferry: Postferry, conn: Any, hook: str) -> None:
    assert postferry("webhook", "remove", hook).code == 0
    gone = postferry("webhook", "remove", hook)

    assert (gone.code, "There is no webhook 1" in gone.err) == (65, True)


def test_the_log_is_a_table_or_json(postferry: Postferry, conn: Any, hook: str) -> None:
    event(conn, "delivered", status=204)
    event(conn, "pending", "messageFailed", error="no answer within 10 s")
    lines = postferry("webhook", "log", hook).out.splitlines()
    found = json.loads(postferry("webhook", "log", hook, "--json", "--state", "delivered").out)

    assert "no answer within 10 s (again " in lines[1]
    assert [line.split()[3] for line in lines[1:]] == ["messageFailed", "messageSent"]
    assert [(one["event"], one["status"]) for one in found] == [("messageSent", 204)]


@pytest.mark.parametrize(
    "argv",
    [
        ("log", "1", "--limit", "0"),
        ("log", "1", "--limit", "-1"),
        ("test", "1", "--wait", "-1"),
        ("test", "1", "--wait", "nan"),
    ],
)
def test_a_number_that_makes_no_sense_is_a_usage_error(bare: Postferry, argv: tuple[str, ...]) -> None:
    shown = bare("webhook", *argv)

    assert (shown.code, f"argument {argv[2]}: {argv[3]!r} is no " in shown.err) == (64, True)


def test_one_posting_is_shown_with_every_try(postferry: Postferry, conn: Any, hook: str) -> None:
    event(conn, "delivered", status=500, error="answered 500", response="oops\x1b[2J")
    shown = postferry("webhook", "log", hook, "--posting", "1")

    assert '"data":{"queueId":"q"}' in shown.out
    assert "500  answered 500" in shown.out
    assert "\x1b" not in shown.out
    assert json.loads(postferry("webhook", "log", hook, "--posting", "1", "--json").out)["tries"][0]["status"] == 500
    assert postferry("webhook", "log", hook, "--posting", "9").code == 65


def test_what_failed_is_replayed(postferry: Postferry, conn: Any, hook: str) -> None:
    for state in ("failed", "delivered"):
        event(conn, state, status=500)
    replayed = postferry("webhook", "replay", hook, "--failed")

    assert "1 event will be posted" in replayed.out
    assert states(conn) == ["pending", "delivered"]


def test_a_time_or_an_event_is_replayed(postferry: Postferry, conn: Any, hook: str) -> None:
    id = event(conn, "delivered", status=200)
    event(conn, "delivered", status=200)

    assert postferry("webhook", "replay", hook, "--event-id", f"evt_{id}").code == 0
    assert states(conn) == ["pending", "delivered"]
    assert "1 event will" in postferry("webhook", "replay", hook, "--since", "2020-01-01").out  # the other waits
    assert states(conn) == ["pending", "pending"]


def test_an_event_that_is_not_there_is_told(postferry: Postferry, conn: Any, hook: str) -> None:
    id = event(conn, "delivered", status=200)
    (others,) = conn.execute(
        "insert into events (account_id, type, data) values ('', 'messageSent', '{}') returning id"
    ).fetchone()

    nothing = postferry("webhook", "replay", hook, "--event-id", "evt_999")
    some = postferry("webhook", "replay", hook, "--event-id", f"evt_{id}", "--event-id", f"evt_{others}")
    again = postferry("webhook", "replay", hook, "--event-id", f"evt_{id}")

    assert (nothing.code, nothing.out) == (65, "")
    assert "there is no evt_999 for webhook 1" in nothing.err
    assert (some.code, "1 event will be posted" in some.out) == (65, True)
    assert f"there is no evt_{others} for" in some.err
    assert (again.code, "about to be posted" in again.out) == (0, True)


@pytest.mark.parametrize("argv", [(), ("--failed", "--event-id", "evt_1"), ("--event-id", "1x"), ("--since", "soon")])
def test_a_replay_of_nothing_in_particular_is_a_usage_error(
    postferry: Postferry, conn: Any, hook: str, argv: tuple[str, ...]
) -> None:
    assert postferry("webhook", "replay", hook, *argv).code == 64


@pytest.mark.parametrize(("status", "code"), [(204, 0), (500, 69)])
async def test_a_test_is_watched_until_it_is_answered(
    postferry: Postferry, conn: Any, pool: db.Pool, settings: Settings, status: int, code: int
) -> None:
    async with Receiver() as receiver, Told(pool, settings).running():
        receiver.when().say(status)
        assert (await asyncio.to_thread(postferry, "webhook", "add", receiver.url("/"))).code == 0
        tested: Result = await asyncio.to_thread(postferry, "webhook", "test", "1")

    assert tested.code == code
    assert str(status) in tested.out
    assert receiver.posts[0].json["event"] == "webhookTest"


def test_a_test_that_nobody_posts_says_who_would(postferry: Postferry, conn: Any, hook: str) -> None:
    tested = postferry("webhook", "test", hook, "--wait", "0.1")

    assert tested.code == 75
    assert "postferry notify" in tested.err


@pytest.mark.parametrize("argv", [("list",), ("add", "https://example.com/hooks")])
def test_an_account_that_is_not_there_is_named(postferry: Postferry, argv: tuple[str, ...]) -> None:
    refused = postferry("webhook", *argv, "--account", "nobody")

    assert refused.code == 65
    assert refused.err == "postferry: there is no account 'nobody'\n  see: postferry account list\n"
