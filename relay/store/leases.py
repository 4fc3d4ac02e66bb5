"""Leases: fenced, expiring claims on one account's due deliveries. Granted here, started once, renewed, recovered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core import splice
from relay.core.limits import Usage
from relay.core.model import Leased, Priority
from relay.store.db import Connection

CHANNEL = "postferry_due"
MOST_PAYLOAD = 8000  # PostgreSQL takes less than that many bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim as the scheduler grants it."""

    id: int
    account: str
    priority: Priority
    size: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """An expired lease. `unknown`: how many of its deliveries its worker may have sent without telling."""

    id: int
    account: str
    unknown: int


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


async def promote(conn: Connection, *, most: int = 5000) -> set[str]:
    """Marks deliveries whose time has come as ready; their accounts. Costs what becomes due, not what waits."""
    cursor = await conn.execute(
        """
        update deliveries set ready = true where id = any(array(
            select id from deliveries where not ready and state in ('queued', 'deferred') and due_at <= now()
            order by due_at limit %s for update skip locked))
        returning account_id
        """,
        (most,),
    )
    return {row[0] for row in await cursor.fetchall()}


async def next_due(conn: Connection) -> float | None:
    """Seconds until the earliest waiting delivery is due; None when none waits."""
    cursor = await conn.execute(
        """
        select extract(epoch from due_at - now())::float8 from deliveries
        where not ready and state in ('queued', 'deferred') order by due_at limit 1
        """
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def accounts_with_work(conn: Connection, after: str, *, most: int) -> list[str]:
    """Accounts that have ready deliveries, in turn from `after` on: one index probe each, however much they have."""
    cursor = await conn.execute(
        """
        with recursive turn as (
            (select account_id from deliveries
             where ready and state in ('queued', 'deferred') and account_id > %(after)s
             order by account_id limit 1)
            union all
            select (select d.account_id from deliveries d
                    where ready and state in ('queued', 'deferred') and d.account_id > turn.account_id
                    order by d.account_id limit 1)
            from turn where turn.account_id is not null
        )
        select account_id from turn where account_id is not null limit %(most)s
        """,
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
# is: whatever the upstream saw, it saw no earlier than the claim and no later than that stamp.
ROOMS = """
select a.id,
    case when a.state = 'refused' or a.failures > 0 then least(a.connections, 1) else a.connections end
        - (select count(*) from leases l where l.account_id = a.id)::int as connections,
    case when a.state = 'refused' or a.failures > 0 then 1 else %(size)s end as most,
    a.per_minute, a.per_hour, a.per_day,
    case when a.per_minute is not null or a.per_hour is not null or a.per_day is not null then
        (select count(*) from deliveries d join leases l on l.id = d.lease_id
         where l.account_id = a.id and d.state = 'leased') else 0 end as in_flight,
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
        where account_id = room.account and ready and state in ('queued', 'deferred')
        order by priority, due_at, id limit room.n for update skip locked) d
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


async def usage(conn: Connection, accounts: Sequence[str], *, size: int) -> list[Usage]:
    """How much of its connections and windows each account has used."""
    cursor = await conn.execute(ROOMS, {"accounts": list(accounts), "size": size})
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


async def waiting(conn: Connection) -> int:
    """Leases that no worker has started."""
    cursor = await conn.execute("select count(*) from leases where started_at is null")
    (count,) = await cursor.fetchone() or (0,)
    return int(count)


async def forgotten(conn: Connection, *, seconds: float) -> list[Lease]:
    """Leases that were enqueued and not started within `seconds`, doubled each time: the broker may have lost them."""
    cursor = await conn.execute(
        """
        update leases set enqueued_at = now() where id = any(array(
            select id from leases where started_at is null and expires_at > now()
            and enqueued_at < now() - greatest(%s * interval '1 second', enqueued_at - created_at)
            for update skip locked))
        returning id, account_id, priority, size
        """,
        (seconds,),
    )
    return [Lease(row[0], row[1], Priority(row[2]), row[3]) for row in await cursor.fetchall()]


async def withdraw(conn: Connection, leases: Collection[int]) -> int:
    """Ends those of these leases that no worker has begun: what is in a worker's hands would otherwise go twice."""
    cursor = await conn.execute(
        """
        with gone as (delete from leases where id = any(%s) and started_at is null returning id)
        update deliveries set state = 'queued', ready = true, lease_id = null
        where lease_id in (select id from gone) and state = 'leased'
        """,
        (list(leases),),
    )
    return cursor.rowcount


async def release(conn: Connection, leases: Collection[int]) -> int:
    """Gives back what these leases did not finish (a hold: no attempt is spent) and ends them."""
    cursor = await conn.execute(
        """
        with gone as (delete from leases where id = any(%(leases)s))
        update deliveries set state = 'queued', ready = true, lease_id = null
        where lease_id = any(%(leases)s) and state = 'leased'
        """,
        {"leases": list(leases)},
    )
    return cursor.rowcount


# Of a lease that was started, what came first may have been sent: one delivery, or all recipients of a message whose
# copies are identical, since those share a transaction. That is an attempt with an unknown outcome; when it was the
# last one, the delivery is a dead letter, and from the second on it waits: a message that kills its worker must neither
# come back for ever nor at once.
RECOVER = """
with dead as (
    delete from leases where id = any(array(
        select id from leases where expires_at < now() and (%(begun)s or started_at is null)
        order by id limit %(most)s for update skip locked))
    returning id, account_id, started_at
), first as (
    select distinct on (d.lease_id) d.lease_id, d.id, d.message_id, m.splice is null as shared
    from dead join deliveries d on d.lease_id = dead.id and d.state = 'leased' join messages m on m.id = d.message_id
    where dead.started_at is not null
    order by d.lease_id, d.priority, d.due_at, d.id
), doubtful as (
    select d.id, d.account_id, d.attempts, d.max_attempts, d.lease_id
    from first join deliveries d on d.lease_id = first.lease_id and d.state = 'leased'
        and (d.id = first.id or (first.shared and d.message_id = first.message_id))
), tried as (
    insert into attempts (delivery_id, account_id, number, seconds, outcome, stage, reply)
    select id, account_id, attempts + 1, 0, 'unknown', 'lease', 'The worker was lost: this may have been sent'
    from doubtful
), counted as (
    insert into slots (account_id, n)
    select t.account_id, count(*) from doubtful t join accounts a on a.id = t.account_id
    where coalesce(a.per_minute, a.per_hour, a.per_day) is not null group by t.account_id
), facts as (
    insert into events (account_id, type, delivery_id, message_id, data)
    select d.account_id, 'messageFailed', d.id, d.message_id, jsonb_build_object(
        'queueId', replace(d.message_id::text, '-', ''), 'recipient', d.recipient,
        'error', 'The worker was lost at every attempt', 'errorCode', 'EWORKER')
    from doubtful t join deliveries d on d.id = t.id where t.attempts + 1 >= t.max_attempts
), back as (
    update deliveries d set lease_id = null,
        state = (case when t.attempts + 1 >= t.max_attempts then 'failed' else 'queued' end)::delivery_state,
        ready = coalesce(t.attempts = 0, true),
        due_at = case when t.attempts > 0 then now() + least(3600, 30 * 2 ^ least(t.attempts, 10)) * interval '1 second'
            else d.due_at end,
        finished_at = case when t.attempts + 1 >= t.max_attempts then now() end,
        attempts = d.attempts + (t.id is not null)::int,
        category = case when t.id is not null then 'unknown' else d.category end,
        reply = case when t.id is not null then 'The worker was lost: this may have been sent' else d.reply end
    from dead join deliveries mine on mine.lease_id = dead.id and mine.state = 'leased'
    left join doubtful t on t.id = mine.id
    where d.id = mine.id
)
select dead.id, dead.account_id, (select count(*) from doubtful where lease_id = dead.id) from dead
"""


async def recover(conn: Connection, *, begun: bool = True, most: int = 100) -> list[Recovered]:
    """Takes back leases whose worker is not heard of any more; without `begun`, only those that never had one."""
    cursor = await conn.execute(RECOVER, {"begun": begun, "most": most})
    return [Recovered(*row) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Started:
    """A lease in a worker's hands. `troubled`: the account's last connection failed or was refused."""

    account: str
    troubled: bool
    deliveries: list[Leased]  # in the order to send them


async def start(conn: Connection, lease: int, *, seconds: float) -> Started | None:
    """Begins a lease, once, however often it comes. None when another worker has begun it, or it has ended."""
    cursor = await conn.execute(
        """
        with fence as (
            update leases set started_at = now(), expires_at = now() + %(seconds)s * interval '1 second'
            where id = %(lease)s and started_at is null returning id, account_id)
        select fence.account_id, a.failures > 0 or a.state = 'refused', d.id, d.message_id, d.recipient, m.sender,
            d.attempts, d.max_attempts, m.created_at, d.due_at, d.expires_at, m.size, m.splice, m.smtputf8, m.eightbit,
            m.message_id
        from fence join accounts a on a.id = fence.account_id
        join deliveries d on d.lease_id = fence.id and d.state = 'leased' join messages m on m.id = d.message_id
        order by d.priority, d.due_at, d.id
        """,
        {"lease": lease, "seconds": seconds},
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    return Started(rows[0][0], rows[0][1], [_leased(row[2:]) for row in rows])


def _leased(row: Sequence[Any]) -> Leased:
    delivery, message, recipient, sender, attempts, most, accepted, due, expires, size, where, utf8, eight, name = row
    return Leased(
        delivery=delivery,
        message=message,
        recipient=recipient,
        sender=sender,
        attempts=attempts,
        max_attempts=most,
        accepted_at=accepted,
        due_at=due,
        expires_at=expires,
        size=size,
        splice=splice.load(where) if where else None,
        smtputf8=utf8,
        eightbit=eight,
        message_id=name,
    )


async def renew(conn: Connection, leases: Collection[int], *, seconds: float) -> set[int]:
    """Extends leases in hand; those missing from the answer were recovered by others and must not be worked on."""
    cursor = await conn.execute(
        "update leases set expires_at = now() + %s * interval '1 second' where id = any(%s) returning id",
        (seconds, sorted(leases)),
    )
    return {row[0] for row in await cursor.fetchall()}
