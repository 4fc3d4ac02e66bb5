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


def test_then_the_commands_work(bare: Postferry, empty: str) -> None:
    assert bare("queue").code == 78
    bare("migrate")

    assert bare("queue").code == 0
