"""Webhook endpoints over HTTP: made, changed, given another secret, removed. Secrets are shown once."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from api.call import Call
from api.shapes import AccountId, Answer, Body, Instant, Listing, Paging, RowId
from relay import subscribe
from relay.core.endpoint import ALL, EVENTS
from relay.store import endpoints

EndpointId = Annotated[RowId, Field(description="The endpoint's number in the list.")]
EventName = Annotated[str, Field(json_schema_extra={"enum": [*EVENTS, *ALL]})]

BRING = "`whsec_` and 24 to 64 bytes in base64; made when left out. Write-only: shown in this answer alone."


class Change(Body):
    """An endpoint's settings. What is left out stays as it is; null is the default."""

    url: str | None = Field(
        None,
        description="Where events are posted: http or https, without user, password or fragment. Hosts that are not "
        "public are refused unless the operator allows their network.",
    )
    events: list[EventName] | None = Field(None, description="Names of events; empty: all of them.")
    headers: dict[str, str] | None = Field(
        None,
        description="Headers that each post has beside ours, at most 20. Values show as `******`, which, given back, "
        "means as it was; they are given again when the host of `url` changes.",
    )
    description: str | None = Field(None, description="What it is for, in your words.")
    enabled: bool | None = Field(
        None, description="False: nothing is posted. True again: past failures are forgotten, what waits goes at once."
    )

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"account", "secret"})


class New(Change):
    account: AccountId | None = Field(
        None, description="The one account whose events it gets. Left out: the token's own; of a token for all, all."
    )
    secret: str | None = Field(None, description=BRING)


class Rotate(Body):
    secret: str | None = Field(None, description=BRING)
    valid_seconds: int = Field(
        int(subscribe.VALID),
        ge=0,
        le=int(subscribe.LONGEST_VALID),
        description="How long the present secret signs too, beside the new one. Default: a day.",
    )


class Shown(Answer):
    """An endpoint, without its secret."""

    id: int
    account: str | None = Field(description="The one account whose events it gets; null: all accounts.")
    url: str
    events: list[str] = Field(description="Empty: all events.")
    headers: dict[str, str] = Field(description="Custom headers, values masked.")
    description: str
    enabled: bool
    reason: str = Field(description="Why it is disabled, or what its last failure was.")
    failures: int = Field(description="Tries that failed in a row.")
    failing_since: Instant | None
    managed: bool = Field(description="It is the account's own setting `webhooks`: it moves and goes with that.")
    old_secret_until: Instant | None = Field(description="Until then the secret before the present one signs too.")
    created: Instant
    updated: Instant


class Detail(Shown):
    waiting: int = Field(description="Postings that wait for their first or next try, counted up to 100,000.")
    next_try: Instant | None = Field(description="When the first of them is due.")


class Secret(Answer):
    """A secret that is shown this once."""

    id: int
    secret: str
    old_secret_until: Instant | None


class Made(Shown):
    secret: str = Field(description="Verifies what is posted. It is shown this once; rotate to get another.")


class Endpoints(Listing):
    items: list[Shown]


class Deleted(Answer):
    id: int
    deleted: bool


class Search(Paging):
    account: AccountId | None = Field(None, description="Only those of this account.")


async def page(call: Call, query: Search) -> Endpoints:
    """Endpoints, the oldest first. A token that is bound to an account sees those of that account."""
    at = query.after(int)
    account = await call.narrowed(query.account)
    async with call.turn() as conn:
        total, found = await endpoints.page(
            conn,
            call.house.vault,
            account=account,
            after=at[2] if at else 0,
            skip=query.skip,
            size=query.page_size,
        )
    frame = query.frame(at, total, len(found), found[-1].id if found else 0)
    return Endpoints(**frame, items=[Shown(**subscribe.shown(one)) for one in found])


async def create(call: Call, body: New) -> Made:
    """Make an endpoint. Its secret is in this answer and in no other.

    An account has at most 20 of them, and there are as many for all accounts.
    """
    house, account = call.house, await call.narrowed(body.account)
    async with call.turn() as conn:
        one = await subscribe.add(conn, house.vault, house.settings, account, body.given(), body.secret or "")
    return Made(**subscribe.shown(one), secret=one.secret)


async def show(call: Call, endpoint: EndpointId) -> Detail:
    """An endpoint, and how much waits for it."""
    async with call.turn() as conn:
        one = await subscribe.found(conn, call.house.vault, endpoint, call.token.account)
        waiting, due = await endpoints.waiting(conn, endpoint)
    return Detail(**subscribe.shown(one), waiting=waiting, next_try=due)


async def change(call: Call, endpoint: EndpointId, body: Change) -> Shown:
    """Change an endpoint, or enable it again.

    The URL of a managed one is the setting `webhooks` of its account, and is changed there.
    """
    house = call.house
    async with call.turn() as conn:
        one = await subscribe.change(conn, house.vault, house.settings, endpoint, call.token.account, body.given())
    return Shown(**subscribe.shown(one))


async def delete(call: Call, endpoint: EndpointId) -> Deleted:
    """Delete an endpoint with its log and what waits for it. There is no way back."""
    async with call.turn() as conn:
        await subscribe.remove(conn, call.house.vault, endpoint, call.token.account)
    return Deleted(id=endpoint, deleted=True)


async def rotate(call: Call, endpoint: EndpointId, body: Rotate) -> Secret:
    """Give an endpoint another secret. For a while both sign, so that receivers can change over in their time."""
    async with call.turn() as conn:
        one = await subscribe.rotate(
            conn, call.house.vault, endpoint, call.token.account, body.secret or "", body.valid_seconds
        )
    return Secret(id=one.id, secret=one.secret, old_secret_until=one.old_until)
