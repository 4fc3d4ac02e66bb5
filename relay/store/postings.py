"""Postings: what each endpoint is still to be told. Claimed in turn, settled in groups; each claim is fenced.

A claim moves `due_at` ahead, and that very instant is its fence: a process that dies loses nothing, since its postings
become due again, and one that comes late settles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from relay.core.model import EventType
from relay.store.db import Connection

LOOK = 500  # endpoints that one claim goes through, one index probe each

# What begins anew at once has to be none of these: what is due goes anyway, and what is in flight would go twice.
WAITS = "(p.state = 'pending' and p.due_at > now() and p.due_at is distinct from p.claimed_until)"


@dataclass(frozen=True, slots=True)
class Posting:
    """One event for one endpoint, claimed until `until`."""

    id: int
    endpoint: int
    event: int
    attempts: int  # tries already made
    until: datetime
    failures: int  # of the endpoint's tries in a row
    account: str  # the event's
    type: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """What was claimed; the next claim begins after the endpoint `after`. `more`: this round is not over."""

    postings: list[Posting]
    after: int
    more: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try went. `wait`: seconds until the next; None when it failed and that was the last."""

    posting: Posting
    url: str  # "": it could not be posted at all
    seconds: float
    status: int | None
    error: str  # "": delivered
    response: str
    wait: float | None = None
    gone: bool = False  # the endpoint wants no more
    at: datetime | None = None  # the instant that its headers tell, by our clock; None: nothing was posted

    @property
    def state(self) -> str:
        if not self.error:
            return "delivered"
        return "failed" if self.wait is None else "pending"


@dataclass(frozen=True, slots=True)
class Fared:
    """An endpoint that began to fail, is well again, or was disabled."""

    endpoint: int
    account: str | None
    url: str
    disabled: bool
    failures: int  # 0: it is well again
    reason: str


# One probe an endpoint finds whose turn it is, however many postings wait; then a range scan of what it has room for.
# An endpoint that fails is told one thing at a time. Endpoints come in one order, so the round goes on after the last.
CLAIM = """
with recursive turn as (
    (select endpoint_id, due_at, 1 as n from postings where state = 'pending' and endpoint_id > %(after)s
     order by endpoint_id, due_at limit 1)
    union all
    select p.endpoint_id, p.due_at, turn.n + 1 from turn cross join lateral (
        select endpoint_id, due_at from postings where state = 'pending' and endpoint_id > turn.endpoint_id
        order by endpoint_id, due_at limit 1) p
    where turn.n < %(look)s
), rooms as materialized (
    select t.endpoint_id, e.failures,
        least(%(share)s, case when e.failures > 0 then 1 else %(each)s end) - coalesce(b.n, 0) as room
    from turn t join endpoints e on e.id = t.endpoint_id and e.state = 'active'
    left join unnest(%(busy)b::bigint[], %(in_flight)b::bigint[]) as b(endpoint, n) on b.endpoint = t.endpoint_id
    where t.due_at <= now()
    order by t.endpoint_id
), chosen as materialized (
    select p.*, rooms.failures from rooms cross join lateral (
        select id, event_id from postings
        where endpoint_id = rooms.endpoint_id and state = 'pending' and due_at <= now()
        order by due_at, id limit greatest(rooms.room, 0) for update skip locked) p
    limit %(most)s
), dropped as (
    delete from postings where id = any(array(
        select id from chosen where not exists (select from events where events.id = chosen.event_id)))
), claimed as (
    update postings p set due_at = now() + %(seconds)s * interval '1 second',
        claimed_until = now() + %(seconds)s * interval '1 second'
    from chosen c join events e on e.id = c.event_id where p.id = c.id
    returning p.id, p.endpoint_id, p.event_id, p.attempts, p.due_at, c.failures, e.account_id, e.type, e.at, e.data
)
select seen.last, seen.n, claimed.*
from (select max(endpoint_id) as last, count(*) as n from turn) seen left join claimed on true
order by claimed.endpoint_id, claimed.id
"""

