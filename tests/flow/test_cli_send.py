"""`postferry send`: handed over for real, and every end that it may come to, told with what to do."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.commands.watch import Watch, judge, settled
from relay.store import overview
from relay.store.overview import Progress
from tests.flow.conftest import Postferry

SEND = ("send", "shop", "--to", "r@example.com")


@pytest.fixture
def conn(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def shop(postferry: Postferry) -> None:
    done = postferry("account", "add", "shop", "--smtp-host", "127.0.0.1", "--email", "shop@example.com")
    assert done.code == 0, done.err


def test_it_is_stored_like_any_other_and_its_absent_worker_is_named(
    shop: None, postferry: Postferry, conn: Any
) -> None:
    done = postferry(*SEND, "--to", "s@example.com", "--timeout", "0.1")

    assert done.code == 75
    assert "queued as " in done.out
    assert "nobody took it within" in done.err
    assert "postferry doctor" in done.err
    stored = "select ingress, sender, subject, splice is not null from messages"
    assert conn.execute(stored).fetchall() == [("cli", "shop@example.com", "A test message", True)]
    assert conn.execute("select recipient from deliveries order by id").fetchall() == [
        ("r@example.com",),
        ("s@example.com",),
    ]


def test_a_message_of_ones_own(shop: None, postferry: Postferry, conn: Any, tmp_path: Path) -> None:
    (tmp_path / "m.eml").write_bytes(b"From: a@example.com\nSubject: mine\n\nHello\n")

    postferry(*SEND, "--file", "m.eml", "--from", "other@example.com", "--timeout", "0")

    assert conn.execute("select sender, subject from messages").fetchall() == [("other@example.com", "mine")]


def test_json_is_all_of_stdout(shop: None, postferry: Postferry) -> None:
    done = postferry(*SEND, "--json", "--timeout", "0")

    found = json.loads(done.out)
    assert len(found["queueId"]) == 32
    assert found["deliveries"] == [{"recipient": "r@example.com", "state": "queued", "attempts": 0, "reply": ""}]


def test_a_paused_account_is_told_at_once(shop: None, postferry: Postferry) -> None:
    postferry("account", "pause", "shop", "--reason", "moving house")
    begun = time.monotonic()

    done = postferry(*SEND)

    assert done.code == 75
    assert "account shop is paused: moving house" in done.err
    assert "postferry account resume shop" in done.err
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("send", "nobody", "--to", "r@example.com"), 65, "there is no account 'nobody'"),
        (("send", "shop", "--to", "r@"), 65, ""),
        (("send", "shop", "--to", "a@b.example>\r\nRCPT TO:<x@y.example"), 65, ""),
        ((*SEND, "--from", "not an address"), 65, ""),
        ((*SEND, "--file", "nowhere.eml"), 64, "cannot read nowhere.eml"),
        (("send", "bare", "--to", "r@example.com", "--from", "a@example.com"), 65, "no upstream"),
        (("send", "bare", "--to", "r@example.com"), 64, "--from ADDRESS"),
    ],
)
def test_what_cannot_be_handed_over(
    shop: None, postferry: Postferry, argv: tuple[str, ...], code: int, words: str
) -> None:
    assert postferry("account", "add", "bare").code == 0

    done = postferry(*argv)

    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err


def at(**changes: Any) -> Progress:
    """A delivery that is queued, of an account that may send; but for the changes."""
    usual: dict[str, Any] = {
        "recipient": "r@example.com",
        "state": "queued",
        "attempts": 0,
        "reply": "",
        "code": None,
        "enhanced": "",
        "text": "",
        "stage": "",
        "category": "",
        "due_in": -1.0,
        "account_state": "active",
        "reason": "",
        "resting": 0.0,
    }
    return Progress(**{**usual, **changes})


REFUSAL = {"reply": "550 5.1.1 no such user", "code": 550, "enhanced": "5.1.1", "text": "no such user", "stage": "rcpt"}
GREYLISTED = {"reply": "451 4.7.1 Greylisted", "code": 451, "enhanced": "4.7.1", "text": "Greylisted", "stage": "rcpt"}


@pytest.mark.parametrize(
    ("one", "code", "words"),
    [
        (at(state="sent"), 0, ""),
        (at(state="failed", **REFUSAL), 69, "failed for good at rcpt: 550 5.1.1 no such user"),
        (
            at(state="failed", category="suppressed", text="suppressed since 2030"),
            69,
            "not sent to r@example.com: suppressed since 2030\n  DELETE /v1/suppressions/shop/r@example.com lifts it",
        ),
        (
            at(state="deferred", due_in=300, **GREYLISTED),
            75,
            "put off at rcpt: 451 4.7.1 Greylisted; it is tried again in 5 min",
        ),
        (at(account_state="refused", reason="535 no"), 75, "upstream refuses the login of account shop: 535 no"),
        (
            at(resting=30, reason="connection refused"),
            75,
            "in trouble: connection refused; it is tried again in 30.0 s",
        ),
        (at(state="leased"), 75, "a worker has it"),
        (at(state="cancelled"), 69, "cancelled"),
    ],
)
def test_each_end_has_its_words_and_its_code(
    one: Progress, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge([one], "shop", "0" * 32, 60) == code
    assert words in capsys.readouterr().err


def test_a_refusal_comes_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    judge([at(state="failed", **REFUSAL)], "shop", "0" * 32, 60)

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_same_reason_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    judge([at(state="failed", **REFUSAL), at(state="failed", **{**REFUSAL, "recipient": "s@x.y"})], "shop", "0", 60)

    assert capsys.readouterr().err.count("failed for good") == 1


@pytest.mark.parametrize(
    ("one", "done"),
    [
        (at(), False),
        (at(state="leased"), False),
        (at(state="deferred", due_in=0.2), False),
        (at(state="deferred", due_in=60), True),
        (at(state="sent"), True),
        (at(resting=5), True),
        (at(account_state="paused"), True),
    ],
)
def test_when_there_is_nothing_more_to_wait_for(one: Progress, done: bool) -> None:
    assert settled(one) is done


def test_every_step_is_shown(
    shop: None,
    postferry: Postferry,
    conn: Any,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The worker is played here: each look finds the delivery one step further."""
    postferry(*SEND, "--timeout", "0")
    (message,) = conn.execute("select id from messages").fetchone()
    steps = iter(
        [
            "update deliveries set state = 'leased'",
            "update deliveries set state = 'sent', attempts = 1, code = 250, enhanced = '2.0.0', reply = 'ok as 7'",
        ]
    )

    look = overview.progress

    async def play(*_: object) -> list[Progress]:
        seen = await look(*_)
        conn.execute(next(steps, "select 1"))
        return seen

    async def follow() -> None:
        async with overview.connected(database_url) as reader:
            await Watch(quiet=False).follow(reader, message, 30)

    monkeypatch.setattr(overview, "progress", play)
    asyncio.run(follow())

    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in shown] == ["leased r@example.com", "sent r@example.com: 250 2.0.0 ok as 7"]
