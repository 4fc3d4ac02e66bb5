"""Sent copies that are owed: claimed account by account, settled, given up. A claim ends by itself, and is fenced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from relay.core.model import EventType
from relay.store import states
from relay.store.db import Connection, scalar

NAMES = 50  # that a provider may have given one message
LOOK = 2000  # rows that are looked at for accounts whose turn it is
FREE = "s.due_at <= now() and coalesce(s.claimed_until <= now(), true)"

# The oldest first, of accounts that nobody here has in hand: so one with a long queue hides no other. One whose mailbox
# could not be used of late is not asked for: its mail waits with it (`offset 0`: looked up account by account, and
# not among all that is due).
CLAIM = f"""
with waiting as (
    select account_id, due_at from sent_copies s where {FREE} and account_id <> all(%(busy)s)
    order by due_at limit {LOOK}
), turns as (
    select t.account_id, m.copies_at, coalesce(m.copies_at > now(), false) as rests
    from (select account_id, min(due_at) as first from waiting group by 1 order by 2 limit %(accounts)s) t
    left join mailboxes m using (account_id)
), resting as (
    update sent_copies s set due_at = w.copies_at, error = %(rests)s
    from turns t cross join lateral (
        select message_id, t.copies_at from sent_copies s where s.account_id = t.account_id and {FREE} offset 0) w
    where t.rests and s.message_id = w.message_id
), picked as (
    select p.message_id from turns t cross join lateral (
        select message_id from sent_copies s where s.account_id = t.account_id and {FREE}
        order by s.due_at limit %(each)s for update skip locked) p
    where not t.rests
)
update sent_copies s set claim = s.claim + 1, claimed_until = now() + %(seconds)s * interval '1 second'
from picked p join messages m on m.id = p.message_id where s.message_id = p.message_id
returning s.message_id as message, s.account_id as account, s.claim, s.state::text as state, s.tries, s.looks, s.place,
    s.filed, s.flagged, m.message_id, coalesce(m.bcc, '{{}}') as bcc, coalesce(m.options, '{{}}') as options,
    m.splice is not null as tracked, m.size, m.created_at,
    coalesce((select true from deliveries d where d.message_id = s.message_id and d.finished_at is null limit 1), false)
        as unfinished,
    (select count(*) from deliveries d join attempts a on a.delivery_id = d.id
        where d.message_id = s.message_id and a.outcome in ('sent', 'unknown'))::integer as taken,
    array(select distinct d.reply from deliveries d
        where d.message_id = s.message_id and strpos(d.reply, '@') > 0 and d.state {states.DELIVERED}
        limit {NAMES}) as replies
