"""Dead letters: deliveries that failed for good, and their second life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from relay.core.model import EventType, Suppressed
from relay.store import facts, rollups, suppressions
from relay.store.db import Connection, scalar

Mark = tuple[datetime, int]
"""A place in the list: the time and id of a failure."""

Place = tuple[str, datetime, int]
"""A place in a replay: account, time and id, as one index has them."""

NEWEST = "order by d.finished_at desc, d.id desc"


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
        """The condition on `deliveries d`, with the names of `given`.

        Where ids say which rows, the state is asked for by a range, so that the planner does not take the index of all
        that failed for a short one, and go through the whole of it.
        """
        conditions = {
            "d.account_id = %(account)s": self.account is not None,
            "d.id = any(%(ids)s)": self.ids is not None,
            "d.message_id = %(queue_id)s": self.queue_id is not None,
            "d.finished_at >= %(since)s": self.since is not None,
            "d.finished_at < %(until)s": self.until is not None,
            "(d.category = %(reason)s or d.enhanced = %(reason)s or d.code::text = %(reason)s"
            " or position(lower(%(reason)s) in lower(d.reply)) > 0)": bool(self.reason),
        }
        failed = "d.state between 'failed' and 'failed'" if self.few else "d.state = 'failed'"
        return " and ".join([failed, *(text for text, wanted in conditions.items() if wanted)])

    @property
    def few(self) -> bool:
        return self.ids is not None or self.queue_id is not None

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
    after: Mark | None,
    skip: int,
    size: int,
    count: bool,
) -> tuple[int, list[DeadLetter]]:
    """How many match (0 unless `count`), and one page, newest failure first, below `after`."""
    given = {**wanted.given(), "skip": skip, "size": size, "at": after and after[0], "id": after and after[1]}
    total = 0
    if count:
        total = await scalar(conn, f"select count(*) from deliveries d where {wanted.where()}", given)  # noqa: S608
    async with conn.cursor(row_factory=class_row(DeadLetter)) as cursor:
        await cursor.execute(
            f"""
            select d.id, d.account_id as account, m.id as message, m.message_id, m.sender, m.subject, d.recipient,
                d.attempts, d.finished_at as failed_at, d.code, d.enhanced, d.reply, d.category
            from ({_source(wanted, after)} {NEWEST} offset %(skip)s limit %(size)s) p
            cross join lateral (select * from deliveries where id = p.id offset 0) d
            join messages m on m.id = d.message_id {NEWEST}
            """.encode(),  # noqa: S608 - the text is ours
            given,
        )
        return total, await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a piece of a replay. `last`: the place below which the next one begins; None: that was the end."""

    revived: Sequence[tuple[int, str]]  # (id, account)
    suppressed: Sequence[tuple[int, Suppressed]]  # (id, why its recipient is written to no longer)
    last: Place | None


async def replay(
    conn: Connection, wanted: Filter, *, after: Place | None = None, lifetime: float, most: int
) -> Replayed:
    """Give the first `most` dead letters below `after` a life of `lifetime` seconds from now.

    Account by account, the newest first: what fails again meanwhile is behind, and not caught a second time. Those
    whose recipients are suppressed stay as they are. Rows are taken in one order and those of another replay are left
    to it: two of them never wait for each other.
    """
    below = "and (d.account_id, d.finished_at, d.id) < (%(whose)s, %(at)s, %(id)s)" if after else ""
    async with conn.transaction():
        cursor = await conn.execute(
            f"""
            select d.account_id, d.finished_at, d.id, d.recipient,
                coalesce((select suppresses from accounts a where a.id = d.account_id), false)
            from deliveries d where {wanted.where()} {below}
            order by d.account_id desc, d.finished_at desc, d.id desc limit %(most)s for update skip locked
            """.encode(),  # noqa: S608 - the text is ours
            {**wanted.given(), **dict(zip(("whose", "at", "id"), after or ("", None, 0), strict=True)), "most": most},
        )
        chosen = await cursor.fetchall()
        found = await suppressions.among(conn, [(account, to) for account, _, _, to, asked in chosen if asked])
        revived = [(id, account) for account, _, id, to, _ in chosen if (account, to) not in found]
        await _revive(conn, [id for id, _ in revived], lifetime)
    suppressed = [(id, found[account, to].of(to)) for account, _, id, to, _ in chosen if (account, to) in found]
    return Replayed(revived, suppressed, chosen[-1][:3] if len(chosen) == most else None)


async def _revive(conn: Connection, ids: Sequence[int], lifetime: float) -> None:
    """Rows that are locked, and dead: they have failed no more, and are told of."""
    if ids:
        await conn.execute(REVIVE, {"ids": ids, "lifetime": lifetime, "event": EventType.MESSAGE_REPLAYED})


# A range, as in `Filter.where`.
REVIVE = f"""
with changed as (
    update deliveries d set state = 'queued', ready = true, attempts = 0, due_at = now(), finished_at = null,
        expires_at = now() + %(lifetime)s * interval '1 second'
    from (select id, finished_at from deliveries where id = any(%(ids)s)) was
    where d.id = was.id and d.state between 'failed' and 'failed'
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


def _source(wanted: Filter, after: Mark | None) -> str:
    """Time and id of what is behind `after`. Of all accounts, each has its part of the index: so many of its newest."""
    below = "and (d.finished_at, d.id) < (%(at)s, %(id)s)" if after else ""
    mine = f"select d.finished_at, d.id from deliveries d where {wanted.where()} {below}"  # noqa: S608 - the text is ours
    if wanted.account is not None or wanted.few:
        return mine
    newest = f"{mine} and d.account_id = a.id {NEWEST} limit %(skip)s + %(size)s"
    return f"select d.finished_at, d.id from accounts a cross join lateral ({newest}) d"  # noqa: S608
