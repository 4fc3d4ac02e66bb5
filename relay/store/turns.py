"""Whose turn it is: due work is found account by account, and leases of it are granted within the account's limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence

from relay.core.limits import Usage
from relay.core.model import Priority
from relay.store.db import Connection, scalar
from relay.store.leases import Lease

CHANNEL = "postferry_due"
MOST_PAYLOAD = 8000  # PostgreSQL takes less than that many bytes
AT_ONCE = 5000  # deliveries that are marked as ready by one statement
MOST_LEASES = 1000  # of an account, in flight: as many as connections that it may ask for


async def wake(conn: Connection, accounts: Collection[str] = ()) -> None:
    """Tells every scheduler that something may be due, and of which accounts where that is known.

    Its own statement, after the commit: NOTIFY inside commits would queue them one behind the other.
    """
    payload = "\n".join(accounts)
    await conn.execute("select pg_notify(%s, %s)", (CHANNEL, payload if len(payload.encode()) < MOST_PAYLOAD else ""))


async def listen(conn: Connection) -> AsyncGenerator[list[str], None]:
    """The accounts that each `wake` names; an empty list where it names none. Ends with the connection."""
    await conn.execute(f"listen {CHANNEL}")
    async for notice in conn.notifies():
        yield notice.payload.splitlines()


async def promote(conn: Connection) -> set[str]:
    """Marks deliveries whose time has come as ready; their accounts. Costs what becomes due, not what waits."""
    cursor = await conn.execute(
        """
        update deliveries set ready = true where id = any(array(
            select id from deliveries where not ready and state in ('queued', 'deferred') and due_at <= now()
            order by due_at limit %s for update skip locked))
        returning account_id
        """,
        (AT_ONCE,),
    )
    return {row[0] for row in await cursor.fetchall()}


async def next_due(conn: Connection) -> float | None:
    """Seconds until the earliest waiting delivery is due; None when none waits."""
    seconds: float | None = await scalar(
        conn,
        """
        select extract(epoch from due_at - now())::float8 from deliveries
        where not ready and state in ('queued', 'deferred') order by due_at limit 1
        """,
    )
    return seconds


# Accounts that have ready deliveries, in their order: one index probe each, however much they have.
WITH_WORK = """
turn as (
    (select account_id from deliveries
     where ready and state in ('queued', 'deferred') and account_id > %(after)s order by account_id limit 1)
    union all
    select (select d.account_id from deliveries d
            where ready and state in ('queued', 'deferred') and d.account_id > turn.account_id
            order by d.account_id limit 1)
    from turn where turn.account_id is not null
)
"""


async def accounts_with_work(conn: Connection, after: str, *, most: int) -> list[str]:
    """Accounts that have ready deliveries and may send, in turn from `after` on: two index probes each."""
    cursor = await conn.execute(
        f"""
        with recursive {WITH_WORK}
        select account_id from turn t where (  -- no EXISTS: as a join it would lose the order, or need all of them
            select state <> 'paused' and coalesce(retry_at <= now(), true) from accounts where id = t.account_id)
        limit %(most)s
        """.encode(),  # noqa: S608 - the text is ours
        {"after": after, "most": most},
    )
    return [row[0] for row in await cursor.fetchall()]


# Taken before the rooms are computed, so that the second statement sees what another scheduler has just committed.
# Not the strongest lock: it leaves other readers of the row alone.
TAKE_TURN = """
select id from accounts
where id = any(%s) and state <> 'paused' and coalesce(retry_at <= now(), true)
order by id for no key update skip locked
"""

# What is in flight counts against every window until its outcome is known, and its slot is stamped when the outcome
# is: whatever the upstream saw, it saw no earlier than the claim and no later than that stamp. It is counted lease by
# lease: joined, the planner might go through all that is leased, whoever's it is, for each account.
ROOMS = """
select a.id,
    least(a.connections, case when a.state = 'refused' or a.failures > 0 then 1 else %(share)s end)
        - (select count(*) from leases l where l.account_id = a.id)::int as connections,
    case when a.state = 'refused' or a.failures > 0 then 1 else %(size)s end as most,
    a.per_minute, a.per_hour, a.per_day,
    case when a.per_minute is not null or a.per_hour is not null or a.per_day is not null then
        (select coalesce(sum(n), 0)::int from leases l cross join lateral (
            select count(*) as n from deliveries where lease_id = l.id and state = 'leased') d
         where l.account_id = a.id) else 0 end as in_flight,
    case when a.per_minute is not null then
        (select coalesce(sum(n), 0) from slots s where s.account_id = a.id and s.at > now() - interval '1 minute') end,
    case when a.per_hour is not null then
        (select coalesce(sum(n), 0) from slots s where s.account_id = a.id and s.at > now() - interval '1 hour') end,
    case when a.per_day is not null then
        (select coalesce(sum(n), 0) from slots s where s.account_id = a.id and s.at > now() - interval '1 day') end