"""  # noqa: S608 - the text is ours

# After a burst the planner takes what is due for a few rows, and would sort all of it.
ALONG_INDEXES = "set local enable_seqscan = off; set local enable_sort = off"

GIVEN_UP = f"""
told as (
    insert into events (account_id, type, message_id, data)
    select g.account_id, '{EventType.SENT_COPY_FAILED}', m.id, jsonb_build_object('messageId', m.message_id,
        'queueId', replace(m.id::text, '-', ''), 'error', g.error, 'attempts', g.tries)
    from gone g join messages m on m.id = g.message_id where g.tell
)
"""  # noqa: S608 - the text is ours


@dataclass(frozen=True, slots=True)
class Owed:
    """A claimed copy, and what is to be known of its message. `place` and `options` as they are stored."""

    message: UUID
    account: str
    claim: int
    state: str
    tries: int
    looks: int
    place: Mapping[str, Any] | None
    filed: bool
    flagged: bool
    message_id: str
    bcc: Sequence[str]
    options: Mapping[str, Any]
    tracked: bool
    size: int
    created_at: datetime
    unfinished: bool  # some delivery of it has no outcome yet
    taken: int  # times that upstream took it, or may have
    replies: Sequence[str]  # that upstream took it with, where they may tell what it calls the message


@dataclass(frozen=True, slots=True)
class Settled:
    """What has become of a copy. `again`: seconds until it is looked at once more; None: it is all done."""

    again: float | None = None
    looks: int = 0
    place: Mapping[str, Any] | None = None
    filed: bool = False
    flagged: bool = False
    error: str = ""
    there: bool = True  # the copy is; False: it is waited for


async def claim(conn: Connection, busy: Collection[str], *, accounts: int, each: int, seconds: float) -> list[Owed]:
    """Up to `each` due copies of up to `accounts` accounts, none of them `busy`, for so many seconds."""
    given = {"busy": list(busy), "accounts": accounts, "each": each, "seconds": seconds}
    async with conn.transaction(), conn.cursor(row_factory=class_row(Owed)) as cursor:
        await cursor.execute(ALONG_INDEXES)
        await cursor.execute(CLAIM.encode(), {**given, "rests": "waits until the mailbox is tried again"})
        return await cursor.fetchall()


async def renew(conn: Connection, held: Collection[Owed], seconds: float) -> None:
    """Keeps the claims that still stand."""
    await conn.execute(
        f"update sent_copies s set claimed_until = now() + %s * interval '1 second' {_HELD}".encode(),  # noqa: S608
        (seconds, *_keys(held)),
    )


async def release(conn: Connection, held: Collection[Owed]) -> None:
    """Gives claims back: somebody else may have these copies at once."""
    await conn.execute(f"update sent_copies s set claimed_until = null {_HELD}".encode(), _keys(held))  # noqa: S608


async def postpone(conn: Connection, held: Collection[Owed]) -> None:
    """Gives back what still has deliveries without an outcome: looked at again after a quarter of the time so far."""
    await conn.execute(
        f"""
        update sent_copies s set claimed_until = null, due_at = now() + interval '1 second'
            * least(600, greatest(2, extract(epoch from now() - s.created_at) / 4)) {_HELD}
        """.encode(),  # noqa: S608 - the text is ours
        _keys(held),
    )


async def record(conn: Connection, owed: Owed, place: Mapping[str, Any], *, filed: bool, seconds: float) -> bool:
    """Where our copy is about to be written, or was. False: the claim was lost, and nothing may be written."""
    cursor = await conn.execute(
        """
        update sent_copies set place = %s, filed = %s, claimed_until = now() + %s * interval '1 second'
        where message_id = %s and claim = %s and claimed_until is not null
        """,
        (Jsonb(place), filed, seconds, owed.message, owed.claim),
    )
    return cursor.rowcount == 1


async def settle(conn: Connection, owed: Owed, settled: Settled) -> bool:
    """False: the claim was lost."""
    cursor = await conn.execute(
        """
        update sent_copies set claimed_until = null, tries = 0, looks = %(looks)s, place = %(place)s, filed = %(filed)s,
            flagged = %(flagged)s, error = %(error)s, due_at = now() + %(again)s::float8 * interval '1 second',
            state = case when %(there)s then 'done' else 'owed' end::copy_state,
            finished_at = case when %(again)s::float8 is null then now() end
        where message_id = %(message)s and claim = %(claim)s and claimed_until is not null
        """,
        {
            **{"message": owed.message, "claim": owed.claim, "again": settled.again, "looks": settled.looks},
            **{"place": Jsonb(settled.place) if settled.place else None, "filed": settled.filed},
            **{"flagged": settled.flagged, "error": settled.error, "there": settled.there},
        },
    )
    return cursor.rowcount == 1


async def fail(conn: Connection, owed: Owed, error: str, wait: float | None, *, tell: bool = True) -> bool:
    """A try that failed; the next is in so many seconds, None: it is given up. With an event, but where nobody is to be
    told, for the copy is there."""
    cursor = await conn.execute(
        f"""
        with gone as (
            update sent_copies s set claimed_until = null, tries = s.tries + 1, error = %(error)s,
                due_at = now() + %(wait)s::float8 * interval '1 second',
                state = case when %(wait)s::float8 is null then %(end)s::copy_state else s.state end,
                finished_at = case when %(wait)s::float8 is null then now() end
            where s.message_id = %(message)s and s.claim = %(claim)s and s.claimed_until is not null
            returning s.message_id, s.account_id, s.error, s.tries, s.due_at is null and %(tell)s as tell
        ), {GIVEN_UP} select count(*) from gone
        """.encode(),  # noqa: S608 - the text is ours
        {
            **{"error": error, "wait": wait, "tell": tell, "end": "failed" if tell else "done"},
            **{"message": owed.message, "claim": owed.claim},
        },
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def rest(conn: Connection, account: str, error: str, wait: float) -> None:
    """The mailbox cannot be used: none of the account's copies is tried before it is itself, in so many seconds."""
    async with conn.transaction():
        await conn.execute(
            "update mailboxes set copies_at = now() + %s * interval '1 second', copy_failures = copy_failures + 1"
            " where account_id = %s",
            (wait, account),
        )
        await conn.execute(
            f"""
            update sent_copies s set due_at = now() + %s * interval '1 second', error = %s
            where s.account_id = %s and {FREE}
            """.encode(),  # noqa: S608 - the text is ours
            (wait, error, account),
        )


