"""What the sums must be, by the rows they are of: one query a table, for one account (`account`).

Where a query is of opens or recipients, `chosen` may name the rows it is about; null is all. Sums by time begin with
the first quarter of an hour that retention has not reached.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.core.model import Opener
from relay.store import states
from relay.store.opens import KEPT
from relay.store.rollups import COUNTS


def _whose(openers: Iterable[Opener]) -> str:
    return f"f.opener in ({', '.join(repr(one.value) for one in openers)})"


OPEN = _whose(one for one in Opener if one.counts)
ANY_OPEN = _whose(one for one in Opener if one.counts_at_all)
SINCE = "(select date_bin('15 minutes', purged_until, 'epoch') + interval '15 minutes' from books)"

# Of a delivery with more fetches than are kept, rows tell only the least that its counts may be. The first open is the
# first that was recorded, which need not be that with the earliest time: the row that is named is believed.
OPENS = f"""
select g.delivery_id, case when exact then n else greatest(fetches, n) end as fetches,
    case when exact then r_judged else judged end as judged,
    case when exact then r_opens else greatest(opens, r_opens) end as opens,
    case when exact then r_any_opens else greatest(any_opens, r_any_opens) end as any_opens,
    case when exact or r_opens > 0 then (select at from fetches where id = r_first) else first_at end as first_at,
    case when exact then r_last_at else greatest(last_at, r_last_at) end as last_at,
    case when exact or r_any_opens > 0 then (select at from fetches where id = r_any_first) else any_first_at end
        as any_first_at,
    case when exact then r_any_last_at else greatest(any_last_at, r_any_last_at) end as any_last_at,
    r_first as first_fetch, r_last as last_fetch, r_any_first as any_first_fetch, r_any_last as any_last_fetch,
    case when sent_at is not null and d.state {states.DELIVERED} then d.finished_at end as sent_at
from (
    select f.delivery_id, o.fetches, o.judged, o.opens, o.any_opens, o.first_at, o.last_at, o.any_first_at,
        o.any_last_at, o.sent_at, count(*) as n, count(*) filter (where {OPEN}) as r_opens,
        count(*) < {KEPT} or count(*) >= coalesce(o.fetches, 0) as exact,
        count(*) filter (where {ANY_OPEN}) as r_any_opens,
        max(f.at) filter (where {OPEN}) as r_last_at, max(f.at) filter (where {ANY_OPEN}) as r_any_last_at,
        coalesce(min(f.id) filter (where f.id = o.first_fetch and {OPEN}), min(f.id) filter (where {OPEN})) as r_first,
        coalesce(min(f.id) filter (where f.id = o.last_fetch and {OPEN}), max(f.id) filter (where {OPEN})) as r_last,
        coalesce(min(f.id) filter (where f.id = o.any_first_fetch and {ANY_OPEN}),
            min(f.id) filter (where {ANY_OPEN})) as r_any_first,
        coalesce(min(f.id) filter (where f.id = o.any_last_fetch and {ANY_OPEN}),
            max(f.id) filter (where {ANY_OPEN})) as r_any_last,
        jsonb_strip_nulls(jsonb_build_object({
    ", ".join(f"'{one}', nullif(count(*) filter (where f.opener = '{one}'), 0)" for one in Opener)
})) as r_judged
    from fetches f left join opens o using (delivery_id)
    where f.account_id = %(account)s and (%(chosen)s::bigint[] is null or f.delivery_id = any(%(chosen)s::bigint[]))
    group by f.delivery_id, o.delivery_id) g
join deliveries d on d.id = g.delivery_id
"""  # noqa: S608 - the text is ours

OPENS_KEPT = f"""
select o.* from opens o where o.delivery_id in (
    select id from deliveries where account_id = %(account)s and state {states.DONE}
    union select delivery_id from fetches where account_id = %(account)s)
