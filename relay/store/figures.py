"""Figures for the metrics. Each statement reads counts along an index that covers it: a million waiting deliveries cost
some 100 ms, and what is finished nothing, however much there is."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from relay.core.limits import Usage
from relay.store.db import Connection

STANDING = """case when a.id is null then 'deleted' when a.state <> 'active' then a.state::text
    when a.retry_at > now() then 'resting' else 'active' end"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """One account's unfinished deliveries."""

    account: str
    standing: str  # active, resting, paused, refused, or deleted
    due: int  # their time has come
    oldest_due: float | None  # seconds that the oldest of them has waited
    deferred: int  # tried, and due later
    scheduled: int  # never tried, and due later
    leased: int


async def backlog(conn: Connection) -> list[Backlog]:
    """Of every account that has any."""
    async with conn.cursor(row_factory=class_row(Backlog)) as cursor:
        await cursor.execute(
            f"""
            with due as (
                select account_id, count(*) as n, extract(epoch from now() - min(due_at))::float8 as oldest
                from deliveries where ready and state in ('queued', 'deferred') group by account_id
            ), later as (
                select account_id, count(*) as n, count(*) filter (where state = 'deferred') as deferred
                from deliveries where not ready and state in ('queued', 'deferred') group by account_id
            ), busy as (
                select l.account_id, count(*) as n
                from leases l join deliveries d on d.lease_id = l.id and d.state = 'leased' group by l.account_id
            )
            select account_id as account, {STANDING} as standing, coalesce(due.n, 0) as due, due.oldest as oldest_due,
                coalesce(later.deferred, 0) as deferred, coalesce(later.n - later.deferred, 0) as scheduled,
                coalesce(busy.n, 0) as leased
            from due full join later using (account_id) full join busy using (account_id)
            left join accounts a on a.id = account_id
            """.encode()  # noqa: S608 - the text is ours
        )
        return await cursor.fetchall()


async def standings(conn: Connection) -> dict[str, int]:
    """How many accounts may send, and how many may not."""
    cursor = await conn.execute(f"select {STANDING}, count(*) from accounts a group by 1".encode())  # noqa: S608
    return dict(await cursor.fetchall())


async def usages(conn: Connection, in_flight: dict[str, int]) -> list[Usage]:
    """How much of its windows each account with limits has used. Reads no more slots than the limits allow."""
    cursor = await conn.execute(
        """
        select a.id, per_minute, per_hour, per_day, minute, hour, day
        from accounts a cross join lateral (
            select coalesce(sum(n) filter (where at > now() - interval '1 minute'), 0)::int as minute,
                coalesce(sum(n) filter (where at > now() - interval '1 hour'), 0)::int as hour,
                coalesce(sum(n), 0)::int as day
            from slots where account_id = a.id and at > now() - case when per_day is not null then interval '1 day'
                when per_hour is not null then interval '1 hour' else interval '1 minute' end) used
        where coalesce(per_minute, per_hour, per_day) is not null
        """
    )
    return [
        Usage(
            account=row[0],
            connections=0,
            most=0,
            in_flight=in_flight.get(row[0], 0),
            windows=tuple(
                (seconds, limit, used)
                for seconds, limit, used in ((60, row[1], row[4]), (3600, row[2], row[5]), (86400, row[3], row[6]))
                if limit is not None
            ),
        )
        for row in await cursor.fetchall()
    ]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint that has something to be told, or fails."""

    id: int
    account: str  # "" is all accounts
    pending: int
    oldest: float | None  # seconds since the oldest of them happened
    overdue: float | None  # seconds since the first of them should have been tried; negative: until then
    failing: float | None  # seconds since the first of the tries that failed in a row


async def endpoints(conn: Connection) -> list[Endpoint]:
    """Of the active ones."""
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(
            """
            with waiting as (
                select endpoint_id, count(*) as n, min(due_at) as due, min(id) as first
                from postings where state = 'pending' group by endpoint_id
            )
            select e.id, coalesce(e.account_id, '') as account, coalesce(w.n, 0) as pending,
                extract(epoch from now() - p.created_at)::float8 as oldest,
                extract(epoch from now() - w.due)::float8 as overdue,
                extract(epoch from now() - e.failing_since)::float8 as failing
            from endpoints e left join waiting w on w.endpoint_id = e.id left join postings p on p.id = w.first
            where e.state = 'active' and (w.n is not null or e.failing_since is not null)
            """
        )
        return await cursor.fetchall()


async def endpoint_states(conn: Connection) -> dict[str, int]:
    """How many endpoints are active, failing (active, and their last try failed) or disabled."""
    cursor = await conn.execute(
        """
        select case when state = 'active' and failing_since is not null then 'failing' else state::text end, count(*)
        from endpoints group by 1
        """
    )
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Database:
    """The database itself."""

    size: int  # bytes
    most: int  # connections that the server takes
    transaction: float  # seconds since the oldest open one began
    folder: str | None  # where its files are, if it is on this host and tells


async def database(conn: Connection) -> Database:
    async with conn.cursor(row_factory=class_row(Database)) as cursor:
        await cursor.execute(
            """
            select pg_database_size(current_database()) as size, current_setting('max_connections')::int as most,
                (select coalesce(extract(epoch from max(now() - xact_start)), 0)::float8 from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
                ) as transaction,
                case when %s and pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory') end
                    as folder
            """,
            (conn.info.host.startswith("/"),),  # a Unix socket: the server is on this host
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


async def connections(conn: Connection) -> dict[str, int]:
    """Connections to this database by what they do: active, idle, idle in transaction, ..."""
    cursor = await conn.execute(
        """
        select coalesce(state, 'unknown'), count(*) from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend' group by 1
        """
    )
    return dict(await cursor.fetchall())


async def tables(conn: Connection) -> list[tuple[str, int, int]]:
    """(table, live rows, dead rows) as PostgreSQL's statistics estimate them."""
    cursor = await conn.execute("select relname, n_live_tup, n_dead_tup from pg_stat_user_tables")
    return await cursor.fetchall()
