"""The log of an endpoint: what was posted to it and how each try went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from relay.store.db import Connection, scalar

LOOK = 10_000  # rows that one statement looks through, however few of them match
TRIES = 100  # of one posting that are shown: the latest

LogKey = tuple[datetime, int]
"""Where a page of the log ends: a posting's time and id."""

COLUMNS = """
    p.id, p.event_id as event, e.type, p.account_id as account, p.state::text, p.attempts, p.due_at, p.created_at,
    p.finished_at, e.at as event_at, l.status, coalesce(l.error, '') as error
"""
# `+ 0`: found by its posting, never by going back through all that was posted to anybody.
LAST = (
    "left join lateral (select status, error from posts where posting_id = p.id order by id + 0 desc limit 1) l on true"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which postings of an endpoint. What is None or empty does not narrow; the end of the time is not included."""

    endpoint: int
    state: str = ""
    type: str = ""
    event: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> str:
        """The condition on `postings p`, with the names of `given`; the type is the event's and comes after."""
        conditions = {
            "p.state = %(state)s": bool(self.state),
            "p.event_id = %(event)s": self.event is not None,
            "p.created_at >= %(since)s": self.since is not None,
            "p.created_at < %(until)s": self.until is not None,
        }
        whose = "p.endpoint_id" if self.event is None else "p.endpoint_id + 0"  # found by event, as in `replays.AGAIN`
        return " and ".join([f"{whose} = %(endpoint)s", *(text for text, wanted in conditions.items() if wanted)])

    def given(self) -> dict[str, Any]:
        names = ("endpoint", "state", "type", "event", "since", "until")
        return {name: getattr(self, name) for name in names} | {"look": LOOK}


@dataclass(frozen=True, slots=True)
class Posting:
    """One event for one endpoint. `status` and `error` are those of the last try."""

    id: int
    event: int
    type: str
    account: str
    state: str  # pending, delivered or failed
    attempts: int
    due_at: datetime
    created_at: datetime
    finished_at: datetime | None
    event_at: datetime
    status: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Post:
    """One try."""

    at: datetime
    seconds: float
    url: str
    status: int | None  # null: no answer
    error: str
    response: str  # the beginning of its body


async def page(
    conn: Connection, wanted: Filter, *, after: LogKey | None, skip: int, size: int, count: bool
) -> tuple[int, list[Posting], LogKey | None]:
    """How many match (0 unless `count`), one page of them, newest first, and where it goes on.

    The work of a call is bounded: of more than 10,000 postings the rest is not counted, and where few are of the type
    that is looked for, a page ends early though there is more.
    """
    below = "and (p.created_at, p.id) < (%(at)s, %(id)s)" if after else ""
    seen = f"select * from postings p where {wanted.where()} {below} order by created_at desc, id desc limit %(look)s"  # noqa: S608
    kind = "where e.type = %(type)s" if wanted.type else ""
    given = {**wanted.given(), "skip": skip, "size": size + 1, "at": after and after[0], "id": after and after[1]}
    total = 0
    if count:
        joined = f"join events e on e.id = p.event_id {kind}" if wanted.type else ""
        total = await scalar(conn, f"select count(*) from ({seen}) p {joined}", given)  # noqa: S608
    async with conn.cursor(row_factory=class_row(Posting)) as cursor:
        await cursor.execute(
            f"select {COLUMNS} from ({seen}) p join events e on e.id = p.event_id {LAST} {kind}"  # noqa: S608
            " order by p.created_at desc, p.id desc offset %(skip)s limit %(size)s".encode(),
            given,
        )
        found = await cursor.fetchall()
    if len(found) > size:
        return total, found[:size], (found[size - 1].created_at, found[size - 1].id)
    return total, found, await _horizon(conn, seen, given)


async def _horizon(conn: Connection, seen: str, given: Mapping[str, Any]) -> LogKey | None:
    """The last posting that was looked at; None when all were."""
    cursor = await conn.execute(
        f"select created_at, id from ({seen}) p order by created_at desc, id desc offset {LOOK - 1}".encode(),  # noqa: S608
        given,
    )
    row = await cursor.fetchone()
    return (row[0], row[1]) if row else None


async def show(conn: Connection, endpoint: int, posting: int) -> tuple[Posting, Mapping[str, Any], list[Post]] | None:
    """A posting of this endpoint, its event's data, and its tries, the first one first."""
    async with conn.cursor(row_factory=class_row(Posting)) as cursor:
        await cursor.execute(
            f"select {COLUMNS} from postings p join events e on e.id = p.event_id {LAST}"  # noqa: S608
            " where p.id = %s and p.endpoint_id = %s".encode(),
            (posting, endpoint),
        )
        one = await cursor.fetchone()
    if one is None:
        return None
    row = await (await conn.execute("select data from events where id = %s", (one.event,))).fetchone()
    async with conn.cursor(row_factory=class_row(Post)) as cursor:
        await cursor.execute(
            "select at, seconds, url, status, error, response from posts where posting_id = %s"
            " order by id + 0 desc limit %s",
            (posting, TRIES),
        )
        tries = await cursor.fetchall()
    return one, row[0] if row else {}, tries[::-1]
