"""What became of mail: a record a delivery that has an outcome, who fetched its pixel, and what people noted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from relay.core.model import Opener
from relay.core.networks import Address
from relay.store import states
from relay.store.db import Connection

MOST = 200  # fetches, and attempts, that one delivery shows
WINDOW = 20_000  # fetches that one call looks through


@dataclass(frozen=True, slots=True)
class Record:
    """A delivery that has an outcome, with its opens: those that count, or with machines' where asked."""

    id: int
    message: UUID
    message_id: str
    recipient: str
    name: str | None
    subject: str
    email_type: str | None
    reference_type: str | None
    reference_id: str | None
    state: str
    finished_at: datetime
    attempts: int
    tracked: bool
    code: int | None
    enhanced: str | None
    reply: str | None
    category: str | None
    reported_at: datetime | None  # when we learnt that it bounced, or was complained about
    report: Mapping[str, str] | None  # what was reported of it last
    upstream: str | None  # host:port of the last try
    opens: int
    first_at: datetime | None
    last_at: datetime | None
    judged: Mapping[str, int]
    first_address: Address | None
    first_agent: str | None
    first_opener: str | None
    country: str | None
    city: str | None
    last_address: Address | None
    last_agent: str | None
    pinned: bool
    notes: str


# Each delivery and its last try by its own id (`offset 0`, `+ 0`), whatever the planner thinks of the account's share.
RECORDS = f"""
select d.id, d.message_id as message, m.message_id, d.recipient, d.name, m.subject, m.email_type, m.reference_type,
    m.reference_id, d.state::text, d.finished_at, d.attempts, m.splice is not null as tracked, d.code, d.enhanced,
    d.reply, d.category, d.reported_at, d.report, a.upstream, coalesce(o.{{any}}opens, 0) as opens,
    o.{{any}}first_at as first_at, o.{{any}}last_at as last_at, coalesce(o.judged, '{{{{}}}}') as judged,
    f.address as first_address, f.user_agent as first_agent, f.opener::text as first_opener, f.country, f.city,
    l.address as last_address, l.user_agent as last_agent, coalesce(n.pinned, false) as pinned,
    coalesce(n.notes, '') as notes
from unnest(%(ids)s::bigint[]) with ordinality as t(id, place)
cross join lateral (select * from deliveries x where x.id = t.id offset 0) d
join messages m on m.id = d.message_id
left join opens o on o.delivery_id = d.id
left join fetches f on f.id = o.{{any}}first_fetch left join fetches l on l.id = o.{{any}}last_fetch
left join notes n on n.delivery_id = d.id
left join lateral (select upstream from attempts x where x.delivery_id = d.id order by x.id + 0 desc limit 1) a on true
where d.account_id = %(account)s and d.state {states.DONE}
order by t.place
"""  # noqa: S608 - the text is ours


async def records(conn: Connection, account: str, ids: Sequence[int], *, machine: bool) -> list[Record]:
    """The records of these deliveries, in their order; none of what is another account's, or has no outcome."""
    async with conn.cursor(row_factory=class_row(Record)) as cursor:
        query = RECORDS.format(any="any_" if machine else "")
        await cursor.execute(query.encode(), {"account": account, "ids": list(ids)})
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try."""

    number: int
    at: datetime
    seconds: float
    outcome: str
    stage: str
    code: int | None
    enhanced: str | None
    reply: str | None
    upstream: str | None


async def attempts(conn: Connection, delivery: int) -> list[Attempt]:
    """The last of its tries, the last one first."""
    async with conn.cursor(row_factory=class_row(Attempt)) as cursor:
        await cursor.execute(
            """
            select number, at, seconds, outcome::text, stage, code, enhanced, reply, upstream
            from attempts where delivery_id = %s order by id + 0 desc limit %s
            """,
            (delivery, MOST),
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Fetch:
    """One fetch of a pixel, as it was judged."""

    id: int
    at: datetime
    method: str
    opener: str
    client: str
    reason: str
    address: Address | None
    user_agent: str
    country: str
    city: str


FETCH = "x.id, x.at, x.method, x.opener::text, x.client, x.reason, x.address, x.user_agent, x.country, x.city"


async def fetches(conn: Connection, delivery: int) -> list[Fetch]:
    """The last of the fetches that are kept, the last one first; whoever made them."""
    async with conn.cursor(row_factory=class_row(Fetch)) as cursor:
        await cursor.execute(
            f"select {FETCH} from fetches x where delivery_id = %s order by id + 0 desc limit %s".encode(),  # noqa: S608
            (delivery, MOST),
        )
        return await cursor.fetchall()


async def annotate(conn: Connection, account: str, delivery: int, *, pinned: bool | None, notes: str | None) -> bool:
    """Writes what is not None. False: there is no such record."""
    cursor = await conn.execute(
        f"""
        insert into notes as n (delivery_id, account_id, pinned, notes)
        select id, account_id, coalesce(%(pinned)s, false), coalesce(%(notes)s, '') from deliveries
        where id = %(id)s and account_id = %(account)s and state {states.DONE} for share
        on conflict (delivery_id) do update set pinned = coalesce(%(pinned)s, n.pinned),
            notes = coalesce(%(notes)s, n.notes), updated_at = now()
        """.encode(),  # noqa: S608 - the text is ours
        {"id": delivery, "account": account, "pinned": pinned, "notes": notes},
    )
    return cursor.rowcount == 1


@dataclass(frozen=True, slots=True)
class Open(Fetch):
    """A fetch with the delivery that it was of."""

    account: str
    delivery: int
    recipient: str
    name: str | None
    subject: str
    email_type: str | None
    reference_type: str | None
    reference_id: str | None


OPENS = """
select {fetch}, x.account_id as account, d.id as delivery, d.recipient, d.name, m.subject, m.email_type,
    m.reference_type, m.reference_id
from (select * {source} limit {window}) x
cross join lateral (select y.id, y.message_id, y.recipient, y.name
                    from deliveries y where y.id = x.delivery_id limit 1) d
cross join lateral (select z.subject, z.email_type, z.reference_type, z.reference_id
                    from messages z where z.id = d.message_id limit 1) m
where x.opener = any(%(openers)s::opener[]) order by x.id desc limit %(room)s
"""


async def recent(
    conn: Connection, account: str | None, openers: Sequence[Opener], *, after: int | None, size: int
) -> tuple[list[Open], int | None, datetime | None]:
    """The newest fetches by these openers, below the id `after`; the id where the next page begins, None on the last
    one; and, where the call looked no further back than that, the time of it."""
    given = {"account": account, "after": after, "openers": list(openers), "room": size + 1}
    mine = "" if account is None else "and account_id = %(account)s"
    below = "" if after is None else "and id < %(after)s"
    source = f"from fetches where true {mine} {below} order by id desc"
    async with conn.cursor(row_factory=class_row(Open)) as cursor:
        await cursor.execute(OPENS.format(fetch=FETCH, source=source, window=WINDOW).encode(), given)
        found = await cursor.fetchall()
    if len(found) > size:
        return found[:size], found[size - 1].id, None
    edge: Any = await conn.execute(f"select id, at {source} offset {WINDOW - 1} limit 1".encode(), given)
    id, at = await edge.fetchone() or (None, None)
    return found, id, at