# Nobody is waited for: whoever holds a posting has it begin anew, or go, and then this try settles nothing; whoever
# holds an endpoint changes it, and failures count again from the next. Else one tenant's long change of its endpoint
# would hold up what all others are told. A try says nothing of an endpoint that was led elsewhere meanwhile.
SETTLE = """
with told as (
    select * from unnest(%b::bigint[], %b::bigint[], %b::timestamptz[], %b::posting_state[], %b::float8[], %b::real[],
        %b::text[], %b::int2[], %b::text[], %b::text[], %b::timestamptz[])
      as g(posting, endpoint, until, state, wait, seconds, url, status, error, response, at)
), free as materialized (
    select g.* from told g join postings p on p.id = g.posting for update of p skip locked
), settled as (
    update postings p set state = g.state, attempts = p.attempts + 1,
        due_at = case when g.state = 'pending' then clock_timestamp() + g.wait * interval '1 second' else p.due_at end,
        finished_at = case when g.state <> 'pending' then clock_timestamp() end
    from free g where p.id = g.posting and p.state = 'pending' and p.due_at = g.until
), logged as (
    insert into posts (posting_id, endpoint_id, at, seconds, url, status, error, response)
    select posting, endpoint, coalesce(at, clock_timestamp()), seconds, url, status, error, response from told
), met as materialized (
    select e.id, e.failures as before, n.*,
        case when n.failed > 0 then coalesce(case when not n.well then e.failing_since end, now()) end as since
    from unnest(%b::bigint[], %b::text[], %b::bool[], %b::int[], %b::text[], %b::bool[])
      as n(endpoint, url, well, failed, reason, gone)
    join endpoints e on e.id = n.endpoint and n.url in (e.url, '')
    where e.state = 'active' and (n.failed > 0 or e.failures > 0)
    order by e.id for update of e skip locked
), fared as (
    update endpoints e set failures = m.failed + case when m.well then 0 else e.failures end, failing_since = m.since,
        reason = case when m.over and not m.gone then %b || m.reason else m.reason end,
        state = (case when m.over or m.gone then 'disabled' else 'active' end)::endpoint_state
    from (select *, coalesce(since <= now() - %b * interval '1 second', false) as over from met) m where e.id = m.id
    returning e.id, e.account_id, e.url, e.state, e.failures, e.reason, m.before
), facts as (
    insert into events (account_id, type, data)
    select coalesce(account_id, ''), %b, jsonb_build_object('endpoint', id, 'url', url, 'reason', reason)
    from fared where state = 'disabled'
)
select id, account_id, url, state = 'disabled', failures, reason from fared
where state = 'disabled' or (failures = 0) <> (before = 0)
"""


async def claim(
    conn: Connection, *, after: int, most: int, each: int, share: int, busy: Mapping[int, int], seconds: float
) -> Claim:
    """Claims at most `most` due postings for `seconds`, endpoint by endpoint from `after` on.

    An endpoint has at most `each` in flight, of which `busy` counts those in the caller's hands; `share` is less than
    `each` where the caller wants to spare. A posting whose event is gone is dropped.
    """
    cursor = await conn.execute(
        CLAIM,
        {
            **{"after": after, "most": most, "each": each, "share": share, "seconds": seconds, "look": LOOK},
            **{"busy": list(busy), "in_flight": list(busy.values())},
        },
    )
    rows = await cursor.fetchall()
    last, looked = rows[0][:2]
    found = [Posting(*row[2:]) for row in rows if row[2] is not None]
    if len(found) >= most:
        return Claim(found, found[-1].endpoint, True)
    return Claim(found, last, True) if looked >= LOOK else Claim(found, 0, after > 0)


