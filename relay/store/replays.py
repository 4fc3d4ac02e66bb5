"""What is posted to an endpoint beside the news: events again, events it never had, and a test.

Whoever calls holds the endpoint's row locked, so that two replays at once make no posting twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from relay.core.model import EventType
from relay.store.db import Connection, scalar
from relay.store.endpoints import Endpoint
from relay.store.postings import WAITS
from relay.store.postlog import LOOK, TRIES, Filter, LogKey

EventKey = tuple[str, datetime, int]
"""Where a replay of a time range ends: an event's account, time and id."""


async def test(conn: Connection, endpoint: Endpoint) -> tuple[int, int]:
    """Write a test event, to be posted to this endpoint alone: ids of event and posting."""
    cursor = await conn.execute(
        "with told as (insert into events (account_id, type, data) values (%s, %s, %s) returning id, account_id)"
        " insert into postings (endpoint_id, event_id, account_id) select %s, id, account_id from told"
        " returning event_id, id",
        (
            *(endpoint.account or "", EventType.WEBHOOK_TEST),
            Jsonb({"endpoint": endpoint.id, "message": "A test, asked for by hand; nothing happened to any mail"}),
            endpoint.id,
        ),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


# Whoever replays for ever leaves no log without an end.
TRIMMED = f"""trimmed as (
        delete from posts where id in (
            select l.id from revived cross join lateral (
                select id from posts where posting_id = revived.id order by id desc offset {TRIES}) l)
    )"""  # noqa: S608 - the text is ours

# What was posted before begins anew where it stands in the log; what was not is posted now. What is due, or in flight,
# is left alone, and counts as nothing. `+ 0`: found by event, never among all that the endpoint ever had.
AGAIN = f"""
    had as materialized (
        select p.id, p.event_id from postings p
        where p.event_id = any(array(select id from chosen)) and p.endpoint_id + 0 = %(endpoint)s
    ), revived as (
        update postings p set state = 'pending', attempts = 0, due_at = now(), finished_at = null
        where p.id = any(array(select id from had)) and (p.state <> 'pending' or {WAITS}) returning p.id
    ), {TRIMMED}, made as (
        insert into postings (endpoint_id, event_id, account_id)
        select %(endpoint)s, c.id, c.account_id from chosen c where c.id not in (select event_id from had)
        returning id
    )
    select (select count(*) from revived) + (select count(*) from made) as replayed
"""  # noqa: S608 - the text is ours

# The events of these ids that the endpoint may have.
NAMED = """
    chosen as (
        select e.id, e.account_id from events e
        where e.id = any(%(events)b) and (%(account)s::text is null or e.account_id = %(account)s)
            and ((%(types)s::text[] = '{}' or e.type = any(%(types)s)) and e.type <> %(test)s
                or exists (select from postings p where p.endpoint_id = %(endpoint)s and p.event_id = e.id))
    )
"""


async def named(conn: Connection, endpoint: Endpoint, events: Sequence[int]) -> int:
    """Post these events again, or for the first time; tells how many.

    Left out: what is not there or another account's, what the endpoint is not subscribed to and was never posted.
    """
    given = _whose(endpoint, endpoint.events) | {"events": list(events)}
    return int(await scalar(conn, f"with {NAMED}, {AGAIN}", given))


async def absent(conn: Connection, endpoint: Endpoint, events: Sequence[int]) -> list[int]:
    """Those of these events that `named` leaves out, but for what is about to be posted anyway."""
    cursor = await conn.execute(
        f"with {NAMED} select id from unnest(%(events)b::bigint[]) id where id not in (select id from chosen)".encode(),  # noqa: S608 - the text is ours
        _whose(endpoint, endpoint.events) | {"events": list(events)},
    )
    return [row[0] for row in await cursor.fetchall()]


async def between(
    conn: Connection, endpoint: Endpoint, types: Sequence[str], since: datetime, until: datetime, after: EventKey | None
) -> tuple[int, EventKey | None]:
    """Post the events of a time again, those too that it was never posted: how many, and where to go on.

    Looks through 10,000 events, account by account, beginning above `after`. None: that was the end. Wants a database
    transaction: the planner must walk the index and stop, rather than sort all that an account has.
    """
    await conn.execute("set local enable_bitmapscan = off")
    await conn.execute("set local enable_sort = off")
    accounts = "select %(account)s" if endpoint.account else "select '' union all select id from accounts"
    cursor = await conn.execute(
        f"""
        with span as (
            select e.* from ({accounts}) a(id) cross join lateral (
                select e.id, e.account_id, e.at, e.type from events e
                where e.account_id = a.id and e.at < %(until)s
                    and e.at >= case when a.id = %(after)s then %(at)s else %(since)s end
                    and (a.id <> %(after)s or (e.at, e.id) > (%(at)s, %(id)s))
                order by e.at, e.id limit {LOOK}) e
            where a.id >= %(after)s order by a.id, e.at, e.id limit {LOOK}
        ), chosen as (
            select id, account_id from span
            where (%(types)s::text[] = '{{}}' or type = any(%(types)s)) and type <> %(test)s
        ), {AGAIN}, (select count(*) from span), last.account_id, last.at, last.id
        from (select) one left join (select * from span order by account_id desc, at desc, id desc limit 1) last on true
        """.encode(),  # noqa: S608 - the text is ours
        {
            **_whose(endpoint, types),
            **{"since": since, "until": until, "after": after[0] if after else ""},
            **{"at": after[1] if after else since, "id": after[2] if after else 0},
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[2:] if row[1] == LOOK else None


async def failed(
    conn: Connection, endpoint: Endpoint, types: Sequence[str], wanted: Filter, after: LogKey | None
) -> tuple[int, LogKey | None]:
    """Post again what of its log failed for good, within the time that `wanted` says: how many, and where to go on."""
    above = "and (p.created_at, p.id) > (%(at)s, %(id)s)" if after else ""
    cursor = await conn.execute(
        f"""
        with span as (
            select p.id, p.event_id, p.created_at from postings p where {wanted.where()} {above}
            order by p.created_at, p.id limit %(look)s for update
        ), revived as (
            update postings p set state = 'pending', attempts = 0, due_at = now(), finished_at = null
            from span s join events e on e.id = s.event_id
            where p.id = s.id and (%(types)s::text[] = '{{}}' or e.type = any(%(types)s)) returning p.id
        ), {TRIMMED}
        select (select count(*) from revived), (select count(*) from span), last.created_at, last.id
        from (select) one left join (select * from span order by created_at desc, id desc limit 1) last on true
        """.encode(),  # noqa: S608 - the text is ours
        {**wanted.given(), "types": list(types), "at": after and after[0], "id": after and after[1]},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[2:] if row[1] == LOOK else None


def _whose(endpoint: Endpoint, types: Sequence[str]) -> dict[str, Any]:
    about = {"endpoint": endpoint.id, "account": endpoint.account}
    return {**about, "types": list(types), "test": EventType.WEBHOOK_TEST}
