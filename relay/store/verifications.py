"""Verifications: whose servers are to be looked at, and what was last found of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from relay.store import states
from relay.store.db import Connection

SPARED = 10.0  # seconds between two looks at one account, however often it is saved
Found = Mapping[str, Any]
"""What was found of one server, as core/verification.py tells it."""


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed account. `smtp`, `imap`: what was last found, of these settings or of earlier ones."""

    account: str
    wanted: int
    fresh: bool  # nothing was found of these settings yet
    tries: int
    smtp: Found | None
    imap: Found | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What is known of an account's servers. Of settings that have not been looked at, nothing is."""

    at: datetime | None
    pending: bool
    smtp: Found | None
    imap: Found | None


async def want(conn: Connection, account: str) -> None:
    """The account's servers were changed: look at them."""
    await conn.execute(
        f"""
        insert into verifications as v (account_id, wanted) values (%s, {states.FIRST_COUNT})
        on conflict (account_id) do update set wanted = v.wanted + 1, tries = 0,
            due_at = greatest(now(), v.at + %s * interval '1 second')
        """.encode(),  # noqa: S608 - the text is ours
        (account, SPARED),
    )


async def claim(conn: Connection, most: int, seconds: float) -> list[Due]:
    """Up to `most` that are due, the longest waiting first; nobody else is given them for so many seconds."""
    async with conn.cursor(row_factory=class_row(Due)) as cursor:
        await cursor.execute(
            """
            with picked as (
                select account_id from verifications
                where due_at <= now() and coalesce(claimed_until <= now(), true)
                order by due_at limit %(most)s for update skip locked
            )
            update verifications v set claimed_until = now() + %(seconds)s * interval '1 second'
            from picked p where v.account_id = p.account_id
            returning v.account_id as account, v.wanted, v.found < v.wanted as fresh, v.tries, v.smtp, v.imap
            """,
            {"most": most, "seconds": seconds},
        )
        return await cursor.fetchall()


async def claim_one(conn: Connection, account: str, seconds: float) -> Due | None:
    """This account, due or not; None while somebody else has claimed it, and where there is none of this name."""
    async with conn.cursor(row_factory=class_row(Due)) as cursor:
        await cursor.execute(
            f"""
            insert into verifications as v (account_id, wanted, claimed_until)
            select id, {states.FIRST_COUNT}, now() + %s * interval '1 second' from accounts where id = %s
            for key share
            on conflict (account_id) do update set claimed_until = excluded.claimed_until
            where coalesce(v.claimed_until <= now(), true)
            returning v.account_id as account, v.wanted, v.found < v.wanted as fresh, v.tries, v.smtp, v.imap
            """.encode(),  # noqa: S608 - the text is ours
            (seconds, account),
        )
        return await cursor.fetchone()


async def settle(conn: Connection, due: Due, smtp: Found | None, imap: Found | None, again: float | None) -> bool:
    """What was found; `again`: seconds until the next look, None for none. False: it is of settings gone by."""
    cursor = await conn.execute(
        """
        update verifications set claimed_until = null, at = now(), found = %(wanted)s, smtp = %(smtp)s, imap = %(imap)s,
            tries = case when %(again)s::float8 is null then 0 else tries + 1 end,
            due_at = now() + %(again)s::float8 * interval '1 second'
        where account_id = %(account)s and wanted = %(wanted)s
        """,
        {
            "account": due.account,
            "wanted": due.wanted,
            "smtp": None if smtp is None else Jsonb(smtp),
            "imap": None if imap is None else Jsonb(imap),
            "again": again,
        },
    )
    if cursor.rowcount == 0:
        await conn.execute(
            "update verifications set claimed_until = null,"
            " due_at = greatest(due_at, now() + %s * interval '1 second') where account_id = %s",
            (SPARED, due.account),
        )
    return cursor.rowcount == 1


async def find(conn: Connection, account: str) -> Verification | None:
    """What is known of the account's servers; None where nobody ever asked."""
    async with conn.cursor(row_factory=class_row(Verification)) as cursor:
        await cursor.execute(
            """
            select case when found = wanted then at end as at, found < wanted as pending,
                case when found = wanted then smtp end as smtp, case when found = wanted then imap end as imap
            from verifications where account_id = %s
            """,
            (account,),
        )
        return await cursor.fetchone()