async def settle(conn: Connection, batch: Sequence[Tried], *, failing: float) -> list[Fared]:
    """Records a group of tries, in the order they ended, with their log and how the endpoints fare, in one commit.

    An endpoint is disabled, with an event, when it is gone, or has done nothing but fail for `failing` seconds. Text
    that PostgreSQL cannot hold costs the log its text.
    """
    try:
        return await _settle(conn, batch, failing)
    except psycopg.DataError:
        if len(batch) == 1:
            error = "(unreadable)" if batch[0].error else ""
            return await _settle(conn, [replace(batch[0], response="", error=error)], failing)
    return [change for tried in batch for change in await settle(conn, [tried], failing=failing)]


async def _settle(conn: Connection, batch: Sequence[Tried], failing: float) -> list[Fared]:
    fares = _fares(batch)
    ordered = sorted(batch, key=lambda tried: tried.posting.id)
    cursor = await conn.execute(
        SETTLE,
        (
            [tried.posting.id for tried in ordered],
            [tried.posting.endpoint for tried in ordered],
            [tried.posting.until for tried in ordered],
            [tried.state for tried in ordered],
            [tried.wait or 0.0 for tried in ordered],
            [tried.seconds for tried in ordered],
            [tried.url for tried in ordered],
            [tried.status for tried in ordered],
            [tried.error for tried in ordered],
            [tried.response for tried in ordered],
            [tried.at for tried in ordered],
            [endpoint for endpoint, _ in fares],
            [url for _, url in fares],
            [fare.well for fare in fares.values()],
            [fare.failed for fare in fares.values()],
            [fare.reason for fare in fares.values()],
            [fare.gone for fare in fares.values()],
            f"nothing but failures for {_spelled(failing)}, the last of them: ",
            failing,
            EventType.WEBHOOK_DISABLED.value,
        ),
    )
    return [Fared(*row) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class _Fare:
    """One endpoint at one URL in one group: whether a try succeeded, and how many failed after that."""

    well: bool = False
    failed: int = 0
    reason: str = ""
    gone: bool = False


def _fares(batch: Sequence[Tried]) -> dict[tuple[int, str], _Fare]:
    fares: dict[tuple[int, str], _Fare] = {}
    for tried in batch:
        place = tried.posting.endpoint, tried.url
        fare = fares.get(place, _Fare())
        if fare.gone:
            continue
        if tried.error:
            fare = replace(fare, failed=fare.failed + 1, reason=tried.error, gone=tried.gone)
        else:
            fare = _Fare(well=True)
        fares[place] = fare
    return fares


def _spelled(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds >= 2 * 86400 else f"{seconds:g} s"


async def give_back(conn: Connection, postings: Sequence[Posting], *, seconds: float = 0.0) -> int:
    """Makes claimed postings due again in `seconds`, at no try's cost."""
    cursor = await conn.execute(
        """
        update postings p set due_at = now() + %b * interval '1 second'
        from unnest(%b::bigint[], %b::timestamptz[]) as g(id, until)
        where p.id = g.id and p.state = 'pending' and p.due_at = g.until
        """,
        (seconds, [posting.id for posting in postings], [posting.until for posting in postings]),
    )
    return cursor.rowcount


async def drop_orphans(conn: Connection, *, most: int) -> int:
    """Drops up to `most` pending postings of endpoints that are gone."""
    cursor = await conn.execute(
        """
        with recursive turn as (
            (select endpoint_id from postings where state = 'pending' order by endpoint_id limit 1)
            union all
            select (select p.endpoint_id from postings p where state = 'pending' and p.endpoint_id > turn.endpoint_id
                    order by p.endpoint_id limit 1)
            from turn where turn.endpoint_id is not null
        )
        delete from postings where id = any(array(
            select p.id from turn cross join lateral (
                select id from postings where endpoint_id = turn.endpoint_id and state = 'pending'
                limit %(most)s for update skip locked) p
            where not exists (select from endpoints where endpoints.id = turn.endpoint_id) limit %(most)s))
        """,
        {"most": most},
    )
    return cursor.rowcount
