"""Statistics out of the sums that are kept with the facts: they cost the same however much mail there is.

Sums are kept by the quarter of an hour. Every zone on earth lies whole quarters from UTC, so hours, days and weekdays
are made of them when they are read, by the zone's own rules for summer time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from relay.core.errors import Refused
from relay.store.db import Connection

MOST = 1000  # rows that are told apart by type: a tenant may send each mail with a type of its own
EVERYBODY = ""
"""The account of the sums over all accounts."""

FULL = {"CET": "Europe/Brussels", "EET": "Europe/Athens", "MET": "Europe/Brussels", "WET": "Europe/Lisbon"}
"""Zones whose names PostgreSQL takes for abbreviations, which know no summer time; and the zones they stand for."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for. `since` None is from the beginning; `until`, where there is one, is not included.

    `email_type` None is all, "" is mail without one. `machine`: what machines fetched counts too.
    """

    account: str
    now: datetime
    since: datetime | None = None
    until: datetime | None = None
    email_type: str | None = None
    zone: str = "UTC"
    machine: bool = False

    def given(self) -> dict[str, Any]:
        return {
            "account": self.account,
            "now": self.now,
            "since": self.since or "-infinity",
            "until": self.until or "infinity",
            "email_type": self.email_type,
            "zone": FULL.get(self.zone, self.zone),
        }

    def within(self, start: str = "%(since)s::timestamptz") -> str:
        """The condition on a table of sums."""
        narrowed = " and email_type = %(email_type)s" if self.email_type is not None else ""
        return f"account_id = %(account)s and quarter >= {start} and quarter < %(until)s::timestamptz{narrowed}"

    def cohort(self, condition: str = "") -> str:
        """Columns of `tallies`, summed; opens count where their delivery was sent, so that no rate passes 100 %."""
        kind = "any_" if self.machine else ""
        columns = ("sent", "tracked", "failed", "bounced", f"{kind}opened", f"{kind}opens")
        which = f" filter (where {condition})" if condition else ""
        return ", ".join(f"coalesce(sum({name}){which}, 0)::bigint as {name.removeprefix(kind)}" for name in columns)

    @property
    def firsts(self) -> str:
        return "any_firsts" if self.machine else "firsts"

    @property
    def counted(self) -> str:
        """The condition on `open_tallies`: fetches that are opens."""
        return "opener <> 'self'" if self.machine else "opener in ('person', 'proxy')"


@dataclass(frozen=True, slots=True)
class Totals:
    """`opened` are deliveries, `opens` fetches; the last day is counted in whole quarters of an hour."""

    sent: int
    tracked: int
    failed: int
    bounced: int
    opened: int
    opens: int
    sent_lately: int
    opened_lately: int  # deliveries opened for the first time


@dataclass(frozen=True, slots=True)
class Sums:
    """Of what was sent then: `sent` to `opened`. `opens` are those that came then, whenever their mail was sent."""

    sent: int = 0
    tracked: int = 0
    failed: int = 0
    bounced: int = 0
    opened: int = 0
    opens: int = 0


@dataclass(frozen=True, slots=True)
class Came:
    """Opens that came, and how many of them were the first of their delivery."""

    opens: int
    firsts: int


# Where summer time ends at midnight, that midnight comes twice: the day begins with the first.
BEGUN = """
select case when ((begun - interval '1 hour') at time zone %(zone)s)::date = day then begun - interval '1 hour'
    else begun end, day, today
from (
    select day, today, day::timestamp at time zone %(zone)s as begun
    from (select today, today - (%(days)s - 1) as day
          from (select (%(now)s at time zone %(zone)s)::date as today) t) d) b
"""


async def begun(conn: Connection, now: datetime, days: int, zone: str) -> tuple[datetime, date, date]:
    """When the first of so many days began, the last of which is today, in a zone; and the dates of both.

    Raises Refused for a zone that PostgreSQL does not know. It is asked, and not Python: their tables of zones differ.
    """
    try:
        cursor = await conn.execute(BEGUN, {"now": now, "days": days, "zone": FULL.get(zone, zone)})
    except psycopg.errors.InvalidParameterValue:
        raise Refused(f"{zone} is no time zone that the database knows", key="tz", code="InvalidFields") from None
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], row[2]


LATELY = "date_bin('15 minutes', %(now)s::timestamptz - interval '1 day', 'epoch')"


async def totals(conn: Connection, span: Span) -> Totals:
    """The figures of the span, and those of the last 24 hours."""
    async with conn.cursor(row_factory=class_row(Totals)) as cursor:
        await cursor.execute(
            f"""
            select {span.cohort("quarter >= %(since)s::timestamptz")},
                coalesce(sum(sent) filter (where quarter >= {LATELY}), 0)::bigint as sent_lately,
                (select coalesce(sum({span.firsts}), 0)::bigint from open_tallies where {span.within(LATELY)})
                    as opened_lately
            from tallies where {span.within(f"least(%(since)s::timestamptz, {LATELY})")}
            """.encode(),  # noqa: S608 - the text is ours
            span.given(),
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


KEYS: Mapping[str, str] = {
    "hour": "extract(hour from quarter at time zone %(zone)s)::integer",
    "weekday": "extract(isodow from quarter at time zone %(zone)s)::integer",
    "day": "(quarter at time zone %(zone)s)::date",
    "email_type": "email_type",
}
"""What rows are told apart by, in the span's zone. Weekdays are 1 to 7 from Monday."""


async def rows(conn: Connection, span: Span, by: str) -> dict[Any, Sums]:
    """Sums by one of KEYS; what has none is not there. Quarters are added up before their zone is looked at.

    Of types those with the most mail, and no more than MOST.
    """
    part = by if by == "email_type" else "quarter"
    most = f"order by 2 desc, 7 desc, 1 limit {MOST}" if by == "email_type" else ""
    cursor = await conn.execute(
        f"""
        with cohort as (
            select {part}, {span.cohort()} from tallies where {span.within()} group by {part}
        ), came as (
            select {part}, sum(opens) as opens from open_tallies
            where {span.within()} and {span.counted} group by {part}
        )
        select key, sum(sent)::bigint, sum(tracked)::bigint, sum(failed)::bigint, sum(bounced)::bigint,
            sum(opened)::bigint, sum(opens)::bigint
        from (
            select {KEYS[by]} as key, sent, tracked, failed, bounced, opened, 0 as opens from cohort
            union all
            select {KEYS[by]}, 0, 0, 0, 0, 0, opens from came
        ) found group by key {most}
        """.encode(),  # noqa: S608 - the text is ours
        span.given(),
    )
    return {key: Sums(*sums) for key, *sums in await cursor.fetchall()}


async def openers(conn: Connection, span: Span, by: str) -> dict[str, Came]:
    """Opens that came, by `country` ("" is unknown) or `opener`, the most first."""
    cursor = await conn.execute(
        f"""
        select {by}::text, sum(opens)::bigint, sum({span.firsts})::bigint
        from open_tallies where {span.within()} and {span.counted}
        group by 1 order by 2 desc, 1
        """.encode(),  # noqa: S608 - the text is ours
        span.given(),
    )
    return {key: Came(*sums) for key, *sums in await cursor.fetchall()}
