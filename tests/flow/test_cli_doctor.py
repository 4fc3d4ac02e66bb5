"""`postferry doctor`: what it finds on a good day, and on each bad one."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay import doctor, doors
from relay.core.finding import Check, Finding
from relay.settings import Settings, read, variable
from relay.store import db
from tests.core.test_certificate import pem
from tests.flow.conftest import Postferry, Result


def checks(shown: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(shown.out)["checks"]}


async def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check async for check in doctor.examine(settings)}


def test_a_good_day(postferry: Postferry) -> None:
    shown = postferry("doctor", "--json")

    assert shown.code == 0, shown.out
    well = [name for name, check in checks(shown).items() if check["finding"] == "ok"]
    assert well == ["database", "clock", "schema", "secrets", "accounts", "queue", "mailboxes", "Sent copies", "broker"]


def test_every_setting_is_listed_with_meaning_and_default(bare: Postferry) -> None:
    shown = bare("doctor", "--settings")

    assert shown.code == 0
    for option in dataclasses.fields(Settings):
        assert f"{variable(option.name)} = " in shown.out
        assert option.metadata["meaning"] in shown.out


def test_secrets_are_masked(postferry: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/x")

    shown = postferry("doctor")

    assert environ["POSTFERRY_SECRET_KEYS"] not in shown.out
    assert "hunter2" not in shown.out
    assert "me:***@127.0.0.1" in shown.out


def test_wrong_settings_are_all_told(postferry: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTFERRY_SMTP_PORT", "x")
    monkeypatch.setenv("POSTFERRY_LOG_LEVEL", "loud")

    shown = postferry("doctor")

    assert shown.code == 78
    assert "POSTFERRY_SMTP_PORT must" in shown.out


def test_the_help_tells_the_order_that_is(postferry: Postferry) -> None:
    shown, told = postferry("doctor").out, " ".join(postferry("doctor", "--help").out.split())

    assert shown.index("DATABASE_URL") < shown.index("Checks")
    assert told.index("List every setting") < told.index("check settings")


def test_a_new_key_is_a_key(bare: Postferry) -> None:
    key = bare("doctor", "--new-key").out.strip()

    assert len(base64.urlsafe_b64decode(key)) == 32


def test_nothing_set_says_where_to_start(bare: Postferry) -> None:
    shown = bare("doctor", "--json")

    assert shown.code == 69
    assert "postferry up" in checks(shown)["database"]["advice"]
    assert checks(shown)["broker"]["finding"] == "failed"


def test_servers_that_are_away(postferry: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@127.0.0.1:1/x")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")

    shown = postferry("doctor", "--json")

    assert shown.code == 69
    assert checks(shown)["database"]["finding"] == "failed"
    assert "Mail is accepted meanwhile" in checks(shown)["broker"]["advice"]


async def test_a_schema_that_lags(settings: Settings, servers: dict[str, str]) -> None:
    empty = dataclasses.replace(settings, database_url=servers["postgres"])

    check = (await found(empty))["schema"]

    assert check.finding is Finding.FAILED
    assert check.advice == "run: postferry migrate"


async def test_secrets_that_do_not_open(postferry_account: None, settings: Settings) -> None:
    other = base64.urlsafe_b64encode(os.urandom(32)).decode()

    check = (await found(dataclasses.replace(settings, secret_keys=(other,))))["secrets"]

    assert check.finding is Finding.FAILED
    assert "shop (smtp.auth.pass)" in check.detail


async def test_secrets_without_any_key(postferry_account: None, settings: Settings) -> None:
    check = (await found(dataclasses.replace(settings, secret_keys=())))["secrets"]

    assert check.finding is Finding.FAILED
    assert "doctor --new-key" in check.advice


@pytest.fixture
def postferry_account(postferry: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2")
    done = postferry("account", "add", "shop", "--smtp-host", "smtp.example.com", "--smtp-user", "shop")
    assert done.code == 0, done.err


async def test_a_refused_login_is_told(postferry_account: None, settings: Settings) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        conn.execute("update accounts set state = 'refused'")

    assert "shop" in (await found(settings))["accounts"].detail


async def test_mail_that_nobody_takes_is_told(settings: Settings, pool: db.Pool, postferry_account: None) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        conn.execute(
            "insert into deliveries (message_id, account_id, recipient, ready, priority, max_attempts, due_at,"
            " expires_at) values (gen_random_uuid(), 'shop', 'r@example.com', true, 1, 9, now() - interval '1 hour',"
            " now())"
        )

    check = (await found(settings))["queue"]

    assert check.finding is Finding.WARNING
    assert "due for 36" in check.detail


def given_a_mailbox(settings: Settings, values: str) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        conn.execute(f"insert into mailboxes (account_id, due_at, error) values ('shop', {values})".encode())


async def test_mailboxes_that_nobody_looks_at_are_told(settings: Settings, postferry_account: None) -> None:
    given_a_mailbox(settings, "now() - interval '1 hour', ''")

    check = (await found(settings))["mailboxes"]

    assert check.finding is Finding.WARNING
    assert "waited 36" in check.detail
    assert "postferry mailbox" in check.advice


async def test_mailboxes_that_are_not_to_be_touched_are_told(settings: Settings, postferry_account: None) -> None:
    given_a_mailbox(settings, "now() - interval '1 hour', ''")

    assert "is 0" in (await found(dataclasses.replace(settings, mailbox_connections=0)))["mailboxes"].advice


async def test_a_mailbox_that_lets_nobody_in_is_named(settings: Settings, postferry_account: None) -> None:
    given_a_mailbox(settings, "now() + interval '1 hour', 'no such user'")

    assert "shop" in (await found(settings))["mailboxes"].detail


async def test_copies_that_nobody_writes_are_told(settings: Settings, postferry_account: None) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        conn.execute(
            "insert into sent_copies (message_id, account_id, due_at)"
            " values (gen_random_uuid(), 'shop', now() - interval '1 hour')"
        )

    check = (await found(settings))["Sent copies"]

    assert check.finding is Finding.WARNING
    assert check.detail.startswith("1 wait, one for 36")


@pytest.mark.parametrize(
    ("ahead", "finding", "words"),
    [(0.1, "ok", "100 ms"), (-1.9, "ok", "1900 ms"), (5.0, "warning", "behind"), (-5.0, "warning", "ahead of")],
)
def test_clocks(ahead: float, finding: str, words: str) -> None:
    check = doctor.clock(ahead)

    assert check.finding == finding
    assert words in check.detail


@contextmanager
def program(says: bytes) -> Iterator[int]:
    """Another program on a port: it says something and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(20)  # a thread that waits for ever would keep the whole run

        def serve() -> None:
            line, _ = door.accept()
            with line:
                line.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        yield door.getsockname()[1]
        thread.join()


