"""`postferry migrate` over an empty database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from relay.store import db
from tests.flow.conftest import Postferry


@pytest.fixture
def empty(servers: dict[str, str], worker: str, bare: Postferry, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"empty_{worker}"
    with psycopg.connect(servers["postgres"], autocommit=True) as conn:
        conn.execute(f"create database {name}")
        url = servers["postgres"].replace("/postgres?", f"/{name}?")
        monkeypatch.setenv("DATABASE_URL", url)
        yield url
        conn.execute(f"drop database {name} with (force)")


def test_every_migration_is_applied_once(bare: Postferry, empty: str) -> None:
    first, second = bare("migrate"), bare("migrate")

    assert first.code == second.code == 0
    assert all(name in first.out for name, _ in db.migrations())
    assert "nothing to do" in second.out


def test_another_programs_migrations_are_left_alone(process: Postferry, environ: dict[str, str], empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("create table migrations (id int, migration text, batch int)")

    for command in ("migrate", "queue", "scheduler"):
        done = process(command, **environ | {"DATABASE_URL": empty})
        assert done.code == 78
        assert "has a table `migrations` that is not Postferry's\n  give Postferry a database of its own" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["migrate", "doctor"])
def test_what_postgresql_does_not_allow_is_told(
    postferry: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", environ["DATABASE_URL"] + "&options=-crole%3Dpg_monitor")

    done = postferry(command)

    assert done.code == 77
    assert "PostgreSQL does not allow it: permission denied for" in done.err
    assert "DATABASE_URL" in done.err


def test_then_the_commands_work(bare: Postferry, empty: str) -> None:
    assert bare("queue").code == 78
    bare("migrate")

    assert bare("queue").code == 0
