"""Accounts: settings in the clear, secrets sealed with the vault and bound to account and field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from relay.core import account as settings_of
from relay.core.account import MASK, SECRETS, Fields
from relay.core.model import EventType
from relay.core.tenant import Account, AccountState
from relay.core.vault import Vault, VaultError
from relay.store import endpoints, facts, grants, mailboxes, parting, sentcopies, verifications
from relay.store.db import Connection, scalar

COLUMNS = (
    "id, name, email, state::text, reason, retry_at, config, secrets, had_upstream, suppresses, created_at, updated_at"
)

REMINDER = "tracking.alerts.unopened"

EVENTS = {
    AccountState.ACTIVE: EventType.ACCOUNT_RESUMED,
    AccountState.PAUSED: EventType.ACCOUNT_PAUSED,
    AccountState.REFUSED: EventType.AUTHENTICATION_ERROR,
}


@dataclass(frozen=True, slots=True)
class Row:
    """An account as it is stored."""

    id: str
    name: str
    email: str
    state: AccountState
    reason: str
    retry_at: datetime | None
    config: Mapping[str, Any]
    secrets: Mapping[str, str]
    had_upstream: bool
    suppresses: bool
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", AccountState(self.state))

    def fields(self, vault: Vault | None) -> Fields:
        """The settings; secrets opened with the vault, masked without one."""
        open_ = {
            key: vault.open(self.id, key, sealed) if vault else MASK
            for key, sealed in self.secrets.items()
            if key in SECRETS
        }
        return {"name": self.name, "email": self.email, **dict(settings_of.flatten(self.config)), **open_}

    def account(self, vault: Vault | None) -> Account:
        account = settings_of.build(self.id, self.state, self.reason, self.fields(vault))
        return replace(
            account,
            had_upstream=self.had_upstream,
            suppresses=self.suppresses,
            updated_at=self.updated_at,
            created_at=self.created_at,
        )


async def get(conn: Connection, vault: Vault | None, id: str) -> Account | None:
    """The account, with its secrets when a vault is given: whoever does not talk to upstream has no need of them."""
    row = await find(conn, id)
    return row.account(vault) if row else None


async def several(conn: Connection, ids: Sequence[str]) -> dict[str, Account]:
    """Those of these accounts that are there, without their secrets."""
    rows = await _rows(conn, f"select {COLUMNS} from accounts where id = any(%s)", (list(ids),)) if ids else []  # noqa: S608
    return {row.id: row.account(None) for row in rows}


async def by_email(conn: Connection, vault: Vault | None, email: str) -> list[Account]:
    """The accounts that send as this address; two may share one."""
    rows = await _rows(conn, f"select {COLUMNS} from accounts where email = %s and email <> ''", (email.lower(),))  # noqa: S608
    return [row.account(vault) for row in rows]


async def find(conn: Connection, id: str, *, lock: bool = False) -> Row | None:
    """The account's row; locked until the end of the database transaction where it is about to change."""
    rows = await _rows(conn, f"select {COLUMNS} from accounts where id = %s{' for update' if lock else ''}", (id,))  # noqa: S608
    return rows[0] if rows else None


async def page(
    conn: Connection,
    *,
    account: str | None = None,
    query: str = "",
    state: AccountState | None = None,
    after: str = "",
    skip: int = 0,
    size: int = 20,
    count: bool = True,
) -> tuple[int, list[Row]]:
    """How many match (0 unless `count`), and one page by id, from `after` on.

    `query` is looked for in id, name and email.
    """
    where = (
        "(%(account)s::text is null or id = %(account)s) and (%(state)s::account_state is null or state = %(state)s)"
        " and (%(query)s = '' or position(lower(%(query)s) in lower(id || ' ' || name || ' ' || email)) > 0)"
    )
    given = {"account": account, "query": query, "state": state, "after": after, "skip": skip, "size": size}
    total = 0
    if count:
        total = await scalar(conn, f"select count(*) from accounts where {where}", given)  # noqa: S608
    rows = await _rows(
        conn,
        f"select {COLUMNS} from accounts where {where} and id > %(after)s order by id offset %(skip)s limit %(size)s",  # noqa: S608
        given,
    )
    return total, rows


async def save(
    conn: Connection, vault: Vault, id: str, change: Callable[[Fields], Fields], *, make: bool = True
) -> bool:
    """Store `change(the settings as they are)`, with secrets in the clear on both sides. True: the account is new.

    Without `make`, one that is not there is a LookupError.

    A secret whose key is lost is masked in them: it can be given anew, and stays sealed as it is when it is not.
    Whatever `change` raises leaves everything as it was. When the upstream changes, past failures are forgotten; when
    that or the mailbox does, they are to be verified.
    """
    async with conn.transaction():
        made = False
        while (row := await find(conn, id, lock=True)) is None:  # one that is being removed is waited for, and gone
            if not make:
                raise LookupError(f"there is no account {id}")
            added = await conn.execute("insert into accounts (id) values (%s) on conflict do nothing", (id,))
            made = added.rowcount == 1
        if made:
            await parting.forget(conn, id)  # what came in at the very moment when an account of the same id was removed
        old = {} if made else _openable(row, vault)
        new = change(dict(old))
        plain = {k: v for k, v in new.items() if k not in SECRETS | {"name", "email"}}
        # What did not change keeps its sealed form, so that `updated_at` alone tells of an empty change.
        sealed = {
            k: row.secrets[k] if old.get(k) == v and k in row.secrets else vault.seal(id, k, v)
            for k, v in new.items()
            if k in SECRETS
        }
        await conn.execute(
            "update accounts set name = %s, email = %s, config = %s, secrets = %s, updated_at = now(),"
            " had_upstream = had_upstream or %s where id = %s",
            (
                *(new.get("name", ""), new.get("email", "")),
                *(Jsonb(settings_of.nest(plain)), Jsonb(sealed)),
                *("smtp.host" in new or "mailgun.domain" in new, id),
            ),
        )
        if _upstream(old) != _upstream(new):
            await _try_again(conn, id)
        if _upstream(old) != _upstream(new) or _mailbox(old) != _mailbox(new):
            await verifications.want(conn, id)
            await sentcopies.changed(conn, id)
        if _mailbox(old) != _mailbox(new) or _owner(old) != _owner(new):
            await _watch(conn, id, old, new)
        if _told_tokens(old) != _told_tokens(new):
            await grants.forget(conn, id)
        if new.get(REMINDER) and not old.get(REMINDER):
            await _remind_from_now(conn, id, settings_of.build(id, row.state, "", new).alerts.unopened_days)
        if old.get("webhooks", "") != new.get("webhooks", ""):
            await endpoints.follow(conn, vault, id, new.get("webhooks", ""))
    return made


