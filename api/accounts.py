"""Accounts over HTTP: made, changed, shown without their secrets, deleted with all of their mail."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field

from api.call import Call, unknown
from api.problems import Problem
from api.shapes import AccountId, Answer, Instant, Listing, Paging, Words
from api.tenant import Change, New
from api.verified import Known
from relay import accountview, enrol
from relay.core.tenant import AccountState
from relay.store import accounts, db


class Saved(Answer):
    account: str
    state: Literal["new", "existing"]
    warnings: list[str] | None = Field(
        default=None, description="What is saved and may surprise: another account has the `email` that was given."
    )

    def json_bytes(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)


class Deleted(Answer):
    account: str
    deleted: bool


class Shown(Answer):
    """An account. Secrets show as `******` where there is one."""

    account: str
    name: str
    email: str
    state: AccountState = Field(
        description="`active`; `paused` by an operator; `refused`: its server refuses the login, which is tried again."
    )
    reason: str = Field(description="Why it is paused or refused, or what its server last did wrong.")
    retry_at: Instant | None = Field(description="Nothing is sent before.")
    smtp: dict[str, Any] | None
    imap: dict[str, Any] | None
    mailgun: dict[str, Any] | None
    oauth2: dict[str, Any] | None = Field(description="With `refreshToken` once it is connected.")
    copy_: bool | Literal["auto", "append", "replace", "none"]
    locale: str
    tz: str
    webhooks: str | None
    limits: dict[str, Any]
    tracking: dict[str, Any]
    created: Instant
    updated: Instant


class Watch(Answer):
    """How the watch of the mailbox for bounces and complaints stands."""

    looked_at: Instant | None = Field(description="The last look that went well; null before the first.")
    next_at: Instant | None = Field(description="When it is looked at next; null while it is not watched.")
    error: str | None = Field(description="Why it could not be looked at last time; null where it could.")


class Whole(Shown):
    """An account, and how its servers fare."""

    mailbox: Watch | None = Field(description="How it is watched; null where there never was one.")
    verification: Known | None = Field(description="What the last verification found; null where there was none.")


class Accounts(Listing):
    items: list[Shown]


class Search(Paging):
    query: Words = Field("", description="Words of the id, name or email.")
    state: AccountState | None = Field(None, description="Only those in this state.")


async def create(call: Call, body: New) -> Saved:
    """Make an account, or change the one that has this id.

    400 names every field that cannot be used; then nothing was changed.
    """
    if body.account is None:
        call.check_unbound()
    id = body.account or secrets.token_hex(8)
    call.check_account(id)
    return await _save(call, id, body)


async def change(call: Call, account: AccountId, body: Change) -> Saved:
    """Change an account. A new `smtp.host` needs its secrets again: they were given for the old one."""
    call.house.directory.forget(account)
    await call.account(account)
    try:
        return await _save(call, account, body, make=False)
    except LookupError:  # it was removed meanwhile
        raise unknown(account) from None


async def _save(call: Call, id: str, body: Change, *, make: bool = True) -> Saved:
    house = call.house
    if "email" in body.model_fields_set:
        await _check_email(call, id, body.email)
    new = await enrol.save(house.pool, house.vault, house.settings, id, body.given(), make=make)
    house.directory.forget(id)
    house.waker.wake(id)
    return Saved(account=id, state="new" if new else "existing", warnings=await _warnings(call, id, body))


async def _warnings(call: Call, id: str, body: Change) -> list[str] | None:
    """Whose email was taken; a token for one account is not told of others."""
    if "email" not in body.model_fields_set or call.token.account is not None:
        return None
    async with db.connection(call.house.pool) as conn:
        shared = await enrol.shared(conn, id)
    return [shared] if shared else None


async def _check_email(call: Call, id: str, email: str | None) -> None:
    """By its email, mail of trusted SMTP clients finds its account: who could take another's would take their mail."""
    async with db.connection(call.house.pool) as conn:
        row = await accounts.find(conn, id)
    if call.token.account is not None and (email or "").lower() != (row.email if row else ""):
        why = "This token is for one account; its email, which decides whose mail is whose, is set with one for all"
        raise Problem(403, why, code="BoundToken")


async def show(call: Call, account: AccountId) -> Whole:
    """An account's settings and state, and what was found of its servers."""
    async with db.connection(call.house.pool) as conn:
        row = await accounts.find(conn, account)
        if row is None:
            raise unknown(account)
        return Whole(**await accountview.whole(conn, row))


async def delete(call: Call, account: AccountId) -> Deleted:
    """Delete an account with its tokens and all of its mail, sent or not. There is no way back."""
    deleted = await enrol.delete(call.house.pool, account)
    call.house.directory.forget(account)
    if not deleted:
        raise unknown(account)
    return Deleted(account=account, deleted=True)


async def page(call: Call, query: Search) -> Accounts:
    """All accounts, by id; a token that is bound to one sees that one."""
    at = query.after(AccountId)
    async with db.connection(call.house.pool) as conn:
        total, rows = await accounts.page(
            conn,
            account=await call.narrowed(),
            query=query.query,
            state=query.state,
            after=at[2] if at else "",
            skip=query.skip,
            size=query.page_size,
            count=at is None,
        )
    frame = query.frame(at, total, len(rows), rows[-1].id if rows else "")
    return Accounts(**frame, items=[Shown(**accountview.shown(row)) for row in rows])
