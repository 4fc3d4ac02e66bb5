"""Reports as they were read, and what came of each: a list, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from relay.store.db import Connection, scalar


@dataclass(frozen=True, slots=True)
class Filter:
    """Which reports of an account. What is None does not narrow."""

    account: str
    kind: str | None = None  # bounce or complaint
    matched: bool | None = None

    @property
    def where(self) -> str:
        conditions = {
            "account_id = %(account)s": True,
            "kind = %(kind)s": self.kind is not None,
            "(matched > 0) = %(matched)s": self.matched is not None,
        }
        return " and ".join(text for text, wanted in conditions.items() if wanted)

    @property
    def given(self) -> dict[str, Any]:
        return {"account": self.account, "kind": self.kind, "matched": self.matched}


@dataclass(frozen=True, slots=True)
class Report:
    """One report. `recipients` are the first of those that it names, ours before others (`bounces.record`)."""

    id: int
    kind: str
    source: str
    place: str | None
    message_id: str
    recipients: Sequence[Mapping[str, Any]]
    matched: int
    changed: int
    at: datetime


async def page(
    conn: Connection, wanted: Filter, *, after: tuple[datetime, int] | None, skip: int, size: int, count: bool
) -> tuple[int, list[Report]]:
    """How many match (0 unless `count`), and one page, newest first, below `after` (its time and id)."""
    given = {**wanted.given, "skip": skip, "size": size, "at": after and after[0], "id": after and after[1]}
    total = 0
    if count:
        total = await scalar(conn, f"select count(*) from reports where {wanted.where}", wanted.given)  # noqa: S608
    below = "and (at, id) < (%(at)s, %(id)s)" if after else ""
    async with conn.cursor(row_factory=class_row(Report)) as cursor:
        await cursor.execute(
            f"""
            select id, kind, source, place, message_id, recipients, matched, changed, at
            from reports where {wanted.where} {below} order by at desc, id desc offset %(skip)s limit %(size)s
            """.encode(),  # noqa: S608 - the text is ours
            given,
        )
        return total, await cursor.fetchall()