async def set_state(
    conn: Connection, id: str, state: AccountState, reason: str, *, expect: Sequence[AccountState] = ()
) -> bool:
    """Move an account to a state, with the event that tells of it. False: not there, or not in a state of `expect`.

    A refused login never overrides an operator's pause, whatever `expect` says.
    """
    expect = expect or tuple(AccountState)
    if state is AccountState.REFUSED:
        expect = tuple(one for one in expect if one is not AccountState.PAUSED)
    result = await conn.execute(
        """
        with old as (select id, state from accounts where id = %(id)s for update),
        changed as (
            update accounts a set state = %(state)s, reason = %(reason)s, retry_at = null, updated_at = now(),
                failures = case when %(state)s::account_state = 'active' then 0 else a.failures end
            from old where a.id = old.id and old.state = any(%(expect)s::account_state[]) returning old.state
        ),
        told as (
            insert into events (account_id, type, data)
            select %(id)s, %(event)s, %(data)s::jsonb from changed where state <> %(state)s::account_state
        )
        select count(*) from changed
        """,
        {
            "id": id,
            "state": state,
            "reason": reason,
            "expect": list(expect),
            "event": EVENTS[state],
            "data": _told(state, reason),
        },
    )
    row = await result.fetchone()
    return bool(row and row[0])


def _told(state: AccountState, reason: str) -> str:
    """The data of a state's event, as JSON."""
    if state is AccountState.REFUSED:
        return facts.trouble(reason, None)
    return json.dumps({} if state is AccountState.ACTIVE else {"reason": reason})


async def reseal(conn: Connection, vault: Vault) -> int:
    """Seal every secret again with the newest key, so that old ones can be retired. Tells how many accounts it met."""
    ids = [row[0] for row in await (await conn.execute("select id from accounts where secrets <> '{}'")).fetchall()]
    for id in ids:
        async with conn.transaction():
            if row := await find(conn, id, lock=True):
                sealed = {key: vault.rotate(id, key, token) for key, token in row.secrets.items()}
                await conn.execute("update accounts set secrets = %s where id = %s", (Jsonb(sealed), id))
                await grants.reseal(conn, vault, id)
    return len(ids)


def _openable(row: Row, vault: Vault) -> Fields:
    opened = {}
    for key in row.secrets.keys() & SECRETS:
        with suppress(VaultError):
            opened[key] = vault.open(row.id, key, row.secrets[key])
    return {**row.fields(None), **opened}


async def _try_again(conn: Connection, id: str) -> None:
    await set_state(conn, id, AccountState.ACTIVE, "", expect=(AccountState.ACTIVE, AccountState.REFUSED))


async def _remind_from_now(conn: Connection, id: str, days: int) -> None:
    """What was due for a reminder before the account asked, or was told before it stopped asking, stays untold."""
    await conn.execute(
        "update accounts set reminded_until = greatest(reminded_until, now() - make_interval(days => %s))"
        " where id = %s",
        (days, id),
    )


async def _watch(conn: Connection, id: str, old: Fields, new: Fields) -> None:
    """As the settings of its mailbox want it from now on."""
    if "imap.host" in old or "imap.host" in new:
        imap = settings_of.build(id, AccountState.ACTIVE, "", new).imap
        await mailboxes.want(conn, id, watched=bool(imap and imap.watch), moved=_owner(old) != _owner(new))


def _owner(fields: Fields) -> tuple[Any, ...]:
    """Whose mailbox it is, and where."""
    user = fields.get("imap.auth.user") or fields.get("oauth2.auth.user") or fields.get("email")
    return (fields.get("imap.host"), user) if "imap.host" in fields else ()


def _upstream(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if key.startswith(("smtp.", "mailgun.", "oauth2."))}


def _mailbox(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if key.startswith(("imap.", "oauth2."))}


def _told_tokens(fields: Fields) -> Fields:
    """What an access token was had with, and who is told it."""
    named = {key: value for key, value in fields.items() if key in ("smtp.host", "imap.host")}
    return named | {key: value for key, value in fields.items() if key.startswith("oauth2.")}


async def _rows(conn: Connection, query: str, given: Mapping[str, Any] | Sequence[Any]) -> list[Row]:
    async with conn.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(query.encode(), given)
        return await cursor.fetchall()
