"""What an operator looks at: what waits and why, how one message fares, and how the database itself is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from relay.store import db
from relay.store.db import Connection


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[Connection]:
    """One connection, at once or not at all: StoreAway then has PostgreSQL's own words, which a pool would swallow.

    Raises SettingsError for an address that is none.
    """
    db.check_address(database_url)
    with db.away_is_said():
        async with await AsyncConnection.connect(database_url, autocommit=True, connect_timeout=5) as conn:
            yield conn


@dataclass(frozen=True, slots=True)
class Waiting:
    """One account's unfinished mail. Seconds are by PostgreSQL's clock."""

    account: str
    state: str
    reason: str
    ready: int  # due, and not yet leased
    leased: int
    deferred: int  # tried, and due later
    scheduled: int  # never tried, and due later
    failed: int  # dead letters of the last 24 hours
    oldest_due: float | None  # seconds that the oldest ready delivery has been due
    next_due: float | None  # seconds until the next of the later ones
    resting: float | None  # seconds until the account is tried again, when it must wait
    limits: Sequence[tuple[str, int, int]]  # (window, most, used) of each sliding limit
    last_reply: str  # upstream's words to the deferred delivery that is tried next


# Each along the partial index of its kind: what is finished costs nothing, however much there is. Each
# once, not for each account, though little waited when the planner last looked.
QUEUE = """
with due as materialized (
    select account_id, count(*) as n, extract(epoch from now() - min(due_at)) as oldest
    from deliveries where ready and state in ('queued', 'deferred') group by account_id
), later as materialized (
    select account_id, count(*) filter (where state = 'deferred') as deferred,
           count(*) filter (where state = 'queued') as scheduled, extract(epoch from min(due_at) - now()) as next,
           (array_agg(concat_ws(' ', code, enhanced, reply) order by due_at)
               filter (where state = 'deferred'))[1] as reply
    from deliveries where not ready and state in ('queued', 'deferred') group by account_id
), busy as materialized (
    select account_id, count(*) as n from deliveries where state = 'leased' group by account_id
), dead as materialized (
    select account_id, count(*) as n
    from deliveries where state = 'failed' and finished_at > now() - interval '1 day' group by account_id
), used as materialized (
    select account_id, sum(n) filter (where at > now() - interval '1 minute') as minute,
           sum(n) filter (where at > now() - interval '1 hour') as hour, sum(n) as day
    from slots where at > now() - interval '1 day' group by account_id
)
select id as account, state::text, reason, coalesce(due.n, 0) as ready, coalesce(busy.n, 0) as leased,
       coalesce(deferred, 0) as deferred, coalesce(scheduled, 0) as scheduled, coalesce(dead.n, 0) as failed,
       oldest::float8 as oldest_due, next::float8 as next_due,
       case when retry_at > now() then extract(epoch from retry_at - now())::float8 end as resting,
       coalesce((select jsonb_agg(jsonb_build_array(name, most, coalesce(spent, 0)))
                 from (values ('minute', per_minute, minute), ('hour', per_hour, hour), ('day', per_day, day))
                     as t(name, most, spent)
                 where most is not null), '[]') as limits,
       coalesce(later.reply, '') as last_reply
from accounts
left join due on due.account_id = id left join later on later.account_id = id left join busy on busy.account_id = id
left join dead on dead.account_id = id left join used on used.account_id = id
where %(account)s::text is null or id = %(account)s
order by due.oldest desc nulls last, id
"""


async def queue(conn: Connection, account: str | None = None) -> list[Waiting]:
    """Every account, the one whose mail has waited longest first."""
    async with conn.cursor(row_factory=class_row(Waiting)) as cursor:
        await cursor.execute(QUEUE, {"account": account})
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Progress:
    """One delivery, as far as it got."""

    recipient: str
    state: str
    attempts: int
    reply: str  # upstream's last words, with their code
    code: int | None
    enhanced: str
    text: str
    stage: str  # where they were said
    category: str  # what they meant
    due_in: float  # seconds; below zero: overdue
    account_state: str
    reason: str  # why the account is held
    resting: float  # seconds until the account is tried again, 0 when it may go at once


async def progress(conn: Connection, message: UUID) -> list[Progress]:
    """How each delivery of a message fares."""
    async with conn.cursor(row_factory=class_row(Progress)) as cursor:
        await cursor.execute(
            """
            select d.recipient, d.state::text, d.attempts, concat_ws(' ', d.code, d.enhanced, d.reply) as reply,
                   d.code, coalesce(d.enhanced, '') as enhanced, coalesce(d.reply, '') as text,
                   coalesce(t.stage, '') as stage, coalesce(d.category, '') as category,
                   extract(epoch from d.due_at - now())::float8 as due_in,
                   a.state::text as account_state, a.reason,
                   greatest(coalesce(extract(epoch from a.retry_at - now()), 0), 0)::float8 as resting
            from deliveries d join accounts a on a.id = d.account_id
            left join lateral (
                select stage from attempts where delivery_id = d.id order by id + 0 desc limit 1) t on true
            where d.message_id = %s order by d.id
            """,
            (message,),
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Server:
    """The database server."""

    version: str  # "18.1"
    number: int  # 180001
    clock: datetime


async def server(conn: Connection) -> Server:
    async with conn.cursor(row_factory=class_row(Server)) as cursor:
        await cursor.execute(
            "select split_part(current_setting('server_version'), ' ', 1) as version, clock_timestamp() as clock,"
            " current_setting('server_version_num')::int as number"
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class Health:
    """What should not be: it is somebody's to look at."""

    accounts: int
    refused: Sequence[str]  # accounts whose login is refused
    oldest_due: float | None  # seconds, of accounts that may send
    expired_leases: int


async def health(conn: Connection) -> Health:
    async with conn.cursor(row_factory=class_row(Health)) as cursor:
        await cursor.execute(
            """
            select (select count(*) from accounts) as accounts,
                array(select id from accounts where state = 'refused' order by id) as refused,
                (select extract(epoch from now() - min(d.due_at))::float8
                 from deliveries d join accounts a on a.id = d.account_id
                 where d.ready and d.state in ('queued', 'deferred')
                     and a.state = 'active' and coalesce(a.retry_at <= now(), true)) as oldest_due,
                (select count(*) from leases where expires_at < now() - interval '10 seconds') as expired_leases
            """
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


async def sealed(conn: Connection) -> list[tuple[str, str, str]]:
    """(account, field, token) of every stored secret; an endpoint's are those of `endpoint/ID`."""
    cursor = await conn.execute(
        """
        select id, key, value from accounts, jsonb_each_text(secrets)
        union all
        select 'endpoint/' || id, key, value
        from endpoints,
            lateral (values ('headers', headers), ('oldSecret', old_secret), ('secret', secret)) as t(key, value)
        where value <> ''
        order by 1, 2
        """
    )
    rows: list[Any] = await cursor.fetchall()
    return [(row[0], row[1], row[2]) for row in rows]