async def failures(conn: Connection, account: str) -> int:
    """How often in a row its mailbox could not be used."""
    return await scalar(conn, "select copy_failures from mailboxes where account_id = %s", (account,)) or 0


async def recovered(conn: Connection, account: str) -> bool:
    """Its mailbox can be used: whether it could not before. What waited for it is due."""
    async with conn.transaction():
        cursor = await conn.execute(
            "update mailboxes set copies_at = null, copy_failures = 0 where account_id = %s and copy_failures > 0",
            (account,),
        )
        if cursor.rowcount:
            await conn.execute(
                "update sent_copies set due_at = now() where account_id = %s and due_at > now() and error <> ''"
                " and tries = 0",  # what failed by itself keeps its own time
                (account,),
            )
        return cursor.rowcount > 0


async def changed(conn: Connection, account: str) -> None:
    """The account's servers were changed: who files what is sent is to be learned anew, and what failed is tried."""
    await conn.execute(
        "update mailboxes set copies_at = null, copy_failures = 0, files = null where account_id = %s", (account,)
    )
    await conn.execute(
        "update sent_copies set due_at = now() where account_id = %s and due_at > now() and error <> ''", (account,)
    )


async def abandon(conn: Connection, account: str, error: str, seconds: float, *, most: int = 500) -> int:
    """Gives up on copies that have been owed for so many seconds; tells how many. What is there is let be."""
    cursor = await conn.execute(
        f"""
        with old as (
            select message_id from sent_copies s
            where account_id = %(account)s and due_at is not null and coalesce(s.claimed_until <= now(), true)
                and created_at <= now() - %(seconds)s * interval '1 second'
            limit %(most)s for update skip locked
        ), gone as (
            update sent_copies s set claimed_until = null, due_at = null, finished_at = now(), error = %(error)s,
                state = case when s.state = 'done' then s.state else 'failed' end
            from old o where s.message_id = o.message_id
            returning s.message_id, s.account_id, s.error, s.tries, s.state = 'failed' as tell
        ), {GIVEN_UP} select count(*) from gone
        """.encode(),  # noqa: S608 - the text is ours
        {"account": account, "error": error, "seconds": seconds, "most": most},
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def waiting(conn: Connection, *, most: int = 100_000) -> tuple[int, float]:
    """How many are to be worked on, counted up to `most`; and how long the most overdue has waited, in seconds."""
    cursor = await conn.execute(
        "select (select count(*) from (select from sent_copies where due_at is not null limit %s) s), coalesce(extract("
        " epoch from now() - (select min(due_at) from sent_copies where due_at is not null)), 0)::float8",
        (most,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], max(0.0, row[1])


_HELD = """from unnest(%s::uuid[], %s::bigint[]) h (message_id, claim)
    where s.message_id = h.message_id and s.claim = h.claim and s.claimed_until is not null"""


def _keys(held: Collection[Owed]) -> tuple[list[UUID], list[int]]:
    return [owed.message for owed in held], [owed.claim for owed in held]
