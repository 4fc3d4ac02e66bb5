"""The sums that statistics are read from, kept in the database transaction of their facts.

Facts only add to `tallies` and `open_tallies`: nobody waits for a row that another commit holds; readers add up.
Whoever takes rows away (the folding here, a rebuild, an account's end) holds the books' lock first, so that one works
on them at a time; facts take no lock at all. Recipients are one row each, met in one order (account, address) by all.
"""

from __future__ import annotations

from relay.store import states
from relay.store.db import Connection, scalar

COUNTS = ("sent", "tracked", "failed", "bounced", "opened", "any_opened", "opens", "any_opens")
"""What a recipient's row counts, and retention remembers in its `gone`."""

BOOKS = 0x626F6F6B  # "book"; the advisory lock of whoever takes rows from the sums

# Further parts of a statement whose `applied` holds deliveries that have an outcome now (id, account_id, message_id,
# recipient, name, state, finished_at). Recipients are met in one order, so that no two commits wait for each other.
FINISHED = """
finished as (
    select a.account_id, lower(a.recipient) as address, a.name, a.finished_at, coalesce(m.email_type, '') as email_type,
        (a.state = 'sent')::int as sent, (a.state = 'sent' and m.splice is not null)::int as tracked,
        (a.state = 'failed')::int as failed, case when a.state = 'sent' then a.finished_at end as sent_at
    from applied a join messages m on m.id = a.message_id where a.state in ('sent', 'failed')
), tallied as (
    insert into tallies (account_id, quarter, email_type, sent, tracked, failed)
    select coalesce(account_id, ''), quarter, email_type, sum(sent), sum(tracked), sum(failed)
    from (select *, date_bin('15 minutes', finished_at, 'epoch') as quarter from finished) f
    group by grouping sets ((account_id, quarter, email_type), (quarter, email_type))
), met as (
    insert into recipients as r (account_id, address, name, sent, tracked, failed, first_sent_at, last_sent_at)
    select account_id, address, max(name), sum(sent), sum(tracked), sum(failed), min(sent_at), max(sent_at)
    from finished group by account_id, address order by account_id, address
    on conflict (account_id, address) do update set
        name = coalesce(excluded.name, r.name), sent = r.sent + excluded.sent, tracked = r.tracked + excluded.tracked,
        failed = r.failed + excluded.failed, first_sent_at = least(r.first_sent_at, excluded.first_sent_at),
        last_sent_at = greatest(r.last_sent_at, excluded.last_sent_at)
)
"""

# The same for deliveries that have failed no more: `revived` holds them with the time at which they had (account_id,
# message_id, recipient, failed_at).
REVIVED = """
tallied as (
    insert into tallies (account_id, quarter, email_type, failed)
    select coalesce(r.account_id, ''), quarter, email_type, -count(*)
    from (select v.account_id, date_bin('15 minutes', v.failed_at, 'epoch') as quarter,
              coalesce(m.email_type, '') as email_type
          from revived v join messages m on m.id = v.message_id) r
    group by grouping sets ((r.account_id, quarter, email_type), (quarter, email_type))
), fewer as (
    select account_id, lower(recipient) as address, count(*) as n from revived group by 1, 2
), known as (
    select r.account_id, r.address, f.n from recipients r join fewer f using (account_id, address)
    order by r.account_id, r.address for no key update of r
), met as (
    update recipients r set failed = r.failed - k.n from known k
    where r.account_id = k.account_id and r.address = k.address
)
"""

# The same for deliveries that came back: `applied` holds them with the time at which they were sent (account_id,
# message_id, recipient, state, finished_at). They bounce in the quarter of an hour in which they were sent.
BOUNCED = """
fallen as (
    select a.account_id, lower(a.recipient) as address, coalesce(m.email_type, '') as email_type,
        date_bin('15 minutes', a.finished_at, 'epoch') as quarter
    from applied a join messages m on m.id = a.message_id where a.state = 'bounced'
), tallied as (
    insert into tallies (account_id, quarter, email_type, bounced)
    select coalesce(account_id, ''), quarter, email_type, count(*) from fallen
    group by grouping sets ((account_id, quarter, email_type), (quarter, email_type))
), met as (
    insert into recipients as r (account_id, address, bounced)
    select account_id, address, count(*) from fallen group by account_id, address order by account_id, address
    on conflict (account_id, address) do update set bounced = r.bounced + excluded.bounced
)
"""

