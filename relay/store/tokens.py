"""API tokens: 256 random bits shown once, kept as their SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import class_row

from relay.store.db import Connection, scalar

SCOPES = ("api", "smtp", "metrics", "*")
NEVER = datetime.fromtimestamp(0, UTC)
PREFIX = "pf_"  # so that scanners of leaked secrets know one
LENGTH = len(PREFIX) + 43


@dataclass(frozen=True, slots=True)
class Token:
    """Who asks: what they may do, and for which account (None: all of them)."""

    id: int
    scopes: tuple[str, ...]
    account: str | None
    description: str = ""
    created_at: datetime = NEVER

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", tuple(self.scopes))

    def allows(self, scope: str) -> bool:
        return scope in self.scopes or "*" in self.scopes


def digest(plaintext: str) -> bytes:
    """What is kept of a token. It is random, so a plain hash cannot be guessed back."""
    return hashlib.sha256(plaintext.encode(errors="surrogateescape")).digest()


async def create(conn: Connection, scopes: Sequence[str], account: str | None = None, description: str = "") -> str:
    """A new token's plaintext: the only time that it is seen. LookupError when there is no such account."""
    made = await add(conn, scopes, account, description)
    if made is None:
        raise LookupError(f"there is no account {account}")
    return made[1]


async def add(
    conn: Connection, scopes: Sequence[str], account: str | None, description: str
) -> tuple[Token, str] | None:
    """A new token and its plaintext; None when there is no such account."""
    plaintext = PREFIX + secrets.token_urlsafe(32)
    async with conn.cursor(row_factory=class_row(Token)) as cursor:
        try:
            await cursor.execute(
                "insert into tokens (hash, scopes, account_id, description) values (%s, %s, %s, %s)"
                " returning id, scopes, account_id as account, description, created_at",
                (digest(plaintext), list(dict.fromkeys(scopes)), account, description),
            )
        except ForeignKeyViolation:
            return None
        token = await cursor.fetchone()
    assert token is not None
    return token, plaintext


async def find(conn: Connection, plaintext: str) -> Token | None:
    """The token, unless it was revoked or never was."""
    return await find_digest(conn, digest(plaintext))


async def find_digest(conn: Connection, hash: bytes) -> Token | None:
    async with conn.cursor(row_factory=class_row(Token)) as cursor:
        await cursor.execute(
            "select id, scopes, account_id as account, description, created_at from tokens where hash = %s", (hash,)
        )
        return await cursor.fetchone()


async def page(
    conn: Connection, *, account: str | None = None, after: int = 0, skip: int = 0, size: int = 1000
) -> tuple[int, list[Token]]:
    """How many there are, and one page of them by age; `account` narrows to the tokens bound to it."""
    async with conn.cursor(row_factory=class_row(Token)) as cursor:
        await cursor.execute(
            "select id, scopes, account_id as account, description, created_at from tokens"
            " where (%(account)s::text is null or account_id = %(account)s) and id > %(after)s"
            " order by id offset %(skip)s limit %(size)s",
            {"account": account, "after": after, "skip": skip, "size": size},
        )
        tokens = await cursor.fetchall()
    count = "select count(*) from tokens where %(account)s::text is null or account_id = %(account)s"
    return await scalar(conn, count, {"account": account}), tokens


async def revoke(conn: Connection, id: int) -> bool:
    """False when there is no such token."""
    return (await conn.execute("delete from tokens where id = %s", (id,))).rowcount == 1
