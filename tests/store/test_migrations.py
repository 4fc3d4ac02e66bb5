"""Migrations beside what goes on meanwhile."""

from __future__ import annotations

import time

import psycopg
import pytest

from relay.store import db


def test_a_migration_that_waits_for_a_backup_keeps_nobody_waiting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "migrations", lambda: [("9999_more", "alter table deliveries add column more integer")])
    monkeypatch.setattr(db, "PATIENCE", "10ms")
    pauses: list[float] = []
    with psycopg.connect(database_url) as backup, psycopg.connect(database_url) as mail:
        backup.execute("lock table deliveries in access share mode")

        def pause(seconds: float) -> None:
            mail.execute("lock table deliveries in row exclusive mode nowait")
            mail.rollback()
            backup.rollback()
            pauses.append(seconds)

        monkeypatch.setattr(time, "sleep", pause)
        waited: list[str] = []
        assert db.migrate(database_url, waited.append) == waited == ["9999_more"]
    assert pauses == [db.AGAIN]