def test_a_door_that_is_ours() -> None:
    with program(b"220 relay ESMTP\r\n") as port:
        assert doors.door("smtp", "0.0.0.0", port, b"", b"220 ").finding is Finding.OK


def test_a_door_that_is_somebody_elses() -> None:
    with program(b"SSH-2.0-x\r\n") as port:
        check = doors.door("smtp", "127.0.0.1", port, b"", b"220 ")

    assert check.finding is Finding.FAILED
    assert "POSTFERRY_SMTP_PORT" in check.advice


def test_a_door_that_nobody_keeps() -> None:
    assert doors.door("api", "127.0.0.1", 1, b"", b"").finding is Finding.SKIPPED


def test_certificates(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "c.pem"
    file.write_bytes(pem("relay.test"))
    given = dataclasses.replace(settings, tls_certificate=file)
    issued = datetime(2026, 6, 1, tzinfo=UTC)

    assert [check.finding for check in doors.tls(given, issued)] == [Finding.OK]
    assert [check.finding for check in doors.tls(given, issued + timedelta(days=85))] == [Finding.WARNING]
    assert [check.finding for check in doors.tls(given, issued + timedelta(days=95))] == [Finding.FAILED]


@pytest.mark.parametrize(
    ("given", "name", "finding"),
    [
        ({"PUBLIC_URL": "https://mail.example.com"}, "public URL", "ok"),
        ({"PUBLIC_URL": "http://localhost:3000"}, "public URL", "warning"),
        ({"SMTP_HOST": "0.0.0.0", "TRUSTED_NETWORKS": "0.0.0.0/0"}, "open relay", "failed"),
    ],
)
def test_exposure(given: dict[str, str], name: str, finding: str) -> None:
    chosen = read({f"POSTFERRY_{key}": value for key, value in given.items()}, None)

    assert {check.name: check.finding for check in doors.exposure(chosen)}[name] == finding


def test_a_narrow_door_is_no_open_relay() -> None:
    chosen = read({"POSTFERRY_SMTP_HOST": "0.0.0.0", "POSTFERRY_TRUSTED_NETWORKS": "10.1.2.0/24"}, None)

    assert "open relay" not in {check.name for check in doors.exposure(chosen)}
