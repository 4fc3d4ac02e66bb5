"""What is kept for a time of its own and then goes, batch by batch: events, who opened from where, statistics."""

from __future__ import annotations

from relay.core.model import EventType
from relay.store import rollups
from relay.store.db import Connection, scalar
from relay.store.rollups import COUNTS

# Ids follow time closely enough: the first that is young ends the batch. What is left out comes with a later round.
EVENTS = """
with old as (
    select id from (select id, at from events order by id limit %(most)s) e
    where at < now() - make_interval(days => %(days)s)
), told as (delete from postings where event_id in (select id from old) returning id
), tried as (delete from posts where posting_id in (select id from told))
delete from events where id in (select id from old)
"""

# Those that are left, older than any event: of postings that went with their endpoint, or before the try was recorded.
POSTS = """
delete from posts where id in (
    select id from (select id, at from posts order by id limit %(most)s) p
    where at < now() - make_interval(days => %(days)s))
"""

# Reports: kept as long as the events that tell of them. Then the same one read again is a new one, and finds nothing to
# change. Tokens of providers' webhooks: longer than a webhook of that age is taken. Authorisations end by themselves.
AGED = {
    "reports": "at < now() - make_interval(days => %(days)s) order by at",
    "provider_posts": "at < now() - make_interval(days => %(days)s) order by at",
    "authorisations": "expires_at < now() - make_interval(days => %(days)s) order by expires_at",
}

# `books` has how far it came; its row is locked, so that of two processes one works.
ERASE = """
with here as (
    select {place} as place from books for update skip locked
), page as (
    select id, at >= now() - make_interval(days => %(days)s) as young
    from {table} where id > (select place from here) order by id limit %(most)s
), old as (
    select id from page where id < coalesce((select min(id) from page where young), 9223372036854775807)
), erased as (
    update {table} set {erased} where id in (select id from old) and {which} returning id
), {echoes} further as (
    update books set {place} = greatest({place}, (select max(id) from old)) where exists (select from old)
)
select count(*) from old
"""
ERASED = {
    "fetches": {
        "place": "erased_fetch",
        "erased": "address = null, user_agent = ''",
        "which": "(address is not null or user_agent <> '')",
        "echoes": "",
    },
    "events": {
        "place": "erased_event",
        "erased": """data = data || '{"remoteAddress": "", "userAgent": ""}'""",
        "which": f"type in ('{EventType.TRACK_OPEN}', '{EventType.LIST_UNSUBSCRIBE}')",
        "echoes": """echoes as (  -- a receiver may repeat in its answer what it was told
            update posts set response = '' where response <> '' and posting_id in (
                select id from postings where event_id in (select id from erased))
        ),""",
    },
}

ROWLESS = """
delete from rowless_opens where ctid = any(array(
    select ctid from rowless_opens where quarter < (select purged_until from books) - interval '15 minutes'
    order by quarter limit %(most)s))
"""

# One account after the other along the index that begins with it: there is none by time alone, for every fact would
# have to write to it.
SUMS = """
with recursive every as (
    (select account_id from {table} order by account_id limit 1)
    union all
    select (select t.account_id from {table} t where t.account_id > e.account_id order by t.account_id limit 1)
    from every e where e.account_id is not null
), old as (
    select place from every cross join lateral (
        select ctid as place from {table} t where t.account_id = every.account_id
        and t.quarter < now() - make_interval(days => %(days)s) limit %(most)s) t
    where every.account_id is not null limit %(most)s
)
delete from {table} where ctid = any(array(select place from old))
"""

# Whose mail is all gone, the last of it so long ago. Whoever is written to meanwhile stays: the row is looked at anew.
RECIPIENTS = f"""
with page as (
    select account_id, address from recipients where (account_id, address) > (%(account)s, %(address)s)
    order by account_id, address limit %(most)s
), gone as (
    delete from recipients r using page p where r.account_id = p.account_id and r.address = p.address
    and (r.gone ->> 'at')::timestamptz < now() - make_interval(days => %(days)s)
    and ({", ".join(f"r.{name}" for name in COUNTS)})
        = ({", ".join(f"coalesce((r.gone ->> '{name}')::integer, 0)" for name in COUNTS)})
)
select account_id, address from page order by account_id desc, address desc limit 1
"""  # noqa: S608 - the text is ours

START = ("", "")


async def events(conn: Connection, days: int, *, most: int = 1000) -> int:
    """Drops events older than `days` with their postings and posts; tells how many."""
    return (await conn.execute(EVENTS, {"days": days, "most": most})).rowcount


async def posts(conn: Connection, days: int, *, most: int = 1000) -> int:
    """Drops tries older than `days`; tells how many."""
    return (await conn.execute(POSTS, {"days": days, "most": most})).rowcount


async def aged(conn: Connection, table: str, days: int, *, most: int = 1000) -> int:
    """Drops rows of AGED that are older than `days`, the oldest first; tells how many."""
    old = f"select ctid from {table} where {AGED[table]} limit %(most)s for update skip locked"  # noqa: S608
    query = f"delete from {table} where ctid = any(array({old}))"  # noqa: S608 - the text is ours
    return (await conn.execute(query.encode(), {"days": days, "most": most})).rowcount


async def erase(conn: Connection, table: str, days: int, *, most: int = 1000) -> int:
    """Erases addresses and user agents older than `days` in `fetches` or `events`; tells how many rows it passed."""
    query = ERASE.format(table=table, **ERASED[table])
    return int(await scalar(conn, query, {"days": days, "most": most}))


async def rowless(conn: Connection, *, most: int = 1000) -> int:
    """Drops what verifying needs no more, since mail of that time has gone."""
    return (await conn.execute(ROWLESS, {"most": most})).rowcount


async def sums(conn: Connection, table: str, days: int, *, most: int = 1000) -> int:
    """Drops sums older than `days`; tells how many. Another at the books: none."""
    async with conn.transaction():
        if not await rollups.alone(conn, wait=False):
            return 0
        cursor = await conn.execute(SUMS.format(table=table).encode(), {"days": days, "most": most})
        return cursor.rowcount


async def recipients(
    conn: Connection, days: int, after: tuple[str, str] = START, *, most: int = 1000
) -> tuple[str, str] | None:
    """Looks at the next recipients behind `after` (account, address) and drops those whose mail all went `days` ago.

    Tells where to go on, None at the end.
    """
    given = {"days": days, "most": most, "account": after[0], "address": after[1]}
    row = await (await conn.execute(RECIPIENTS.encode(), given)).fetchone()
    return (row[0], row[1]) if row else None
