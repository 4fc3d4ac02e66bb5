"""Mailboxes: which are to be looked at, who has them, how far they were looked at, and whether they file what is sent.

A claim moves `due_at` to its own end: whoever dies with a mailbox in hand leaves it due again, and what is being looked
at is never met by whoever looks for what is due.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from relay.store import states
from relay.store.db import Connection, scalar

LISTED = "1 day"  # how long the folders of a mailbox are taken to be those that there were

# How long ago the account's last mail left: one step in the index deliveries_done, however much mail there is. Mail
# that failed counts too, since looking for the last that was sent might pass by any number of others.
SENT = f"""(select extract(epoch from now() - d.finished_at)::float8 from deliveries d
    where d.account_id = m.account_id and d.state {states.DONE} order by d.finished_at desc, d.id desc limit 1)"""  # noqa: S608 - the text is ours


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed mailbox. `folders` as core/watching.py tells them; `sent`: seconds since the account's last mail."""

    account: str
    claim: int
    failures: int
    error: str
    folders: Mapping[str, Any]
    listed: bool  # lately; else its folders are to be asked for
    late: float  # seconds that it was due
    sent: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How the watch of a mailbox stands. `next_at`: of the next look; None while it is not watched."""

    looked_at: datetime | None
    next_at: datetime | None
    error: str
    failures: int


async def want(conn: Connection, account: str, *, watched: bool, moved: bool) -> None:
    """The account's mailbox settings were changed: it is looked at now, or, unless it is `watched`, no more.

    Whoever has it in hand loses it. `moved`: it may be another mailbox, so that nothing is known of its folders.
    """
    await conn.execute(
        f"""
        insert into mailboxes as m (account_id, due_at, claim)
        values (%(account)s, case when %(watched)s then now() end, {states.FIRST_COUNT})
        on conflict (account_id) do update set due_at = excluded.due_at, claim = m.claim + 1, claimed_until = null,
            failures = 0, listed_at = null, files = case when not %(moved)s then m.files end,
            folders = case when %(moved)s then '{{}}' else m.folders end
        """.encode(),  # noqa: S608 - the text is ours
        {"account": account, "watched": watched, "moved": moved},
    )


async def claim(conn: Connection, most: int, seconds: float) -> list[Due]:
    """Up to `most` that are due, the longest waiting first; nobody else is given them for so many seconds."""
    async with conn.cursor(row_factory=class_row(Due)) as cursor:
        await cursor.execute(
            f"""
            with picked as (
                select account_id, due_at from mailboxes where due_at <= now()
                order by due_at limit %(most)s for update skip locked
            )
            update mailboxes m set claim = m.claim + 1, due_at = now() + %(seconds)s * interval '1 second',
                claimed_until = now() + %(seconds)s * interval '1 second'
            from picked p where m.account_id = p.account_id
            returning m.account_id as account, m.claim, m.failures, m.error, m.folders,
                coalesce(m.listed_at > now() - interval '{LISTED}', false) as listed,
                extract(epoch from now() - p.due_at)::float8 as late, {SENT} as sent
            """.encode(),  # noqa: S608 - the text is ours
            {"most": most, "seconds": seconds},
        )
        return await cursor.fetchall()


async def renew(conn: Connection, held: Collection[Due], seconds: float) -> set[tuple[str, int]]:
    """Keeps the claims for so many seconds more. Account and claim of those that still stand."""
    cursor = await conn.execute(
        """
        update mailboxes m set due_at = now() + %(seconds)s * interval '1 second',
            claimed_until = now() + %(seconds)s * interval '1 second'
        from unnest(%(accounts)s::text[], %(claims)s::bigint[]) h (account_id, claim)
        where m.account_id = h.account_id and m.claim = h.claim and m.claimed_until is not null
        returning m.account_id, m.claim
        """,
        {"accounts": [due.account for due in held], "claims": [due.claim for due in held], "seconds": seconds},
    )
    return set(await cursor.fetchall())


async def mark(
    conn: Connection, due: Due, folders: Mapping[str, Any], *, ago: float, listed: bool = False
) -> Due | None:
    """In the midst of a look that began so many seconds `ago`: how far it is, and that all is well. None: it is lost.

    `listed`: the mailbox was asked for its folders.
    """
    cursor = await conn.execute(
        f"""
        update mailboxes m set folders = %(folders)s, looked_at = now() - %(ago)s * interval '1 second', error = '',
            failures = 0, listed_at = case when %(listed)s then now() else m.listed_at end
        where m.account_id = %(account)s and m.claim = %(claim)s and m.claimed_until is not null returning {SENT}
        """.encode(),  # noqa: S608 - the text is ours
        {"account": due.account, "claim": due.claim, "folders": Jsonb(folders), "ago": ago, "listed": listed},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return replace(due, folders=folders, listed=due.listed or listed, failures=0, error="", sent=row[0])


async def settle(
    conn: Connection, due: Due, wait: float | None, folders: Mapping[str, Any], *, ago: float, listed: bool = False
) -> bool:
    """The end of a look that went well; the next is in so many seconds, None is never. False: the claim was lost."""
    cursor = await conn.execute(
        """
        update mailboxes m set due_at = now() + %(wait)s::float8 * interval '1 second', claimed_until = null,
            folders = %(folders)s, looked_at = now() - %(ago)s * interval '1 second', error = '', failures = 0,
            listed_at = case when %(listed)s then now() else m.listed_at end
        where m.account_id = %(account)s and m.claim = %(claim)s and m.claimed_until is not null
        """,
        {
            "account": due.account,
            "claim": due.claim,
            "wait": wait,
            "folders": Jsonb(folders),
            "ago": ago,
            "listed": listed,
        },
    )
    return cursor.rowcount == 1


async def fail(conn: Connection, due: Due, wait: float | None, folders: Mapping[str, Any], error: str) -> bool:
    """The end of one that did not, and why; how far it came. False: the claim was lost."""
    cursor = await conn.execute(
        """
        update mailboxes m set due_at = now() + %(wait)s::float8 * interval '1 second', claimed_until = null,
            error = %(error)s, failures = m.failures + 1, folders = %(folders)s
        where m.account_id = %(account)s and m.claim = %(claim)s and m.claimed_until is not null
        """,
        {"account": due.account, "claim": due.claim, "wait": wait, "folders": Jsonb(folders), "error": error},
    )
    return cursor.rowcount == 1


async def release(conn: Connection, held: Collection[Due]) -> None:
    """Gives claims back unsettled: somebody else may begin anew at once."""
    await conn.execute(
        """
        update mailboxes m set due_at = now(), claimed_until = null
        from unnest(%s::text[], %s::bigint[]) h (account_id, claim)
        where m.account_id = h.account_id and m.claim = h.claim and m.claimed_until is not null
        """,
        ([due.account for due in held], [due.claim for due in held]),
    )


async def hurry(conn: Connection, seconds: float) -> int:
    """Who waits for longer than that, and has sent mail since the last look, is looked at within so many seconds.

    Reports come minutes after the mail. One step in the index deliveries_done for each mailbox that waits.
    """
    cursor = await conn.execute(
        f"""
        update mailboxes m set due_at = now() + random() * %(seconds)s * interval '1 second'
        where m.due_at > now() + %(seconds)s * interval '1 second' and m.claimed_until is null and m.failures = 0
            and exists (
                select from deliveries d
                where d.account_id = m.account_id and d.state {states.DONE} and d.finished_at > m.looked_at)
        """.encode(),  # noqa: S608 - the text is ours
        {"seconds": seconds},
    )
    return cursor.rowcount


async def find(conn: Connection, account: str) -> Standing | None:
    """How the watch of the account's mailbox stands; None where there was never one."""
    async with conn.cursor(row_factory=class_row(Standing)) as cursor:
        await cursor.execute(
            """
            select looked_at, case when claimed_until is not null then least(due_at, now()) else due_at end as next_at,
                error, failures
            from mailboxes where account_id = %s
            """,
            (account,),
        )
        return await cursor.fetchone()


