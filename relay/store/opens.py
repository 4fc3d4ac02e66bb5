"""Opens: judged fetches of pixels, with all the sums they move, written a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from relay.core import account as settings_of
from relay.core.model import DELIVERED, EventType, Opener, State
from relay.core.networks import Network
from relay.core.openers import FLOOD
from relay.core.tenant import AccountState
from relay.store import states
from relay.store.db import Connection

KEPT = 200  # fetches of a delivery that are kept as rows, with an event each; those after them are only counted
BURST = 10  # s

Networks = tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What the judgement of a delivery's fetches needs. `now` is the database's clock."""

    now: datetime
    state: State
    finished_at: datetime | None
    fetches: int  # that are recorded
    burst: int  # ... of those, in the 10 seconds before the first that is asked about
    own: Networks  # of its account
    tells: bool  # its account wants a mail at the first open

    def since_sent(self, at: datetime) -> float | None:
        """Seconds from upstream's 250 to `at`; None: nobody knows of one.

        Whoever shows the pixel of what is just being sent is quicker than our own commit: no time has passed. One of
        what waits, failed or was cancelled was sent by a try whose reply was lost.
        """
        if self.state in DELIVERED and self.finished_at:
            return max((at - self.finished_at).total_seconds(), 0.0)
        return 0.0 if self.state is State.LEASED else None


@dataclass(frozen=True, slots=True)
class Open:
    """A fetch with its judgement, to be written. `place`: 1 for the first of its delivery in the batch, and so on."""

    delivery: int
    place: int
    at: datetime
    method: str
    address: str | None  # as much of it as is kept
    agent: str
    opener: Opener
    client: str
    reason: str
    country: str
    city: str
    tells: bool


async def known(conn: Connection, ages: dict[int, float]) -> dict[int, Known]:
    """What is known of these deliveries; those that are gone are left out. `ages`: s since the first fetch of each."""
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            select d.id, statement_timestamp(), d.state::text, d.finished_at, coalesce(o.fetches, 0),
                case when o.any_last_at > t.at - %(burst)b * interval '1 second' then
                    (select count(*) from (
                         select f.at from fetches f where f.delivery_id = d.id union all select unnest(o.lately)) f
                     where f.at <= t.at and f.at > t.at - %(burst)b * interval '1 second') else 0 end,
                (a.config -> 'tracking')::text
            from (select delivery, statement_timestamp() - age * interval '1 second' as at
                  from unnest(%(ids)b::bigint[], %(ages)b::float8[]) as u(delivery, age)) t
            join deliveries d on d.id = t.delivery join accounts a on a.id = d.account_id
            left join opens o on o.delivery_id = d.id
            """,
            {"ids": list(ages), "ages": list(ages.values()), "burst": BURST},
        )
        rows = await cursor.fetchall()
    return {
        id: Known(now, State(state), finished, fetches, burst, *_tracking(settings))
        for id, now, state, finished, fetches, burst, settings in rows
    }


@lru_cache(maxsize=1024)
def _tracking(settings: str | None) -> tuple[Networks, bool]:
    """An account's own networks, and whether it wants to be told of opens."""
    nested = {"tracking": json.loads(settings)} if settings else {}
    account = settings_of.build("", AccountState.ACTIVE, "", dict(settings_of.flatten(nested)))
    return account.own, account.alerts.opened


def _words(*openers: Opener) -> str:
    return ", ".join(f"'{opener}'" for opener in openers)


def _kept(column: str, aggregate: str, which: str) -> str:
    """The row of the batch that `column` would name, if there is room for its row: null when there is not."""
    return f"""case when o.fetches + excluded.fetches <= {KEPT} then excluded.{column}
        when o.fetches < {KEPT} then (select {aggregate}(g.id) from given g
            where g.delivery = o.delivery_id and {which} and g.place <= {KEPT} - o.fetches) end"""  # noqa: S608


