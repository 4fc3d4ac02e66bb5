"""OAuth2 access tokens, sealed, each refreshed by whoever has the claim; and authorisations that somebody began.

A refresh token that the issuer replaced goes into the account's secrets in the same database transaction as the access
token that came with it. The account's `updated_at` stays what it is: nobody changed its settings.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row

from relay.core.vault import Vault, VaultError
from relay.store.db import Connection

TOKEN = "oauth2.accessToken"  # noqa: S105 - what the sealed ones are bound to, as fields of the account
REFRESH = "oauth2.refreshToken"
VERIFIER = "oauth2.verifier"
MOST_BEGUN = 20  # authorisations of one account at a time; the oldest give way


@dataclass(frozen=True, slots=True)
class Grant:
    """What there is of an account's token; both tokens sealed. `seconds`: that it lives, of `life` in all."""

    current: bool  # the settings are those that were asked about
    refresh: str | None = field(repr=False)
    token: str | None = field(repr=False)
    seconds: float | None
    life: float | None
    claimed: bool
    refused: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An authorisation that was begun; it can be taken once. `verifier` is sealed."""

    account: str
    verifier: str = field(repr=False)
    settings: str
    live: bool


async def look(conn: Connection, account: str, seen: datetime | None) -> Grant | None:
    """`seen`: the `updated_at` of the settings that are known. None: there is no such account."""
    async with conn.cursor(row_factory=class_row(Grant)) as cursor:
        await cursor.execute(
            """
            select a.updated_at is not distinct from %s as current, a.secrets ->> %s as refresh, g.token,
                extract(epoch from g.expires_at - now())::float8 as seconds,
                extract(epoch from g.expires_at - g.updated_at)::float8 as life,
                coalesce(g.claimed_until > now(), false) as claimed, g.refused, coalesce(g.error, '') as error
            from accounts a left join grants g on g.account_id = a.id where a.id = %s
            """,
            (seen, REFRESH, account),
        )
        return await cursor.fetchone()


async def claim(conn: Connection, account: str, seconds: float, *, refresh: str | None = None) -> datetime | None:
    """The right to refresh it, for so long at most, and its fence; None where somebody else has it.

    Or has had it: `refresh` is the sealed refresh token that was seen, and has another taken its place, it is spent.
    """
    cursor = await conn.execute(
        """
        insert into grants as g (account_id, claimed_until)
        select id, now() + %s * interval '1 second' from accounts
        where id = %s and secrets ->> %s is not distinct from coalesce(%s, secrets ->> %s)
        on conflict (account_id) do update set claimed_until = excluded.claimed_until, error = ''
        where coalesce(g.claimed_until <= now(), true)
        returning claimed_until
        """,
        (seconds, account, REFRESH, refresh, REFRESH),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Fresh:
    """An access token for `seconds`, and the refresh token that takes the place of the one `used`, or ""."""

    token: str = field(repr=False)
    seconds: float
    used: str = field(repr=False)
    rotated: str = field(repr=False)


async def keep(
    conn: Connection, vault: Vault, account: str, seen: datetime | None, claim: datetime, fresh: Fresh
) -> bool:
    """Ends the claim with a token. False: of settings gone by, or of a claim that ended; then it is not kept.

    The rotated refresh token is kept whenever the account still has the one that it replaces.
    """
    async with conn.transaction():
        cursor = await conn.execute(
            "select secrets ->> %s, updated_at is not distinct from %s from accounts where id = %s for update",
            (REFRESH, seen, account),
        )
        row = await cursor.fetchone()
        if row is None:
            return False
        sealed, current = row
        if fresh.rotated and fresh.rotated != fresh.used and _opened(vault, account, sealed) == fresh.used:
            await _replace(conn, vault, account, fresh.rotated)
        token = vault.seal(account, TOKEN, fresh.token) if current else None
        kept = await conn.execute(
            """
            update grants set claimed_until = null, token = %s, expires_at = now() + %s * interval '1 second',
                refused = null, error = '', updated_at = now()
            where account_id = %s and claimed_until = %s
            """,
            (token, fresh.seconds, account, claim),
        )
        return bool(current) and kept.rowcount == 1


async def put(conn: Connection, vault: Vault, account: str, token: str, seconds: float) -> None:
    """The token that came with a new refresh token: whatever was there is of the one before."""
    await conn.execute(
        """
        insert into grants (account_id, token, expires_at)
        values (%(id)s, %(token)s, now() + %(s)s * interval '1 second')
        on conflict (account_id) do update set token = excluded.token, expires_at = excluded.expires_at,
            claimed_until = null, refused = null, error = '', updated_at = now()
        """,
        {"id": account, "token": vault.seal(account, TOKEN, token), "s": seconds},
    )


async def rest(conn: Connection, account: str, claim: datetime, error: str, seconds: float) -> None:
    """Ends the claim without a token: the issuer is away, and is asked again after `seconds`."""
    await conn.execute(
        "update grants set claimed_until = now() + %s * interval '1 second', error = %s"
        " where account_id = %s and claimed_until = %s",
        (seconds, error, account, claim),
    )


async def refuse(conn: Connection, account: str, claim: datetime, error: str, refused: str | None) -> bool:
    """Ends the claim with a refusal. `refused`: the hash of a refresh token that will never do again.

    False: the claim has ended, and the refusal may be of a token that somebody else has used since.
    """
    cursor = await conn.execute(
        """
        update grants set claimed_until = null, error = %(error)s, refused = %(refused)s,
            token = case when %(refused)s::text is null then token end
        where account_id = %(account)s and claimed_until = %(claim)s
        """,
        {"error": error, "refused": refused, "account": account, "claim": claim},
    )
    return cursor.rowcount == 1


async def forget(conn: Connection, account: str) -> None:
    """The settings that the token was had with are others now."""
    await conn.execute("delete from grants where account_id = %s", (account,))


async def reseal(conn: Connection, vault: Vault, account: str) -> None:
    """With the newest key; what cannot be opened is had anew."""
    cursor = await conn.execute("select token from grants where account_id = %s and token is not null", (account,))
    for (token,) in await cursor.fetchall():
        sealed = None
        with suppress(VaultError):
            sealed = vault.rotate(account, TOKEN, token)
        await conn.execute(
            "update grants set token = %s where account_id = %s and token = %s", (sealed, account, token)
        )


async def begin(conn: Connection, state: bytes, account: str, verifier: str, settings: str, seconds: float) -> datetime:
    """Remembers an authorisation by the hash of its state, until when; `verifier` is sealed."""
    async with conn.transaction():
        await conn.execute("delete from authorisations where expires_at < now()")
        await conn.execute(
            "delete from authorisations where state in (select state from authorisations where account_id = %s"
            " order by expires_at desc offset %s)",
            (account, MOST_BEGUN - 1),
        )
        cursor = await conn.execute(
            "insert into authorisations (state, account_id, verifier, settings, expires_at)"
            " values (%s, %s, %s, %s, now() + %s * interval '1 second') returning expires_at",
            (state, account, verifier, settings, seconds),
        )
        row = await cursor.fetchone()
        assert row is not None
        expires: datetime = row[0]
        return expires


async def take(conn: Connection, state: bytes) -> Begun | None:
    """The authorisation of this state, which nobody gets again."""
    async with conn.cursor(row_factory=class_row(Begun)) as cursor:
        await cursor.execute(
            "delete from authorisations where state = %s"
            " returning account_id as account, verifier, settings, expires_at > now() as live",
            (state,),
        )
        return await cursor.fetchone()


def _opened(vault: Vault, account: str, sealed: str | None) -> str | None:
    with suppress(VaultError):
        return vault.open(account, REFRESH, sealed) if sealed else None
    return None


async def _replace(conn: Connection, vault: Vault, account: str, refresh: str) -> None:
    await conn.execute(
        "update accounts set secrets = secrets || jsonb_build_object(%s::text, %s::text) where id = %s",
        (REFRESH, vault.seal(account, REFRESH, refresh), account),
    )
