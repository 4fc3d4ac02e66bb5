"""Endpoints: who wants to be told what, with secrets and custom headers sealed with the vault."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import dict_row

from relay.core import endpoint as settings_of
from relay.core import webhook
from relay.core.endpoint import Wanted
from relay.core.vault import Vault, VaultError
from relay.store.db import Connection, scalar
from relay.store.postings import WAITS

COLUMNS = (
    "id, account_id as account, url, events, description, headers, secret, managed, state::text, reason, failures,"
    " failing_since, created_at, updated_at, case when old_until > now() then old_secret end as old_secret,"
    " case when old_until > now() then old_until end as old_until"
)
PIECE = 5000  # postings that one statement forgets
COUNTED = 100_000  # of what waits
OFF = "Disabled by hand"
LOST = "Its secret or headers were sealed with a key that is gone: rotate its secret and give its headers again"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go. `account` None: those of all accounts; `events` empty: all of them."""

    id: int
    account: str | None
    url: str
    events: tuple[str, ...]
    description: str
    headers: Mapping[str, str] = field(repr=False)  # custom ones, as they were given
    secret: str = field(repr=False)  # "whsec_..."
    old_secret: str | None = field(repr=False)  # signs too: its time is not over
    managed: bool  # it is the account's own setting `webhooks`
    state: str  # active or disabled
    reason: str  # why it is disabled or gets nothing, or what its last failure was
    failures: int  # tries that failed in a row
    failing_since: datetime | None  # the first of them
    created_at: datetime
    updated_at: datetime
    old_until: datetime | None = None
    lost: bool = False  # its secret or headers were sealed with a key that is gone; what does not open is empty here

    @property
    def active(self) -> bool:
        return self.state == "active"

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.url, self.events, self.headers, self.description, self.active)


async def opened(conn: Connection, vault: Vault, ids: Sequence[int]) -> dict[int, Endpoint]:
    """These endpoints by id, ready to sign. Left out: what is gone, and what was sealed with a key that is lost."""
    found = await _rows(conn, vault, "id = any(%(ids)b)", {"ids": list(ids)})
    return {one.id: one for one in found if not one.lost}


async def find(
    conn: Connection, vault: Vault, id: int, *, account: str | None = None, lock: bool = False
) -> Endpoint | None:
    """The endpoint, if it is this account's where one is given; locked until the database transaction ends."""
    where = "id = %(id)s and (%(account)s::text is null or account_id = %(account)s)"
    found = await _rows(conn, vault, where, {"id": id, "account": account}, "for update" if lock else "")
    return found[0] if found else None


async def page(
    conn: Connection, vault: Vault, *, account: str | None = None, after: int = 0, skip: int = 0, size: int = 20
) -> tuple[int, list[Endpoint]]:
    """How many there are, and one page of them by age; `account` narrows to its own."""
    whose = "(%(account)s::text is null or account_id = %(account)s)"
    given = {"account": account, "after": after, "skip": skip, "size": size}
    found = await _rows(conn, vault, f"{whose} and id > %(after)s", given, "order by id offset %(skip)s limit %(size)s")
    return await scalar(conn, f"select count(*) from endpoints where {whose}", given), found  # noqa: S608


async def waiting(conn: Connection, id: int) -> tuple[int, datetime | None]:
    """How many of its postings wait (counted up to 100,000), and when the next of them is due."""
    cursor = await conn.execute(
        "select count(*), min(due_at) from"
        " (select due_at from postings where endpoint_id = %s and state = 'pending' order by due_at limit %s) p",
        (id, COUNTED),
    )
    row = await cursor.fetchone()
    return (row[0], row[1]) if row else (0, None)


async def add(
    conn: Connection, vault: Vault, account: str | None, wanted: Wanted, secret: str, *, managed: bool = False
) -> int | None:
    """Store a new one: its id. None: its account has as many as it may. LookupError: there is no such account."""
    async with conn.transaction():
        if not managed and await _full(conn, account):
            return None
        id: int = await scalar(conn, "select nextval(pg_get_serial_sequence('endpoints', 'id'))")
        try:
            await conn.execute(
                "insert into endpoints (id, account_id, url, events, description, headers, secret, managed, state,"
                " reason) overriding system value values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    *(id, account, wanted.url, list(wanted.events), wanted.description),
                    *(_sealed_headers(vault, id, wanted.headers), vault.seal(_place(id), "secret", secret), managed),
                    *(("active", "") if wanted.enabled else ("disabled", OFF)),
                ),
            )
        except ForeignKeyViolation:
            raise LookupError(f"there is no account {account}") from None
    return id


async def change(
    conn: Connection, vault: Vault, old: Endpoint, wanted: Wanted, *, headers: bool = True, afresh: bool = False
) -> None:
    """Make it as it is wanted; without `headers` they stay sealed as they are.

    Enabled again, or led elsewhere, past failures are forgotten; enabled again, what waits goes at once.
    `afresh`: as if it were enabled again, even if it is not disabled.
    """
    again = wanted.enabled and (afresh or not old.active)
    fresh = again or (wanted.enabled and wanted.url != old.url)
    await conn.execute(
        """
        update endpoints set url = %(url)s, events = %(events)s, description = %(description)s, updated_at = now(),
            headers = coalesce(%(headers)s, headers),
            state = case when %(fresh)s then 'active' when %(enabled)s then state else 'disabled' end,
            reason = case when %(fresh)s then '' when %(enabled)s or state = 'disabled' then reason else %(off)s end,
            failures = case when %(fresh)s then 0 else failures end,
            failing_since = case when %(fresh)s then null else failing_since end
        where id = %(id)s
        """,
        {
            "id": old.id,
            "url": wanted.url,
            "events": list(wanted.events),
            "description": wanted.description,
            "headers": _sealed_headers(vault, old.id, wanted.headers) if headers else None,
            "fresh": fresh,
            "enabled": wanted.enabled,
            "off": OFF,
        },
    )
    if again:
        await conn.execute(
            f"update postings p set due_at = now(), attempts = 0 where p.endpoint_id = %s and {WAITS}".encode(),  # noqa: S608
            (old.id,),
        )