# What a delivery had before is read from the row of `opens` under its lock, never from what was known earlier: of
# two processes that record the first open of a delivery, one alone finds that it was. The first is the first that
# was recorded. Rows are met in one order (opens, then recipients), each by its key: two batches never wait for each
# other in a circle.
#
# Opens count in the sums by cohort and by recipient where their delivery was sent. Those of one that is not known as
# sent yet (the reader was quicker than our commit, or the reply was lost) are recorded without: `sent_at` stays null
# for the books, which count all that the row has once it is sent, and fill it; from then on they are counted here.
RECORD = f"""
with given as materialized (
    select nextval('fetches_id_seq') as id, g.*,
        opener in ({_words(*(one for one in Opener if one.counts))}) as counts,
        opener in ({_words(*(one for one in Opener if one.counts_at_all))}) as counts_at_all
    from unnest(%b::bigint[], %b::int[], %b::timestamptz[], %b::text[], %b::inet[], %b::text[], %b::opener[],
        %b::text[], %b::text[], %b::text[], %b::text[], %b::bool[])
      as g(delivery, place, at, method, address, agent, opener, client, reason, country, city, tells)
), summed as materialized (
    select delivery, count(*) as fetches, bool_or(tells) as tells,
        jsonb_strip_nulls(jsonb_build_object({
    ", ".join(f"'{one}', nullif(count(*) filter (where opener = '{one}'), 0)" for one in Opener)
})) as judged,
        count(*) filter (where counts) as opens, count(*) filter (where counts_at_all) as any_opens,
        min(at) filter (where counts) as first_at, max(at) filter (where counts) as last_at,
        min(at) filter (where counts_at_all) as any_first_at, max(at) filter (where counts_at_all) as any_last_at,
        min(id) filter (where counts) as first, min(id) filter (where counts_at_all) as any_first,
        min(id) filter (where counts and place <= {KEPT}) as first_fetch,
        max(id) filter (where counts and place <= {KEPT}) as last_fetch,
        min(id) filter (where counts_at_all and place <= {KEPT}) as any_first_fetch,
        max(id) filter (where counts_at_all and place <= {KEPT}) as any_last_fetch
    from given group by delivery
), mail as materialized (
    select s.*, d.account_id, d.message_id, d.recipient, m.message_id as header,
        coalesce(m.email_type, '') as email_type,
        case when d.state {states.DELIVERED} then d.finished_at end as sent_at
    from summed s join deliveries d on d.id = s.delivery join messages m on m.id = d.message_id
    order by d.id for key share of d  -- what retention takes meanwhile is gone, and nothing is left behind
), merged as (
    insert into opens as o (delivery_id, account_id, fetches, judged, opens, any_opens, first_at, last_at,
        any_first_at, any_last_at, first_fetch, last_fetch, any_first_fetch, any_last_fetch, sent_at)
    select delivery, account_id, fetches, judged, opens, any_opens, first_at, last_at, any_first_at, any_last_at,
        first_fetch, last_fetch, any_first_fetch, any_last_fetch, sent_at
    from mail order by delivery
    on conflict (delivery_id) do update set
        fetches = o.fetches + excluded.fetches,
        judged = jsonb_strip_nulls(jsonb_build_object({
    ", ".join(
        f"'{one}', nullif(coalesce((o.judged -> '{one}')::int, 0) + coalesce((excluded.judged -> '{one}')::int, 0), 0)"
        for one in Opener
    )
})),
        opens = o.opens + excluded.opens, any_opens = o.any_opens + excluded.any_opens,
        first_at = coalesce(o.first_at, excluded.first_at), last_at = greatest(o.last_at, excluded.last_at),
        any_first_at = coalesce(o.any_first_at, excluded.any_first_at),
        any_last_at = greatest(o.any_last_at, excluded.any_last_at),
        first_fetch = case when o.first_at is null then {_kept("first_fetch", "min", "g.counts")}
            else o.first_fetch end,
        any_first_fetch = case when o.any_first_at is null then {_kept("any_first_fetch", "min", "g.counts_at_all")}
            else o.any_first_fetch end,
        last_fetch = case when o.last_at > excluded.last_at then o.last_fetch
            else coalesce({_kept("last_fetch", "max", "g.counts")}, o.last_fetch) end,
        any_last_fetch = case when o.any_last_at > excluded.any_last_at then o.any_last_fetch
            else coalesce({_kept("any_last_fetch", "max", "g.counts_at_all")}, o.any_last_fetch) end,
        lately = case when o.fetches + excluded.fetches > {KEPT} then ((
            select array_agg(g.at order by g.place desc) from given g
            where g.delivery = o.delivery_id and g.place > {KEPT} - o.fetches) || o.lately)[:{FLOOD.burst}] end
    returning o.delivery_id, o.fetches, o.opens, o.any_opens, date_bin('15 minutes', o.sent_at, 'epoch') as cohort
), gained as materialized (
    select mail.*, merged.cohort, merged.fetches - mail.fetches as before,
        mail.opens > 0 and merged.opens = mail.opens as opened,
        mail.any_opens > 0 and merged.any_opens = mail.any_opens as any_opened
    from merged join mail on mail.delivery = merged.delivery_id
), tallied as (
    insert into tallies (account_id, quarter, email_type, opened, any_opened, opens, any_opens)
    select coalesce(account_id, ''), cohort, email_type, sum(opened::int), sum(any_opened::int), sum(opens),
        sum(any_opens)
    from gained where any_opens > 0 and cohort is not null
    group by grouping sets ((account_id, cohort, email_type), (cohort, email_type))
), met as (
    insert into recipients as r (account_id, address, opened, any_opened, opens, any_opens, last_opened_at,
        any_last_opened_at)
    select account_id, lower(recipient), sum(opened::int), sum(any_opened::int), sum(opens), sum(any_opens),
        max(last_at), max(any_last_at)
    from gained where any_opens > 0 and cohort is not null group by 1, 2 order by 1, 2
    on conflict (account_id, address) do update set
        opened = r.opened + excluded.opened, any_opened = r.any_opened + excluded.any_opened,
        opens = r.opens + excluded.opens, any_opens = r.any_opens + excluded.any_opens,
        last_opened_at = greatest(r.last_opened_at, excluded.last_opened_at),
        any_last_opened_at = greatest(r.any_last_opened_at, excluded.any_last_opened_at)
), seen as materialized (
    select gained.account_id, date_bin('15 minutes', g.at, 'epoch') as quarter, gained.email_type, g.opener, g.client,
        g.country, opened and g.id = first as is_first, any_opened and g.id = any_first as is_any_first,
        gained.before + g.place <= {KEPT} as is_kept
    from given g join gained using (delivery)
), counted as (
    insert into open_tallies (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts)
    select coalesce(account_id, ''), quarter, email_type, opener, client, country, count(*),
        count(*) filter (where is_first), count(*) filter (where is_any_first)
    from seen group by grouping sets ((account_id, quarter, email_type, opener, client, country),
        (quarter, email_type, opener, client, country))
), rowless as (
    insert into rowless_opens (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts)
    select account_id, quarter, email_type, opener, client, country, count(*), count(*) filter (where is_first),
        count(*) filter (where is_any_first)
    from seen where not is_kept group by account_id, quarter, email_type, opener, client, country
), kept as materialized (
    select g.*, gained.account_id, gained.message_id, gained.recipient, gained.header
    from given g join gained using (delivery) where gained.before + g.place <= {KEPT}
), stored as (
    insert into fetches (id, delivery_id, at, method, address, user_agent, account_id, opener, client, reason, country,
        city) overriding system value
    select id, delivery, at, method, address, agent, account_id, opener, client, reason, country, city from kept
), told as (
    insert into events (at, account_id, type, delivery_id, message_id, data)
    select at, account_id, '{EventType.TRACK_OPEN}', delivery, message_id, jsonb_build_object(
        'messageId', header, 'recipient', recipient, 'trackingId', delivery::text,
        'remoteAddress', coalesce(host(address), ''), 'userAgent', agent, 'opener', opener,
        'prefetch', opener = '{Opener.PREFETCH}')
        || case when country <> '' then jsonb_build_object('country', country) else '{{}}' end
        || case when city <> '' then jsonb_build_object('city', city) else '{{}}' end
    from kept where opener <> '{Opener.SELF}' order by id
), noticed as (
    insert into notices (delivery_id, kind, account_id)
    select delivery, 'opened', account_id from gained where opened and tells order by delivery
    on conflict do nothing
)
select delivery from gained
"""  # noqa: S608 - the text is ours


