"""Dead letters: deliveries that failed for good, and their second life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from relay.core.model import EventType, Suppressed
from relay.store import facts, rollups, suppressions
from relay.store.db import Connection


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failed delivery, with why."""

    id: int
    account: str
    message: UUID
    message_id: str
    sender: str
    subject: str
    recipient: str
    attempts: int
    failed_at: datetime
    code: int | None
    enhanced: str | None
    reply: str | None
    category: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters. What is None or empty does not narrow; `reason` is a category, a status code, or words of the
    reply; the time range is that of the failure, its end not included."""

    account: str | None = None
    ids: Sequence[int] | None = None
    queue_id: UUID | None = None
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> str:
        """The condition on `deliveries d`, with the names of `given`."""
        conditions = {
            "d.account_id = %(account)s": self.account is not None,
            "d.id = any(%(ids)s)": self.ids is not None,
            "d.message_id = %(queue_id)s": self.queue_id is not None,
            "d.finished_at >= %(since)s": self.since is not None,
            "d.finished_at < %(until)s": self.until is not None,
            "(d.category = %(reason)s or d.enhanced = %(reason)s or d.code::text = %(reason)s"
            " or position(lower(%(reason)s) in lower(d.reply)) > 0)": bool(self.reason),
        }
        return " and ".join(["d.state = 'failed'", *(text for text, wanted in conditions.items() if wanted)])

    def given(self) -> dict[str, Any]:
        return {
            "account": self.account,
            "ids": list(self.ids or ()),
            "queue_id": self.queue_id,
            "reason": self.reason,
            "since": self.since,
            "until": self.until,
        }


async def page(
    conn: Connection,
    wanted: Filter,
    *,
    after: tuple[datetime, int] | None,
    skip: int,
    size: int,
    count: bool,
) -> tuple[int, list[DeadLetter]]:
    """How many match (0 unless `count`), and one page, newest failure first, below `after` (its time and id)."""
    given = {**wanted.given(), "skip": skip, "size": size, "at": after and after[0], "id": after and after[1]}
    total = await _count(conn, wanted.where(), given) if count else 0
    below = "and (d.finished_at, d.id) < (%(at)s, %(id)s)" if after else ""
    async with conn.cursor(row_factory=class_row(DeadLetter)) as cursor:
        await cursor.execute(
            f"""
            select d.id, d.account_id as account, m.id as message, m.message_id, m.sender, m.subject, d.recipient,
                d.attempts, d.finished_at as failed_at, d.code, d.enhanced, d.reply, d.category
            from deliveries d join messages m on m.id = d.message_id
            where {wanted.where()} {below}
            order by d.finished_at desc, d.id desc offset %(skip)s limit %(size)s
            """.encode(),  # noqa: S608 - the text is ours
            given,
        )
        return total, await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a piece of a replay. `last`: the id above which the next one begins; None: that was the end."""

    revived: Sequence[tuple[int, str]]  # (id, account)
    suppressed: Sequence[tuple[int, Suppressed]]  # (id, why its recipient is written to no longer)
    last: int | None


async def replay(conn: Connection, wanted: Filter, *, after: int = 0, lifetime: float, most: int) -> Replayed:
    """Give the first `most` dead letters above the id `after` a life of `lifetime` seconds from now.

    Those whose recipients are suppressed stay as they are. Rows are taken in one order and those of another replay are
    left to it: two of them never wait for each other.
    """
    async with conn.transaction():
        cursor = await conn.execute(
            f"""
            select d.id, d.account_id, d.recipient, coalesce(a.suppresses, false)
            from deliveries d left join accounts a on a.id = d.account_id
            where {wanted.where()} and d.id > %(after)s order by d.id limit %(most)s for update of d skip locked
            """.encode(),  # noqa: S608 - the text is ours
            {**wanted.given(), "after": after, "most": most},
        )
        chosen = await cursor.fetchall()
        found = await suppressions.among(conn, [(account, to) for _, account, to, asked in chosen if asked])
        revived = [(id, account) for id, account, to, _ in chosen if (account, to) not in found]
        await _revive(conn, [id for id, _ in revived], lifetime)
    suppressed = [(id, found[account, to].of(to)) for id, account, to, _ in chosen if (account, to) in found]
    return Replayed(revived, suppressed, chosen[-1][0] if len(chosen) == most else None)


async def _revive(conn: Connection, ids: Sequence[int], lifetime: float) -> None:
    """Rows that are locked, and dead: they have failed no more, and are told of."""
    if ids:
        await conn.execute(REVIVE, {"ids": ids, "lifetime": lifetime, "event": EventType.MESSAGE_REPLAYED})


REVIVE = f"""
with changed as (
    update deliveries d set state = 'queued', ready = true, attempts = 0, due_at = now(), finished_at = null,
        expires_at = now() + %(lifetime)s * interval '1 second'
    from (select id, finished_at from deliveries where id = any(%(ids)s)) was
    where d.id = was.id and d.state = 'failed'
    returning d.id, d.account_id, d.message_id, d.recipient, was.finished_at as failed_at
), revived as (
    select account_id, message_id, recipient, failed_at from changed
), {rollups.REVIVED}, copies as (  -- the provider may file another when it is sent after all
    update sent_copies s set state = 'owed', due_at = now(), tries = 0, looks = 0, finished_at = null
    where s.message_id in (select message_id from changed) and s.due_at is null
)
insert into events (account_id, type, delivery_id, message_id, data)
select d.account_id, %(event)s, d.id, d.message_id, {facts.DELIVERY}
from changed d join messages m on m.id = d.message_id
"""  # noqa: S608 - the text is ours


async def _count(conn: Connection, where: str, given: Mapping[str, Any]) -> int:
    cursor = await conn.execute(f"select count(*) from deliveries d where {where}".encode(), given)  # noqa: S608
    row = await cursor.fetchone()
    return row[0] if row else 0
