"""How much waits, for whom, and what keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relay.core import limits
from relay.core.model import State
from relay.store import turns
from relay.store.db import Connection

WAITING = """
    select account_id, message_id, state, ready, due_at from deliveries
    where ready and state in ('queued', 'deferred') {and_}
    union all
    select account_id, message_id, state, ready, due_at from deliveries
    where not ready and state in ('queued', 'deferred') {and_}
    union all
    select account_id, message_id, state, false, due_at from deliveries
    where state = 'leased' {and_}
"""
"""All that is not finished: one arm for each of the indexes that know it, since no single one does."""


def waiting(account: str | None) -> str:
    """WAITING as a query; for one account it takes %(account)s."""
    return WAITING.format(and_="and account_id = %(account)s" if account is not None else "")


@dataclass(frozen=True, slots=True)
class Depth:
    """Unfinished deliveries of one account in one state. `ready`: their time has come."""

    account: str
    state: State
    ready: bool
    count: int
    oldest_due: float  # seconds since the oldest became due; negative: until it does
    stopped: bool  # the account is paused, or its upstream is given a rest


@dataclass(frozen=True, slots=True)
class Status:
    """A queue at a glance. What is held is also pending or deferred: due, and kept back by a limit or a pause."""

    pending: int
    leased: int
    deferred: int
    held: int
    oldest_due_seconds: float | None
    sent_this_hour: int | None = None  # None: no window is kept for it
    max_per_hour: int | None = None
    next_slot_at: datetime | None = None


async def depths(conn: Connection, account: str | None) -> list[Depth]:
    """What is unfinished, by account and state. Costs what waits."""
    cursor = await conn.execute(
        f"""
        select w.account_id, w.state::text, w.ready, count(*), extract(epoch from now() - min(w.due_at))::float8,
            bool_or(a.id is null or a.state = 'paused' or coalesce(a.retry_at > now(), false))
        from ({waiting(account)}) w left join accounts a on a.id = w.account_id
        group by w.account_id, w.state, w.ready order by w.account_id
        """.encode(),  # noqa: S608 - the text is ours
        {"account": account},
    )
    return [Depth(row[0], State(row[1]), *row[2:]) for row in await cursor.fetchall()]


async def status(conn: Connection, account: str | None = None) -> Status:
    """The queue of one account, or of all together."""
    found = await depths(conn, account)
    full = await _full(conn, {account} if account else {depth.account for depth in found if depth.ready})
    total = {state: sum(depth.count for depth in found if depth.state is state) for state in State}
    due = [depth for depth in found if depth.ready]
    sent, most, next_slot = await _hour(conn, account, full) if account else (None, None, None)
    return Status(
        pending=total[State.QUEUED],
        leased=total[State.LEASED],
        deferred=total[State.DEFERRED],
        held=sum(depth.count for depth in due if depth.stopped or depth.account in full),
        oldest_due_seconds=max((depth.oldest_due for depth in due), default=None),
        sent_this_hour=sent,
        max_per_hour=most,
        next_slot_at=next_slot,
    )


async def _full(conn: Connection, accounts: Iterable[str]) -> set[str]:
    """Those whose windows leave no room now."""
    usages = await turns.usage(conn, sorted(accounts), size=1)
    return {usage.account for usage in usages if limits.held_by(usage)}


async def _hour(conn: Connection, account: str, full: set[str]) -> tuple[int | None, int | None, datetime | None]:
    """What was sent in the last hour, how much may be, and when the next slot frees where none is free."""
    usages = await turns.usage(conn, [account], size=1)
    hours = [(used, most) for usage in usages for seconds, most, used in usage.windows if seconds == 3600]
    sent, most = hours[0] if hours else (None, None)
    waits = [
        await turns.slot_frees(conn, account, held.seconds, held.need)
        for usage in usages
        for held in limits.held_by(usage)
    ]
    known = [wait for wait in waits if wait is not None]
    return sent, most, datetime.now(UTC) + timedelta(seconds=max(known)) if account in full and known else None