async def rotate(conn: Connection, vault: Vault, old: Endpoint, secret: str, valid: float) -> None:
    """Sign with this secret from now on, and with the one before for `valid` more seconds."""
    kept = vault.seal(_place(old.id), "oldSecret", old.secret) if valid and old.secret else None
    await conn.execute(
        "update endpoints set secret = %s, old_secret = %s, updated_at = now(),"
        " old_until = case when %s then now() + %s * interval '1 second' end where id = %s",
        (vault.seal(_place(old.id), "secret", secret), kept, kept is not None, valid, old.id),
    )


async def remove(conn: Connection, id: int) -> None:
    """Forget it, with its log. Postings go first and piece by piece: asked for again, a removal goes on."""
    await conn.execute("update endpoints set state = 'disabled', reason = 'Being removed' where id = %s", (id,))
    while await _forget(conn, id, PIECE):
        pass
    await conn.execute("delete from endpoints where id = %s", (id,))


async def follow(conn: Connection, vault: Vault, account: str, url: str) -> None:
    """Make, move or remove the endpoint that is the account's own setting `webhooks`; "" is none.

    In the database transaction of that setting. Moved to another server, it leaves its custom headers behind.
    """
    found = await _rows(conn, vault, "account_id = %(account)s and managed", {"account": account}, "for update")
    if not found:
        if url:
            secret = webhook.new_secret(secrets.token_bytes(32))
            await add(conn, vault, account, Wanted(url), secret, managed=True)
        return
    old = found[0]
    if not url:  # its log goes by and by: the account's row is locked, and its mail would wait
        await conn.execute("delete from endpoints where id = %s", (old.id,))
        return
    stays = settings_of.same_place(old.url, url)
    wanted = Wanted(url, old.events, old.headers if stays else {}, old.description, enabled=True)
    await change(conn, vault, old, wanted, headers=not stays)


async def reseal(conn: Connection, vault: Vault) -> int:
    """Seal every secret and header again with the newest key. Tells how many endpoints it met."""
    ids = [row[0] for row in await (await conn.execute("select id from endpoints order by id")).fetchall()]
    for id in ids:
        async with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("select headers, secret, old_secret from endpoints where id = %s for update", (id,))
            if row := await cursor.fetchone():
                fresh = {name: token and vault.rotate(_place(id), _FIELDS[name], token) for name, token in row.items()}
                await cursor.execute(
                    "update endpoints set headers = %(headers)s, secret = %(secret)s, old_secret = %(old_secret)s"
                    " where id = %(id)s",
                    {"id": id, **fresh},
                )
    return len(ids)


_FIELDS = {"headers": "headers", "secret": "secret", "old_secret": "oldSecret"}


def _place(id: int) -> str:
    """What its secrets are bound to."""
    return f"endpoint/{id}"


def _sealed_headers(vault: Vault, id: int, headers: Mapping[str, str]) -> str:
    return vault.seal(_place(id), "headers", json.dumps(dict(headers))) if headers else ""


def _open(row: Mapping[str, Any], vault: Vault) -> Endpoint:
    plain: dict[str, str] = {}
    lost = False
    for name, field_ in _FIELDS.items():
        try:
            plain[name] = vault.open(_place(row["id"]), field_, row[name]) if row[name] else ""
        except VaultError:
            plain[name], lost = "", lost or name != "old_secret"
    headers = json.loads(plain.pop("headers") or "{}")
    parts = {**row, **plain, "events": tuple(row["events"]), "headers": headers, "lost": lost}
    reason = LOST if lost else row["reason"]
    return Endpoint(**{**parts, "reason": reason, "old_secret": plain["old_secret"] or None})


async def _rows(conn: Connection, vault: Vault, where: str, given: Mapping[str, Any], end: str = "") -> list[Endpoint]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"select {COLUMNS} from endpoints where {where} {end}".encode(), given)  # noqa: S608
        return [_open(row, vault) for row in await cursor.fetchall()]


async def _full(conn: Connection, account: str | None) -> bool:
    """Whether its account has as many as it may; whoever else asks waits until this database transaction ends."""
    await conn.execute("select pg_advisory_xact_lock(hashtextextended('endpoints ' || %s, 0))", (account or "",))
    own = "select count(*) from endpoints where account_id is not distinct from %s and not managed"
    return bool(await scalar(conn, own, (account,)) >= settings_of.MOST)


async def _forget(conn: Connection, id: int, most: int) -> int:
    query = """
        with gone as (
            delete from postings where id in (select id from postings where endpoint_id = %s limit %s) returning id
        ), posts as (delete from posts where posting_id in (select id from gone))
        select count(*) from gone
    """
    return int(await scalar(conn, query, (id, most)))