"""  # noqa: S608 - the text is ours

TALLIES = f"""
select date_bin('15 minutes', d.finished_at, 'epoch') as quarter, coalesce(m.email_type, '') as email_type,
    count(*) filter (where d.state {states.DELIVERED}) as sent,
    count(*) filter (where d.state {states.DELIVERED} and m.splice is not null) as tracked,
    count(*) filter (where d.state = 'failed') as failed, count(*) filter (where d.state = 'bounced') as bounced,
    count(*) filter (where o.opens > 0) as opened,
    count(*) filter (where o.any_opens > 0) as any_opened, coalesce(sum(o.opens), 0) as opens,
    coalesce(sum(o.any_opens), 0) as any_opens
from deliveries d join messages m on m.id = d.message_id
left join opens o on o.delivery_id = d.id and o.sent_at is not null
where d.account_id = %(account)s and d.state {states.DONE} and d.finished_at >= {SINCE}
group by 1, 2
"""  # noqa: S608 - the text is ours

OPEN_TALLIES = f"""
select quarter, email_type, opener, client, country, sum(opens) as opens, sum(firsts) as firsts,
    sum(any_firsts) as any_firsts
from (
    select date_bin('15 minutes', f.at, 'epoch') as quarter, coalesce(m.email_type, '') as email_type, f.opener,
        f.client, f.country, count(*) as opens, count(*) filter (where f.id = o.first_fetch) as firsts,
        count(*) filter (where f.id = o.any_first_fetch) as any_firsts
    from fetches f join deliveries d on d.id = f.delivery_id join messages m on m.id = d.message_id
    left join opens o on o.delivery_id = f.delivery_id
    where f.account_id = %(account)s and f.at >= {SINCE} group by 1, 2, 3, 4, 5
    union all
    select quarter, email_type, opener, client, country, opens, firsts, any_firsts from rowless_opens
    where account_id = %(account)s and quarter >= {SINCE}) c
group by 1, 2, 3, 4, 5
"""  # noqa: S608 - the text is ours

RECIPIENTS = f"""
select address, {
    ", ".join(f"coalesce(m.{name}, 0) + coalesce((r.gone ->> '{name}')::int, 0) as {name}" for name in COUNTS)
},
    case when (r.gone ->> 'sent')::int > 0 then least(m.first_sent_at, r.first_sent_at) else m.first_sent_at end
        as first_sent_at,
    case when (r.gone ->> 'sent')::int > 0 then greatest(m.last_sent_at, r.last_sent_at) else m.last_sent_at end
        as last_sent_at,
    case when (r.gone ->> 'opened')::int > 0 then greatest(m.last_opened_at, r.last_opened_at)
        else m.last_opened_at end as last_opened_at,
    case when (r.gone ->> 'any_opened')::int > 0 then greatest(m.any_last_opened_at, r.any_last_opened_at)
        else m.any_last_opened_at end as any_last_opened_at
from (
    select lower(d.recipient) as address, count(*) filter (where d.state {states.DELIVERED}) as sent,
        count(*) filter (where d.state {states.DELIVERED} and m.splice is not null) as tracked,
        count(*) filter (where d.state = 'failed') as failed, count(*) filter (where d.state = 'bounced') as bounced,
        count(*) filter (where o.opens > 0) as opened,
        count(*) filter (where o.any_opens > 0) as any_opened, coalesce(sum(o.opens), 0) as opens,
        coalesce(sum(o.any_opens), 0) as any_opens,
        min(d.finished_at) filter (where d.state {states.DELIVERED}) as first_sent_at,
        max(d.finished_at) filter (where d.state {states.DELIVERED}) as last_sent_at, max(o.last_at) as last_opened_at,
        max(o.any_last_at) as any_last_opened_at
    from deliveries d join messages m on m.id = d.message_id
    left join opens o on o.delivery_id = d.id and o.sent_at is not null
    where d.account_id = %(account)s and d.state {states.DONE}
        and (%(chosen)s::text[] is null or lower(d.recipient) = any(%(chosen)s::text[]))
    group by 1) m
full join (
    select * from recipients where account_id = %(account)s
    and (%(chosen)s::text[] is null or address = any(%(chosen)s::text[]))) r using (address)
"""  # noqa: S608 - the text is ours
