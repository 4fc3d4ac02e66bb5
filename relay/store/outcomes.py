"""Outcomes: what workers report, committed in groups. Each is fenced by its lease: a late report changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from relay.core.model import EventType, Outcome, State
from relay.store import rollups
from relay.store.db import Connection


@dataclass(frozen=True, slots=True)
class Report:
    """One delivery's outcome. `wait`: seconds until the next try, for DEFERRED."""

    delivery: int
    lease: int
    state: State  # SENT, DEFERRED or FAILED
    outcome: Outcome  # SENT, DEFERRED, FAILED or UNKNOWN
    stage: str
    seconds: float
    code: int | None = None
    enhanced: str = ""
    reply: str = ""
    category: str = ""
    upstream: str = ""
    wait: float = 0.0
    counts: bool = False  # upstream saw the try: it takes a slot of the account's windows, where it has some now
    tried: bool = True  # False: it failed without a try (its lifetime ended while it waited)
    event: EventType | None = None
    data: Mapping[str, Any] | None = None


# The UPDATE returns what was given beside what was applied, so that nothing is joined twice. Arrays travel in binary:
# as text, psycopg quotes each element with a regular expression. The state is asked for by a range, so that the planner
# does not take the short index of all that is leased, and go through the whole of it: ids say which rows.
COMMIT = f"""
with applied as (
    update deliveries d set state = g.state, lease_id = null, attempts = d.attempts + g.tried::int,
        ready = g.state = 'deferred' and g.wait <= 0,
        due_at = case when g.state = 'deferred' then clock_timestamp() + g.wait * interval '1 second' else d.due_at end,
        finished_at = case when g.state <> 'deferred' then clock_timestamp() end,
        code = g.code, enhanced = g.enhanced, reply = g.reply, category = g.category
    from unnest(%b::bigint[], %b::bigint[], %b::delivery_state[], %b::attempt_outcome[], %b::text[], %b::real[],
        %b::int2[], %b::text[], %b::text[], %b::text[], %b::text[], %b::float8[], %b::bool[], %b::bool[], %b::text[],
        %b::jsonb[])
      as g(delivery, lease, state, outcome, stage, seconds, code, enhanced, reply, category, upstream, wait, counts,
           tried, event, data)
    where d.id = g.delivery and d.lease_id = g.lease and d.state between 'leased' and 'leased'
    returning d.id, d.account_id, d.message_id, d.recipient, d.name, d.attempts, d.finished_at, g.*
), tried as (
    insert into attempts (delivery_id, account_id, number, seconds, outcome, stage, code, enhanced, reply, upstream)
    select id, account_id, attempts, seconds, outcome, stage, code, enhanced, reply, upstream from applied where tried
), counted as (
    insert into slots (account_id, n) select account_id, count(*) from applied
    where counts and account_id = any(array(select id from accounts where id in (select account_id from applied)
        and coalesce(per_minute, per_hour, per_day) is not null))
    group by account_id
), facts as (
    insert into events (account_id, type, delivery_id, message_id, data)
    select account_id, event, id, message_id, data from applied where event is not null
), copies as (
    insert into sent_copies (message_id, account_id)
    select distinct message_id, account_id from applied
    where state = 'sent' and account_id = any(array(select id from accounts where mailbox and id in (
        select account_id from applied)))
    order by message_id on conflict do nothing
), {rollups.FINISHED}
select id from applied
"""  # noqa: S608 - the text is ours


async def commit(conn: Connection, reports: Sequence[Report]) -> list[bool]:
    """Writes a group of outcomes, with attempts, slots and events, in one commit. False: the lease was lost before.

    What upstream said may be what PostgreSQL cannot hold; that text is then left out: an outcome must never be lost.
    """
    try:
        return await _commit(conn, reports)
    except (psycopg.DataError, UnicodeError):
        if len(reports) == 1:
            return await _commit(conn, [replace(reports[0], reply="(unreadable)", enhanced="", event=None, data=None)])
    return [(await commit(conn, [report]))[0] for report in reports]


async def _commit(conn: Connection, reports: Sequence[Report]) -> list[bool]:
    ordered = sorted(reports, key=lambda report: report.delivery)
    cursor = await conn.execute(
        COMMIT,
        (
            [report.delivery for report in ordered],
            [report.lease for report in ordered],
            [report.state.value for report in ordered],
            [report.outcome.value for report in ordered],
            [report.stage for report in ordered],
            [report.seconds for report in ordered],
            [report.code for report in ordered],
            [report.enhanced for report in ordered],
            [report.reply for report in ordered],
            [report.category for report in ordered],
            [report.upstream for report in ordered],
            [report.wait for report in ordered],
            [report.counts for report in ordered],
            [report.tried for report in ordered],
            [report.event.value if report.event else None for report in ordered],
            [json.dumps(report.data) if report.data is not None else None for report in ordered],
        ),
    )
    applied = {row[0] for row in await cursor.fetchall()}
    return [report.delivery in applied for report in reports]


# Each claim adds up whole windows. A minute counts until the last of its slots leaves: never too little. What the
# window of an hour counts is left alone, and a minute more, since a claim goes by the time at which it began.
FOLD_SLOTS = """
with crowded as (
    select account_id, date_bin('1 minute', at, 'epoch') as minute from slots
    where at < date_bin('1 minute', now() - interval '61 minutes', 'epoch') group by 1, 2 having count(*) > 1
), taken as (
    delete from slots s using crowded c
    where s.account_id = c.account_id and s.at >= c.minute and s.at < c.minute + interval '1 minute'
    returning s.account_id, c.minute, s.at, s.n
)
insert into slots (account_id, at, n) select account_id, max(at), sum(n) from taken group by account_id, minute
"""


async def fold_slots(conn: Connection) -> None:
    """Makes one slot of those of a minute, where the window of a day alone counts them."""
    await conn.execute(FOLD_SLOTS)


async def forget_slots(conn: Connection) -> int:
    """Drops slots that no window counts any more."""
    return (await conn.execute("delete from slots where at < now() - interval '25 hours'")).rowcount
