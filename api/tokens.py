"""API tokens over HTTP. For tokens that are not bound to an account: a tenant's token cannot make others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.call import Call
from api.problems import Problem
from api.shapes import ONE_LINE, AccountId, Answer, Body, Instant, Listing, Paging, RowId
from relay.store import db, tokens

Scope = Literal["api", "smtp", "metrics", "*"]
TokenId = Annotated[RowId, Field(description="The token's number in the list.")]


class New(Body):
    scopes: list[Scope] = Field(min_length=1, description="`api`, `smtp`, `metrics`, or `*` for all of them.")
    account: AccountId | None = Field(None, description="The one account it is for; all when left out.")
    description: str = Field("", max_length=1000, pattern=ONE_LINE, description="What it is for, in your words.")


class Shown(Answer):
    id: int
    scopes: list[str]
    account: str | None = Field(description="The one account it is for; null: all.")
    description: str
    created: Instant


class Made(Shown):
    token: str = Field(description="The token itself. It is shown this once and kept nowhere.")


class Revoked(Answer):
    id: int
    deleted: bool


class Tokens(Listing):
    items: list[Shown]


class Search(Paging):
    account: AccountId | None = Field(None, description="Only those bound to this account.")


async def page(call: Call, query: Search) -> Tokens:
    """The tokens, oldest first, without their text. A token that is bound to an account sees that account's."""
    at = query.after(RowId)
    account = await call.narrowed(query.account)
    async with db.connection(call.house.pool) as conn:
        total, found = await tokens.page(
            conn,
            account=account,
            after=at[2] if at else 0,
            skip=query.skip,
            size=query.page_size,
        )
    frame = query.frame(at, total, len(found), found[-1].id if found else 0)
    return Tokens(**frame, items=[_shown(token) for token in found])


async def create(call: Call, body: New) -> Made:
    """Make a token. 404 when the account it shall be for is not there."""
    call.check_unbound()
    missing = [scope for scope in body.scopes if not call.token.allows(scope)]
    if missing:
        raise Problem(403, f"This token lacks the scope {missing[0]}, so it cannot give it", code="MissingScope")
    async with db.connection(call.house.pool) as conn:
        made = await tokens.add(conn, body.scopes, body.account, body.description)
    if made is None:
        raise Problem(404, f"There is no account {body.account}", code="AccountNotFound")
    token, plaintext = made
    return Made(**_shown(token).model_dump(), token=plaintext)


async def revoke(call: Call, token: TokenId) -> Revoked:
    """Revoke a token. It opens nothing more within a second, at every door."""
    call.check_unbound()
    async with db.connection(call.house.pool) as conn:
        if not await tokens.revoke(conn, token):
            raise Problem(404, f"There is no token {token}", code="TokenNotFound")
    return Revoked(id=token, deleted=True)


def _shown(token: tokens.Token) -> Shown:
    return Shown(
        id=token.id,
        scopes=list(token.scopes),
        account=token.account,
        description=token.description,
        created=token.created_at,
    )
