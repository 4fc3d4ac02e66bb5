"""Notices, which become mail to the account, and the reminder of mail that nobody opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.core.model import EventType, Opener
from relay.core.notice import OPENED, UNOPENED, Notice
from relay.store import states
from relay.store.db import Connection, scalar

REMINDER_LOCK = 0x72656D69  # "remi": one reminder at a time, whoever runs it


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed notice. `notice` is None when there is nothing to tell any more: its mail is gone, was opened, or
    came back."""

    delivery: int
    kind: str
    account: str
    attempts: int  # with this one
    notice: Notice | None


# Accounts share what is claimed, whoever has a million of them: one probe an account finds whose are due, in any order.
CLAIM = """
with recursive turn as (
    (select account_id, due_at from notices order by account_id, due_at limit 1)
    union all
    select next.* from turn cross join lateral (
        select account_id, due_at from notices where account_id > turn.account_id
        order by account_id, due_at limit 1) next
), shares as materialized (
    select account_id, greatest(%(most)s / count(*) over (), 1) as share from turn where due_at <= now()
    order by random() limit %(most)s
), picked as (
    select p.* from shares cross join lateral (
        select delivery_id, kind from notices where account_id = shares.account_id and due_at <= now()
        order by due_at limit shares.share for update skip locked) p
), claimed as (
    update notices n set attempts = attempts + 1,
        due_at = now() + (%(waits)s::float8[])[least(attempts + 1, %(last)s)] * interval '1 second'
    from picked p where n.delivery_id = p.delivery_id and n.kind = p.kind
    returning n.delivery_id, n.kind, n.account_id, n.attempts
)
select c.*, case when d.state = 'sent' or c.kind = 'opened' then d.recipient end, d.name, m.subject, d.finished_at,
    o.first_at, f.opener::text, f.client, f.country, f.city, coalesce(o.opens, 0)
from claimed c left join deliveries d on d.id = c.delivery_id left join messages m on m.id = d.message_id
left join opens o on o.delivery_id = c.delivery_id left join fetches f on f.id = o.first_fetch
order by c.delivery_id
"""


async def claim(conn: Connection, most: int, waits: Sequence[float]) -> list[Due]:
    """Up to `most` that are due, this try counted: unless they are settled, each is due again after its wait (s).

    So a process that dies loses none, and no other takes them meanwhile.
    """
    cursor = await conn.execute(CLAIM, {"most": most, "waits": list(waits), "last": len(waits)})
    return [_due(*row) for row in await cursor.fetchall()]


async def settle(conn: Connection, done: Sequence[tuple[int, str]]) -> None:
    """These (delivery, kind) are sent, or dropped."""
    await conn.execute(
        "delete from notices n using unnest(%s::bigint[], %s::text[]) as u(delivery, kind)"
        " where n.delivery_id = u.delivery and n.kind = u.kind",
        ([delivery for delivery, _ in done], [kind for _, kind in done]),
    )


# For each asking account the stretch of finished mail from where the last look ended up to `days` ago, or to the
# `most`-th of it. Those of one instant are taken together, so that the mark may stand on it. Moved is the mark only
# where there was something, or when it lags: a minute's look at many quiet accounts shall write nothing. What is told
# hangs on the moved mark, which another change of the account may have moved first.
REMIND = f"""
with asking as materialized (
    select id, reminded_until as was, (config #>> '{{tracking,alerts,unopenedMail}}')::boolean as mail,
        coalesce((config #>> '{{tracking,alerts,unopenedDays}}')::int, 3) as days,
        now() - make_interval(days => coalesce((config #>> '{{tracking,alerts,unopenedDays}}')::int, 3)) as horizon
    from accounts
    where (config #>> '{{tracking,alerts,unopened}}') = 'true' and id > %(after)s order by id limit %(accounts)s
), stretches as materialized (
    select a.*, coalesce(
        (select d.finished_at from deliveries d
         where d.account_id = a.id and d.state {states.DONE} and d.finished_at > a.was
           and d.finished_at <= a.horizon
         order by d.finished_at, d.id offset %(most)s - 1 limit 1), a.horizon) as until
    from asking a where a.was < a.horizon
), due as materialized (
    select s.id as account_id, s.days, s.mail, d.id, d.message_id, d.recipient, d.finished_at,
        m.message_id as header
    from stretches s
    cross join lateral (
        select * from deliveries d where d.account_id = s.id and d.state {states.DONE}
            and d.finished_at > s.was and d.finished_at <= s.until offset 0) d
    join messages m on m.id = d.message_id
    left join opens o on o.delivery_id = d.id
    where d.state = 'sent' and m.splice is not null and coalesce(o.opens, 0) = 0
), moved as (
    update accounts a set reminded_until = s.until from stretches s
    where a.id = s.id and a.reminded_until is not distinct from s.was
      and (s.until < s.horizon or s.until > s.was + interval '1 hour'
           or exists (select from due where due.account_id = s.id))
    returning a.id
), begun as (
    update accounts a set reminded_until = b.horizon from asking b
    where a.id = b.id and b.was is null and a.reminded_until is null
), told as (
    insert into events (account_id, type, delivery_id, message_id, data)
    select account_id, '{EventType.MESSAGE_UNOPENED}', due.id, message_id, jsonb_build_object(
        'messageId', header, 'recipient', recipient, 'trackingId', due.id::text,
        'queueId', replace(message_id::text, '-', ''), 'days', days,
        'sentAt', to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    from due join moved on moved.id = due.account_id order by finished_at, due.id
    returning 1
), noticed as (
    insert into notices (delivery_id, kind, account_id)
    select due.id, '{UNOPENED}', account_id from due join moved on moved.id = due.account_id where mail
    on conflict do nothing
)
select (select max(id) from asking), (select count(*) from told),
    (select count(*) from stretches where until < horizon)
"""  # noqa: S608 - the text is ours


# How many mails a stretch holds is known by its end alone; the planner guesses a share of the table, and reads it all.
ALONG_INDEXES = "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"


@dataclass(frozen=True, slots=True)
class Reminded:
    """One step of the reminder. `after`: the last account that was looked at, None when there are no more."""

    after: str | None
    told: int
    unfinished: int  # accounts that have more than was taken


async def remind(conn: Connection, after: str, *, accounts: int, most: int) -> Reminded | None:
    """Tells of unopened mail of the next `accounts` after this one, about `most` mails each, in one commit.

    None: another process is at it. What is sent now counts from now on: an account that begins to ask gets no past.
    """
    async with conn.transaction():
        if not await scalar(conn, "select pg_try_advisory_xact_lock(%s)", (REMINDER_LOCK,)):
            return None
        await conn.execute(ALONG_INDEXES)
        cursor = await conn.execute(REMIND, {"after": after, "accounts": accounts, "most": most})
        row = await cursor.fetchone()
    return Reminded(*row) if row else None


def _due(
    delivery: int,
    kind: str,
    account: str,
    attempts: int,
    recipient: str | None,
    name: str | None,
    subject: str | None,
    sent_at: datetime | None,
    opened_at: datetime | None,
    opener: str | None,
    client: str | None,
    country: str | None,
    city: str | None,
    opens: int,
) -> Due:
    notice = None
    if recipient is not None and (kind == OPENED) == (opens > 0):
        notice = Notice(
            kind=kind,
            delivery=delivery,
            recipient=recipient,
            name=name or "",
            subject=subject or "",
            sent_at=sent_at,
            opened_at=opened_at,
            opener=Opener(opener) if opener else None,
            client=client or "",
            country=country or "",
            city=city or "",
        )
    return Due(delivery, kind, account, attempts, notice)
