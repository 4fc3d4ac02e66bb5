"""Leases: fenced, expiring claims on one account's due deliveries. Begun once, renewed, given back, recovered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core import splice
from relay.core.model import Leased, Priority
from relay.store import facts, rollups
from relay.store.db import Connection


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


async def count(conn: Connection) -> tuple[int, int]:
    """Leases in all, and those of them that no worker has started."""
    cursor = await conn.execute("select count(*), count(*) filter (where started_at is null) from leases")
    held, waiting = await cursor.fetchone() or (0, 0)
    return int(held), int(waiting)


async def forgotten(conn: Connection, *, seconds: float) -> list[Lease]:
    """Leases that were enqueued and not started within `seconds`, doubled each time up to a minute.

    The broker may have lost them; where workers are behind, they are there twice, and begun once.
    """
    cursor = await conn.execute(
        """
        update leases set enqueued_at = now() where id = any(array(
            select id from leases where started_at is null
            and enqueued_at < now() - least(greatest(%s * interval '1 second', enqueued_at - created_at), '1 minute')
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
        where lease_id = any(array(select id from gone)) and state = 'leased'
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
# copies are identical, since those share a transaction (but for Mailgun's, where nobody does). That is an attempt with
# an unknown outcome; when it was the last one, the delivery is a dead letter, and from the second on it waits: what
# kills its worker must neither come back for ever nor at once. What is left of the lease is locked before it is looked
# at: an outcome that is being committed stands.
RECOVER = f"""
with dead as (
    delete from leases where id = any(array(
        select id from leases where expires_at < now() and started_at is not null
        order by id limit 100 for update skip locked))
    returning id, account_id
), mine as materialized (
    select d.id, d.account_id, d.message_id, d.lease_id, d.priority, d.due_at, d.attempts, d.max_attempts
    from dead join deliveries d on d.lease_id = dead.id and d.state = 'leased' order by d.id for update of d
), first as (
    select distinct on (d.lease_id) d.lease_id, d.id, d.message_id,
        m.splice is null and a.config #> '{{mailgun,domain}}' is null as shared
    from mine d join messages m on m.id = d.message_id join accounts a on a.id = d.account_id
    order by d.lease_id, d.priority, d.due_at, d.id
), doubtful as (
    select d.id, d.account_id, d.attempts, d.max_attempts, d.lease_id
    from first join mine d on d.lease_id = first.lease_id
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
    select d.account_id, 'messageFailed', d.id, d.message_id, {facts.DELIVERY} || jsonb_build_object(
        'error', 'The worker was lost at every attempt: this may have been sent', 'errorCode', 'unknown',
        'smtpResponse', null, 'smtpResponseCode', null, 'job', jsonb_build_object(
            'id', d.id::text, 'attemptsMade', t.attempts + 1, 'attempts', t.max_attempts, 'nextAttempt', null))
    from doubtful t join deliveries d on d.id = t.id join messages m on m.id = d.message_id
    where t.attempts + 1 >= t.max_attempts
), applied as (
    update deliveries d set lease_id = null,
        state = (case when t.attempts + 1 >= t.max_attempts then 'failed' else 'queued' end)::delivery_state,
        ready = coalesce(t.attempts = 0, true),
        due_at = case when t.attempts > 0 then now() + least(3600, 30 * 2 ^ least(t.attempts, 10)) * interval '1 second'
            else d.due_at end,
        finished_at = case when t.attempts + 1 >= t.max_attempts then now() end,
        attempts = d.attempts + (t.id is not null)::int,
        category = case when t.id is not null then 'unknown' else d.category end,
        reply = case when t.id is not null then 'The worker was lost: this may have been sent' else d.reply end
    from mine left join doubtful t on t.id = mine.id
    where d.id = mine.id
    returning d.id, d.account_id, d.message_id, d.recipient, d.name, d.state, d.finished_at
), {rollups.FINISHED}
select dead.id, dead.account_id, (select count(*) from doubtful where lease_id = dead.id) from dead
"""  # noqa: S608 - the text is ours


async def recover(conn: Connection) -> list[Recovered]:
    """Takes back leases whose worker is not heard of any more. Those that none has begun wait for one: `forgotten`."""
    cursor = await conn.execute(RECOVER)
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
        cross join lateral (select * from deliveries where lease_id = fence.id and state = 'leased' offset 0) d
        join messages m on m.id = d.message_id
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