async def files(conn: Connection, account: str) -> bool | None:
    """Whether the provider files by itself what is sent; None while nobody knows."""
    known: bool | None = await scalar(conn, "select files from mailboxes where account_id = %s", (account,))
    return known


async def learn(conn: Connection, account: str, files: bool) -> bool | None:
    """The provider does so, or does not: its folders have shown it. What is known from now on.

    Of one that did, a copy that is not there may have been taken away by its owner, or be late: nobody knows then.
    """
    cursor = await conn.execute(
        "update mailboxes set files = case when %(files)s or files is not true then %(files)s end"
        " where account_id = %(account)s and files is distinct from %(files)s returning files",
        {"files": files, "account": account},
    )
    row = await cursor.fetchone()
    return row[0] if row else files


async def counts(conn: Connection) -> tuple[int, int, float]:
    """How many are watched, how many of them failed last time, and for how many seconds the first is overdue."""
    cursor = await conn.execute(
        """
        select count(*), count(*) filter (where error <> ''),
            coalesce(extract(epoch from now() - min(due_at)), 0)::float8
        from mailboxes where due_at is not null
        """
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], max(0.0, row[2])


async def failing(conn: Connection) -> list[str]:
    """Accounts whose mailbox is watched and failed at the last look, six at most."""
    cursor = await conn.execute(
        "select account_id from mailboxes where due_at is not null and error <> '' order by 1 limit 6"
    )
    return [account for (account,) in await cursor.fetchall()]
