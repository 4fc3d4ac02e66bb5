"""How an account's upstream fares: in trouble, nothing is leased before `retry_at`, and then one delivery alone.

That holds for one whose login is refused too: a probe that meets another trouble rests the account anew.

What is told of settings that were changed since (the account's `updated_at` is another) says nothing of the new ones.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from psycopg import errors

from relay.core.model import EventType
from relay.core.reply import Reply
from relay.core.tenant import Account
from relay.store import facts
from relay.store.db import Connection, scalar

PATIENCE = "500ms"  # that an account's row may be locked by somebody else


async def promptly(conn: Connection, tell: Callable[[Connection], Awaitable[None]]) -> bool:
    """Does one of what is below. False: the account is locked. To wait for it would keep the connection from others."""
    try:
        async with conn.transaction():
            await conn.execute("select set_config('lock_timeout', %s, true)", (PATIENCE,))
            await tell(conn)
    except errors.LockNotAvailable:
        return False
    return True


async def trouble(
    conn: Connection, account: Account, reason: str, reply: Reply | None, *, first: float, most: float
) -> None:
    """A connection failed; `reply`: what upstream said, if it did. The pause doubles from `first` to `most` seconds.

    Several failures at once count as one.
    """
    await conn.execute(
        """
        with hit as (
            update accounts set failures = failures + 1, reason = %(reason)s, retry_at = now() + interval '1 second'
                * least(%(most)s, %(first)s * 2 ^ least(failures, 30)) * (0.75 + random() / 2)
            where id = %(account)s and updated_at = %(seen)s and state <> 'paused'
                and coalesce(retry_at <= now(), true) returning failures)
        insert into events (account_id, type, data)
        select %(account)s, %(event)s, %(data)s::jsonb from hit where failures = 1
        """,
        {
            "account": account.id,
            "seen": account.updated_at,
            "reason": reason,
            "first": first,
            "most": most,
            "event": EventType.CONNECT_ERROR.value,
            "data": facts.trouble(reason, reply),
        },
    )


async def gets_through(conn: Connection, account: str, *, seconds: float) -> bool:
    """Whether mail of the account was sent within so many seconds: somebody can reach its upstream."""
    query = """
        select exists(select from deliveries where account_id = %s and state in ('sent', 'bounced', 'complained')
            and finished_at > now() - %s * interval '1 second')
    """
    return bool(await scalar(conn, query, (account, seconds)))


async def throttled(conn: Connection, account: Account, reason: str, *, seconds: float) -> None:
    """Upstream asked for a pause of the whole account."""
    await conn.execute(
        """
        update accounts set reason = %s, failures = greatest(failures, 1),
            retry_at = greatest(retry_at, now() + %s * interval '1 second')
        where id = %s and updated_at = %s and state <> 'paused'
        """,
        (reason, seconds, account.id, account.updated_at),
    )


async def refused(conn: Connection, account: Account, reason: str, reply: Reply | None, *, seconds: float) -> None:
    """The login is refused: the account stops, but for a probe each `seconds`. An operator's pause stands."""
    await conn.execute(
        """
        with old as (
            select id, state from accounts
            where id = %(account)s and updated_at = %(seen)s and state <> 'paused' for update),
        hit as (
            update accounts a set state = 'refused', reason = %(reason)s,
                retry_at = now() + %(seconds)s * interval '1 second'
            from old where a.id = old.id returning old.state)
        insert into events (account_id, type, data)
        select %(account)s, type, data
        from hit, unnest(%(events)s::text[], %(data)s::jsonb[]) as told(type, data) where hit.state = 'active'
        """,
        {
            "account": account.id,
            "seen": account.updated_at,
            "reason": reason,
            "seconds": seconds,
            "events": [EventType.AUTHENTICATION_ERROR.value, EventType.ACCOUNT_PAUSED.value],
            "data": [facts.trouble(reason, reply), json.dumps({"reason": reason})],
        },
    )


async def well(conn: Connection, account: str) -> None:
    """A connection was made and let us in: the account sends again."""
    await conn.execute(
        """
        with old as (select id, state from accounts where id = %(account)s for update),
        hit as (
            update accounts a set failures = 0, retry_at = null,
                reason = case when old.state = 'paused' then a.reason else '' end,
                state = case when old.state = 'refused' then 'active' else old.state end
            from old where a.id = old.id returning old.state)
        insert into events (account_id, type, data) select %(account)s, %(event)s, '{}' from hit where state = 'refused'
        """,
        {"account": account, "event": EventType.ACCOUNT_RESUMED.value},
    )
