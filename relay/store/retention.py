"""Mail leaves: old mail by retention, an account's with the account. What statistics need of it is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from relay.store import states
from relay.store.db import Connection, scalar
from relay.store.rollups import COUNTS
from relay.store.turns import WITH_WORK

FIRST = UUID(int=0)  # comes before all ids
MOST_DELIVERIES = 2000  # whose rows are locked at once

OLD = """
select id, (select count(*) from deliveries d where d.message_id = m.id) from messages m
where id < %(horizon)s and id > %(after)s and not exists (
    select from deliveries d where d.message_id = m.id
    and (d.finished_at is null or d.finished_at > now() - %(days)s * interval '1 day'))
    and not exists (select from sent_copies s where s.message_id = m.id and s.due_at is not null)
order by id limit %(most)s for update skip locked
"""

OF_ACCOUNT = """
select id, (select count(*) from deliveries d where d.message_id = m.id) from messages m
where account_id = %(account)s order by id limit %(most)s for update
"""

# Rows are locked in one order, as those who count opens lock them, before a statement with a newer snapshot looks at
# them: a dead letter that was replayed meanwhile stays, and an open that was recorded meanwhile is seen.
LOCK = "select from deliveries where message_id = any(%(ids)s) order by id for update"

# What hangs on the messages in `going`. A message may have very many deliveries: what is joined is looked up by index,
# row by row, never one list held against another.
REMOVED = """
mine as (
    delete from deliveries d using going where d.message_id = going.id
    returning d.id, d.account_id, lower(d.recipient) as address, d.state, d.finished_at, going.email_type,
        going.tracked,
        (select opens from opens o where o.delivery_id = d.id and o.sent_at is not null) as opens,
        (select any_opens from opens o where o.delivery_id = d.id and o.sent_at is not null) as any_opens
), seen as (
    delete from fetches f using mine left join opens o on o.delivery_id = mine.id where f.delivery_id = mine.id
    returning f.*, mine.email_type, f.id is not distinct from o.first_fetch as is_first,
        f.id is not distinct from o.any_first_fetch as is_any_first
), opens as (delete from opens where delivery_id in (select id from mine)
), attempts as (delete from attempts where delivery_id in (select id from mine)
), notes as (delete from notes where delivery_id in (select id from mine)
), notices as (delete from notices where delivery_id in (select id from mine)
), copies as (delete from sent_copies where message_id in (select id from going)
), bodies as (delete from bodies where message_id in (select id from going))
"""

FORGET = f"""
with going as (
    select id, '' as email_type, false as tracked from messages where id = any(%(ids)s)
), {REMOVED}
delete from messages where id in (select id from going)
"""  # noqa: S608 - the text is ours

# The sums outlive the mail. So that they can still be held against what is left: recipients remember what went of their
# counts, `books` up to which time mail has gone, and `rowless_opens` the opens after that time.
PURGE = f"""
with going as (
    select id, coalesce(email_type, '') as email_type, splice is not null as tracked
    from messages m where id = any(%(ids)s) and not exists (
        select from deliveries d where d.message_id = m.id
        and (d.finished_at is null or d.finished_at > now() - %(days)s * interval '1 day'))
), {REMOVED}, fewer as (
    select account_id, address, count(*) filter (where state {states.DELIVERED}) as sent,
        count(*) filter (where state {states.DELIVERED} and tracked) as tracked,
        count(*) filter (where state = 'failed') as failed, count(*) filter (where state = 'bounced') as bounced,
        count(*) filter (where opens > 0) as opened,
        count(*) filter (where any_opens > 0) as any_opened,
        coalesce(sum(opens), 0) as opens, coalesce(sum(any_opens), 0) as any_opens
    from mine where state {states.DONE} group by 1, 2
), known as (
    select r.account_id, r.address, f.{", f.".join(COUNTS)}
    from recipients r join fewer f using (account_id, address)
    order by r.account_id, r.address for no key update of r
), remembered as (
    update recipients r set gone = jsonb_build_object('at', now(), {
    ", ".join(f"'{name}', coalesce((r.gone ->> '{name}')::integer, 0) + k.{name}" for name in COUNTS)
})
    from known k where r.account_id = k.account_id and r.address = k.address
), until as (
    update books set purged_until = greatest(purged_until, (
        select max(finished_at) from mine where state {states.DONE})) returning purged_until
), rowless as (
    insert into rowless_opens (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts)
    select account_id, date_bin('15 minutes', at, 'epoch') as quarter, email_type, opener, client, country, count(*),
        count(*) filter (where is_first), count(*) filter (where is_any_first)
    from seen where at > (select purged_until from until)
    group by 1, 2, 3, 4, 5, 6
)
delete from messages where id in (select id from going)
"""  # noqa: S608 - the text is ours


class Purged(NamedTuple):
    """So many messages went; `more`: there are others that may go at once, after `last`."""

    messages: int
    more: bool
    last: UUID


async def purge(
    conn: Connection, days: float, *, after: UUID = FIRST, most: int = 500, deliveries: int = MOST_DELIVERIES
) -> Purged:
    """Drops messages that ended more than `days` ago, with all that is theirs; those that came after `after`.

    At most `most`, and of those no more than have so many `deliveries` together: the rows of their recipients are
    locked meanwhile, and whoever records an outcome for one of them waits.
    """
    given = {"horizon": await _horizon(conn, days), "days": days, "after": after, "most": most}
    return await _take(conn, OLD, PURGE, given, deliveries)


async def forget_mail(conn: Connection, account: str, most: int) -> int:
    """Drops up to `most` of the account's messages with all that hangs on them; tells how many there were.

    Its figures are not put right: they go with the account (`rollups.forget`).
    """
    return (await _take(conn, OF_ACCOUNT, FORGET, {"account": account, "most": most}, MOST_DELIVERIES)).messages


async def orphaned(conn: Connection) -> list[str]:
    """Ids that mail is kept for, and that are no accounts: it came in at the moment when they were removed."""
    cursor = await conn.execute(
        f"""
        with recursive {WITH_WORK}
        select account_id from turn
        where account_id is not null and not exists (select from accounts where id = account_id)
        """.encode(),  # noqa: S608 - the text is ours
        {"after": ""},
    )
    return [row[0] for row in await cursor.fetchall()]


async def forget_recipients(conn: Connection, account: str, most: int) -> int:
    """Drops up to `most` of the people that the account wrote to; tells how many there were."""
    cursor = await conn.execute(
        "delete from recipients where account_id = %(account)s and address in ("
        "select address from recipients where account_id = %(account)s order by address limit %(most)s)",
        {"account": account, "most": most},
    )
    return cursor.rowcount


async def _take(
    conn: Connection, which: str, remove: str, given: dict[str, Any], deliveries: float = float("inf")
) -> Purged:
    """Locks what is to go, then removes what still is."""
    async with conn.transaction():
        found = await (await conn.execute(which.encode(), given)).fetchall()
        ids = _within(found, deliveries)
        if not ids:
            return Purged(0, False, FIRST)
        await conn.execute(LOCK, {"ids": ids})
        gone = (await conn.execute(remove.encode(), {**given, "ids": ids})).rowcount
    return Purged(gone, len(ids) < len(found) or len(found) == given["most"], ids[-1])


def _within(found: Sequence[tuple[UUID, int]], deliveries: float) -> Sequence[UUID]:
    """The first messages that have at most so many deliveries together; one at least."""
    total = 0
    ids: list[UUID] = []
    for id, count in found:
        total += count
        if ids and total > deliveries:
            break
        ids.append(id)
    return ids


async def _horizon(conn: Connection, days: float) -> UUID:
    """The smallest message id of `days` ago: ids are version 7, so age is a range of the primary key."""
    query = "select (extract(epoch from now() - %s * interval '1 day') * 1000)::bigint"
    return UUID(int=await scalar(conn, query, (days,)) << 80)
