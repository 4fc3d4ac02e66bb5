"""Messages that still have deliveries to make: listed, cancelled, moved; each change guarded by the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from relay.core.model import EventType, State, sources
from relay.store import facts
from relay.store.db import Connection, scalar
from relay.store.queue import waiting

SHOWN = 100  # deliveries of one message that a list shows; the message on its own shows all


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient's state."""

    id: int
    message: UUID
    recipient: str
    name: str | None
    state: str
    attempts: int
    max_attempts: int
    due_at: datetime
    finished_at: datetime | None
    code: int | None
    enhanced: str | None
    reply: str | None
    category: str | None
    report: Mapping[str, str] | None  # what was reported of it last, after it was sent


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with its deliveries, and how many of them are in each state."""

    id: UUID
    account: str
    ingress: str
    message_id: str
    sender: str
    subject: str
    size: int
    priority: int
    created_at: datetime
    send_at: datetime
    states: Mapping[str, int]
    deliveries: list[Delivery] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a cancel or a move did: `changed` deliveries; the others by the state that kept them from it."""

    changed: int
    others: Mapping[str, int]


async def page(
    conn: Connection, *, account: str | None, after: UUID | None, skip: int, size: int, count: bool
) -> tuple[int, list[Entry]]:
    """How many messages wait (0 unless `count`), and one page of them, newest first, below the id `after`."""
    given = {"account": account, "after": after, "skip": skip, "size": size}
    messages = f"select distinct message_id from ({waiting(account)}) w"  # noqa: S608 - the text is ours
    total = 0
    if count:
        total = await scalar(conn, f"select count(*) from ({messages}) m", given)  # noqa: S608
    below = "where message_id < %(after)s" if after else ""
    cursor = await conn.execute(
        f"{messages} {below} order by message_id desc offset %(skip)s limit %(size)s".encode(), given
    )
    return total, await _entries(conn, [row[0] for row in await cursor.fetchall()], SHOWN)


async def get(conn: Connection, id: UUID, *, account: str | None = None) -> Entry | None:
    """A message in whatever state; `account` hides those of others."""
    entries = await _entries(conn, [id], None)
    return entries[0] if entries and account in (None, entries[0].account) else None


async def cancel(conn: Connection, id: UUID) -> Changed:
    """Stop what has not begun. A delivery that is leased meanwhile is not ours to stop any more: the guard sees it."""
    return await _change(
        conn,
        id,
        """
        update deliveries set state = 'cancelled', ready = false, finished_at = clock_timestamp()
        where message_id = %(id)s and state = any(%(sources)s::delivery_state[])
        returning id, account_id, message_id, recipient
        """,
        {"sources": list(sources(State.CANCELLED)), "event": EventType.MESSAGE_CANCELLED},
    )


async def move(conn: Connection, id: UUID, send_at: datetime, *, lifetime: float) -> Changed:
    """Make what waits due at another time; its lifetime (s) begins then. A time that has passed means now."""
    async with conn.transaction():
        changed = await _change(
            conn,
            id,
            """
            update deliveries set due_at = greatest(%(at)s, now()), ready = %(at)s <= now(),
                expires_at = greatest(%(at)s, now()) + %(lifetime)s * interval '1 second'
            where message_id = %(id)s and state = any(%(sources)s::delivery_state[])
            returning id, account_id, message_id, recipient
            """,
            {"sources": [State.QUEUED, State.DEFERRED], "at": send_at, "lifetime": lifetime, "event": None},
        )
        if changed.changed:
            await conn.execute("update messages set send_at = greatest(%s, now()) where id = %s", (send_at, id))
    return changed


async def _change(conn: Connection, id: UUID, update: str, given: Mapping[str, Any]) -> Changed:
    """Runs a guarded update with the events that tell of it; then counts what it did not touch."""
    async with conn.transaction():
        cursor = await conn.execute(
            f"""
            with changed as ({update}),
            told as (
                insert into events (account_id, type, delivery_id, message_id, data)
                select d.account_id, %(event)s, d.id, d.message_id, {facts.DELIVERY}
                from changed d join messages m on m.id = d.message_id where %(event)s::text is not null
            )
            select id from changed
            """.encode(),  # noqa: S608 - the text is ours
            {"id": id, **given},
        )
        changed = [row[0] for row in await cursor.fetchall()]
        cursor = await conn.execute(
            "select state::text, count(*) from deliveries where message_id = %s and not id = any(%s) group by state",
            (id, changed),
        )
        return Changed(len(changed), dict(await cursor.fetchall()))


async def _entries(conn: Connection, ids: Sequence[UUID], shown: int | None) -> list[Entry]:
    """The messages in the order of `ids`, each with its first `shown` deliveries (None: all)."""
    async with conn.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(
            """
            select m.id, account_id as account, ingress, message_id, sender, subject, size, priority, created_at,
                send_at, (select coalesce(jsonb_object_agg(state, n), '{}') from (
                    select state, count(*) as n from deliveries d where d.message_id = m.id group by state) s) as states
            from messages m where id = any(%s) order by array_position(%s, id)
            """,
            (list(ids), list(ids)),
        )
        entries = await cursor.fetchall()
    found = {entry.id: entry for entry in entries}
    async with conn.cursor(row_factory=class_row(Delivery)) as deliveries:
        await deliveries.execute(
            """
            select d.* from unnest(%s::uuid[]) as m(id) cross join lateral (
                select id, message_id as message, recipient, name, state::text, attempts, max_attempts,
                    case when finished_at is not null then due_at
                        else greatest(due_at, (  -- while the account rests, nothing is tried
                            select retry_at from accounts a where a.id = account_id and retry_at > now()))
                        end as due_at,
                    finished_at, code, enhanced, reply, category, report
                from deliveries where message_id = m.id order by id limit %s) d
            """,
            (list(found), shown),
        )
        async for delivery in deliveries:
            found[delivery.message].deliveries.append(delivery)
    return entries