# Opens of deliveries that were not known as sent when their pixel came. Their row of `opens` is locked: fetches that
# come meanwhile wait, and then find where they count.
EARLY = f"""
with early as (
    select o.delivery_id, o.account_id, o.opens, o.any_opens, o.last_at, o.any_last_at, d.finished_at as sent_at,
        lower(d.recipient) as address, coalesce(m.email_type, '') as email_type,
        date_bin('15 minutes', d.finished_at, 'epoch') as quarter
    from opens o join deliveries d on d.id = o.delivery_id join messages m on m.id = d.message_id
    where o.sent_at is null and d.state {states.DELIVERED}
    order by o.delivery_id limit %s for update of o
), placed as (
    update opens o set sent_at = e.sent_at from early e where o.delivery_id = e.delivery_id
), tallied as (
    insert into tallies (account_id, quarter, email_type, opened, any_opened, opens, any_opens)
    select coalesce(account_id, ''), quarter, email_type, sum((opens > 0)::int), count(*), sum(opens), sum(any_opens)
    from early where any_opens > 0
    group by grouping sets ((account_id, quarter, email_type), (quarter, email_type))
), met as (
    insert into recipients as r (account_id, address, opened, any_opened, opens, any_opens, last_opened_at,
        any_last_opened_at)
    select account_id, address, sum((opens > 0)::int), count(*), sum(opens), sum(any_opens), max(last_at),
        max(any_last_at)
    from early where any_opens > 0 group by account_id, address order by account_id, address
    on conflict (account_id, address) do update set
        opened = r.opened + excluded.opened, any_opened = r.any_opened + excluded.any_opened,
        opens = r.opens + excluded.opens, any_opens = r.any_opens + excluded.any_opens,
        last_opened_at = greatest(r.last_opened_at, excluded.last_opened_at),
        any_last_opened_at = greatest(r.any_last_opened_at, excluded.any_last_opened_at)
)
select count(*) from early
"""  # noqa: S608 - the text is ours

KEYS = {
    "tallies": ("account_id", "quarter", "email_type"),
    "open_tallies": ("account_id", "quarter", "email_type", "opener", "client", "country"),
}
SUMS = {
    "tallies": ("sent", "tracked", "failed", "bounced", "opened", "any_opened", "opens", "any_opens"),
    "open_tallies": ("opens", "firsts", "any_firsts"),
    "rowless_opens": ("opens", "firsts", "any_firsts"),
}
"""The tables of sums: what tells their rows apart, and what they add up."""

FOLDED = {**KEYS, "rowless_opens": KEYS["open_tallies"]}
"""The tables that are folded. Opens without rows too: a stranger who knows one picture can fetch it all day."""


async def alone(conn: Connection, *, wait: bool = True) -> bool:
    """Takes the books' lock until the end of the database transaction. False: another has it, and we do not `wait`."""
    if wait:
        await conn.execute("select pg_advisory_xact_lock(%s)", (BOOKS,))
        return True
    return bool(await scalar(conn, "select pg_try_advisory_xact_lock(%s)", (BOOKS,)))


async def waiting(conn: Connection, *, most: int = 100_000) -> int:
    """How many rows of the sums are news that nobody has folded, counted up to `most`."""
    query = (
        "select (select count(*) from (select from tallies where not folded limit %(most)s) t)"
        " + (select count(*) from (select from open_tallies where not folded limit %(most)s) o)"
    )
    return int(await scalar(conn, query, {"most": most}))


async def fold(conn: Connection, table: str, *, most: int = 2000) -> int:
    """Adds up to `most` rows of news to the sums of their keys; tells how many there were. Another at it: none."""
    async with conn.transaction():
        if not await alone(conn, wait=False):
            return 0
        return int(await scalar(conn, _fold(table), {"most": most}))


def _fold(table: str) -> str:
    """Under the books' lock: news may be added meanwhile, but no row of `table` changes or goes but by us."""
    keys, sums = ", ".join(FOLDED[table]), ", ".join(SUMS[table])
    return f"""
        with news as materialized (
            select ctid as place from {table} where not folded order by account_id, quarter limit %(most)s
        ), taken as (
            delete from {table} using news where {table}.ctid = news.place returning {table}.*
        ), summed as (
            insert into {table} as t ({keys}, {sums}, folded)
            select {keys}, {", ".join(f"sum({name})" for name in SUMS[table])}, true from taken
            group by {keys} order by {keys}
            on conflict ({keys}) where folded
            do update set {", ".join(f"{name} = t.{name} + excluded.{name}" for name in SUMS[table])}
        )
        select count(*) from taken
    """  # noqa: S608 - the text is ours


async def count_early(conn: Connection, *, most: int = 1000) -> int:
    """Counts opens that came before their delivery was known as sent, where it is by now; tells of how many."""
    return int(await scalar(conn, EARLY, (most,)))


async def forget(conn: Connection, account: str) -> None:
    """Takes the account's figures along: out of the sums of all accounts too. In a database transaction of the caller.

    No fact of the account may come after: its mail is gone before. Where there are none, nobody is waited for.
    """
    some = " or ".join(f"exists (select from {table} where account_id = %(account)s)" for table in KEYS)
    row = await (await conn.execute(f"select {some}".encode(), {"account": account})).fetchone()
    if not (row and row[0]):
        return
    await alone(conn)
    for table, keys in KEYS.items():
        rest = ", ".join(keys[1:])
        await conn.execute(
            f"""
            with gone as (delete from {table} where account_id = %s returning *)
            insert into {table} (account_id, {rest}, {", ".join(SUMS[table])})
            select '', {rest}, {", ".join(f"-sum({name})" for name in SUMS[table])} from gone group by {rest}
            """.encode(),  # noqa: S608 - the text is ours
            (account,),
        )
