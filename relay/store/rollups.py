"""The sums that statistics are read from, kept in the database transaction of their facts.

What is written here only adds: nobody waits for a row that another commit holds. Readers add up.
"""

from __future__ import annotations

# Further parts of a statement whose `applied` holds deliveries that have an outcome now (id, account_id, message_id,
# recipient, name, state, finished_at). Recipients are met in one order, so that no two commits wait for each other.
FINISHED = """
finished as (
    select a.account_id, lower(a.recipient) as address, a.name, a.finished_at, coalesce(m.email_type, '') as email_type,
        (a.state = 'sent')::int as sent, (a.state = 'sent' and m.splice is not null)::int as tracked,
        (a.state = 'failed')::int as failed, case when a.state = 'sent' then a.finished_at end as sent_at
    from applied a join messages m on m.id = a.message_id where a.state in ('sent', 'failed')
), tallied as (
    insert into tallies (account_id, quarter, email_type, sent, tracked, failed)
    select coalesce(account_id, ''), quarter, email_type, sum(sent), sum(tracked), sum(failed)
    from (select *, date_bin('15 minutes', finished_at, 'epoch') as quarter from finished) f
    group by grouping sets ((account_id, quarter, email_type), (quarter, email_type))
), met as (
    insert into recipients as r (account_id, address, name, sent, tracked, failed, first_sent_at, last_sent_at)
    select account_id, address, max(name), sum(sent), sum(tracked), sum(failed), min(sent_at), max(sent_at)
    from finished group by account_id, address order by account_id, address
    on conflict (account_id, address) do update set
        name = coalesce(excluded.name, r.name), sent = r.sent + excluded.sent, tracked = r.tracked + excluded.tracked,
        failed = r.failed + excluded.failed, first_sent_at = coalesce(r.first_sent_at, excluded.first_sent_at),
        last_sent_at = greatest(r.last_sent_at, excluded.last_sent_at)
)
"""