async def record(conn: Connection, batch: Sequence[Open]) -> set[int]:
    """Writes judged fetches with their sums and events, in one commit; tells whose delivery is still there.

    The fetches of one delivery stand in the order in which they came.
    """
    cursor = await conn.execute(
        RECORD,
        (
            [one.delivery for one in batch],
            [one.place for one in batch],
            [one.at for one in batch],
            [one.method for one in batch],
            [one.address for one in batch],
            [one.agent for one in batch],
            [one.opener.value for one in batch],
            [one.client for one in batch],
            [one.reason for one in batch],
            [one.country for one in batch],
            [one.city for one in batch],
            [one.tells for one in batch],
        ),
    )
    return {row[0] for row in await cursor.fetchall()}


async def recorded(conn: Connection, batch: Sequence[Open]) -> bool:
    """Whether this very batch has been written, where its answer was lost. Of any that was, one row is enough.

    The try that was cut off may still be at work in the database, with these deliveries locked: it is waited for. A
    batch of which no row was kept cannot be told: all its deliveries had their 200 before.
    """
    given = [one.delivery for one in batch], [one.at for one in batch]
    async with conn.transaction():
        await conn.execute("select from deliveries where id = any(%b::bigint[]) order by id for update", given[:1])
        cursor = await conn.execute(
            """
            select exists (select from unnest(%b::bigint[], %b::timestamptz[]) as g(delivery, at)
                join fetches f on f.delivery_id = g.delivery and f.at = g.at)
            """,
            given,
        )
        (found,) = await cursor.fetchone() or (False,)
    return bool(found)