from accounts a where a.id = any(%(accounts)s)
"""

GRANT = """
with picked as materialized (
    select d.id, room.account, d.priority
    from unnest(%(accounts)s::text[], %(room)s::int[]) as room(account, n)
    cross join lateral (
        select id, priority from deliveries
        where account_id = room.account and ready and state in ('queued', 'deferred') and priority = (
            select priority from deliveries
            where account_id = room.account and ready and state in ('queued', 'deferred') order by priority limit 1)
        order by due_at, id limit room.n for update skip locked) d
), granted as (
    insert into leases (account_id, priority, size, expires_at)
    select account, min(priority), count(*), now() + %(seconds)s * interval '1 second' from picked group by account
    returning id, account_id, priority, size
), claimed as (
    update deliveries d set state = 'leased', lease_id = g.id
    from picked p join granted g on g.account_id = p.account where d.id = p.id
)
select id, account_id, priority, size from granted
"""


async def take_turn(conn: Connection, accounts: Collection[str]) -> list[str]:
    """Locks those of `accounts` that may send now, for the rest of the database transaction."""
    cursor = await conn.execute(TAKE_TURN, (list(accounts),))
    return [row[0] for row in await cursor.fetchall()]


async def usage(conn: Connection, accounts: Sequence[str], *, size: int, share: int = MOST_LEASES) -> list[Usage]:
    """How much of its connections and windows each account has used. `share`: leases that any has at most."""
    cursor = await conn.execute(ROOMS, {"accounts": list(accounts), "size": size, "share": share})
    return [
        Usage(
            account=row[0],
            connections=row[1],
            most=row[2],
            in_flight=row[6],
            windows=tuple(
                (seconds, limit, int(used))
                for seconds, limit, used in ((60, row[3], row[7]), (3600, row[4], row[8]), (86400, row[5], row[9]))
                if limit is not None
            ),
        )
        for row in await cursor.fetchall()
    ]


async def grant(conn: Connection, rooms: dict[str, int], *, seconds: float) -> list[Lease]:
    """Claims up to so many deliveries of each account, and returns the leases. The accounts must be locked."""
    cursor = await conn.execute(GRANT, {"accounts": list(rooms), "room": list(rooms.values()), "seconds": seconds})
    return [Lease(row[0], row[1], Priority(row[2]), row[3]) for row in await cursor.fetchall()]


async def slot_frees(conn: Connection, account: str, window: int, need: int) -> float | None:
    """Seconds until `need` slots of this window (s) have left it; None when what is in flight decides that."""
    cursor = await conn.execute(
        """
        select extract(epoch from at + %(window)s * interval '1 second' - clock_timestamp())::float8 from (
            select at, sum(n) over (order by at) as freed from slots
            where account_id = %(account)s and at > now() - %(window)s * interval '1 second') s
        where freed >= %(need)s order by at limit 1
        """,
        {"account": account, "window": window, "need": need},
    )
    row = await cursor.fetchone()
    return max(0.0, row[0]) if row else None
