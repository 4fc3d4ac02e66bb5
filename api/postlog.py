"""The log of an endpoint over HTTP: what was posted and how each try went; posting again, and a test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from api.call import Call
from api.problems import Problem
from api.shapes import Answer, Body, Instant, Listing, Paging, RowId, Words, read_cursor, write_cursor
from api.times import read_bound
from api.webhooks import EndpointId
from relay import repost, subscribe
from relay.core import webhook
from relay.core.account import MASK
from relay.repost import Wish
from relay.store import postlog
from relay.store.endpoints import Endpoint

PREFIX = webhook.event_id(0)[:-1]
TIME = "ISO 8601, or epoch seconds."


def _event_id(text: str) -> str:
    digits = text.removeprefix(PREFIX)
    if text == digits or not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 63):
        raise ValueError(f"must be the id of an event, such as {webhook.event_id(12)}")
    return text


EventId = Annotated[str, Field(max_length=40), AfterValidator(_event_id)]
PostingId = Annotated[RowId, Field(description="The posting's `id` in the log.")]


class Search(Paging):
    state: Literal["pending", "delivered", "failed"] | None = Field(None, description="Only those in this state.")
    event: Words = Field("", description="Only events of this name.")
    event_id: EventId | None = Field(None, description="Only this event, by its `webhook-id`.")
    since: Words = Field("", description=f"Written to the log at or after: {TIME}")
    until: Words = Field("", description="Written to the log before.")


class Posting(Answer):
    """One event for this endpoint."""

    id: int
    event: str = Field(description="The event's name,")
    event_id: str = Field(description="and its id: the `webhook-id` of every try.")
    account: str
    state: str = Field(description="pending, delivered or failed.")
    attempts: int = Field(description="Tries since it was first to be posted, or last replayed.")
    created: Instant
    next_try: Instant | None = Field(description="Not before; null once it is finished.")
    finished: Instant | None
    status: int | None = Field(description="Of the last try: the HTTP status,")
    error: str = Field(description="and why it was no success.")


class Postings(Listing):
    """Of more than 10,000 postings the rest is not counted. Go on while there is a `cursor`."""

    items: list[Posting]


class Request(Answer):
    """What the last try sent; before the first one, what it is going to send."""

    url: str
    headers: dict[str, str] = Field(description="Values of custom headers masked, signatures by the present secrets.")
    body: str = Field(description="Byte for byte, as UTF-8.")


class Try(Answer):
    date: Instant
    seconds: float = Field(description="From the dial to the answer, or to giving up.")
    url: str
    status: int | None = Field(description="Null: there was no answer.")
    error: str
    response: str = Field(description="The beginning of the answer's body.")


class Detail(Posting):
    request: Request
    tries: list[Try] = Field(description="The latest hundred, in their order.")


class Replay(Body):
    """What to post again: `eventIds`; or the events of a time; or, with `failed`, what of the log failed for good."""

    event_ids: list[EventId] | None = Field(None, min_length=1, max_length=10_000)
    since: str | int | float | None = Field(None, description=f"At or after: {TIME}")
    until: str | int | float | None = Field(None, description="Before; now when left out.")
    events: list[str] | None = Field(None, description="Of a time or of what failed: these names alone.")
    failed: bool = False
    cursor: str | None = Field(None, max_length=400, description="That of the answer before; all else as it was.")


class Replayed(Answer):
    replayed: int = Field(description="Events that are posted again, or for the first time.")
    skipped: int | None = Field(
        default=None,
        description="Of `eventIds`: not there, another account's, not subscribed to, or about to be posted anyway.",
    )
    cursor: str | None = Field(description="There is more: ask again with it. Null when all is done.")


class Tested(Answer):
    event_id: str
    posting: int = Field(description="Its id in the log.")


async def page(call: Call, endpoint: EndpointId, query: Search) -> Postings:
    """What was posted to an endpoint and what is going to be, newest first."""
    at = query.after(tuple[datetime, int])
    wanted = postlog.Filter(
        endpoint=endpoint,
        state=query.state or "",
        type=query.event,
        event=_number(query.event_id) if query.event_id else None,
        since=read_bound(query.since, "since"),
        until=read_bound(query.until, "until"),
    )
    async with call.turn() as conn:
        await subscribe.found(conn, call.house.vault, endpoint, call.token.account)
        total, found, end = await postlog.page(
            conn, wanted, after=at[2] if at else None, skip=query.skip, size=query.page_size, count=at is None
        )
    frame = query.frame(at, total, len(found), None)
    cursor = write_cursor(frame["total"], frame["page"] + 1, [end[0].isoformat(), end[1]]) if end else None
    return Postings(**frame | {"cursor": cursor}, items=[Posting(**subscribe.posted(one)) for one in found])


async def show(call: Call, endpoint: EndpointId, posting: PostingId) -> Detail:
    """One event for one endpoint: the request, and how every try went."""
    async with call.turn() as conn:
        one = await subscribe.found(conn, call.house.vault, endpoint, call.token.account)
        shown = await postlog.show(conn, endpoint, posting)
    if shown is None:
        raise Problem(404, f"There is no posting {posting} in the log of webhook {endpoint}", code="PostingNotFound")
    found, data, tries = shown
    body = webhook.body(call.house.settings.public_url, found.account, found.event_at, found.type, data)
    sent = tries[-1].at if tries else datetime.now(UTC)
    request = Request(
        url=tries[-1].url if tries else one.url, headers=_headers(one, found, body, sent), body=body.decode()
    )
    return Detail(**subscribe.posted(found), request=request, tries=[_try(each) for each in tries])


async def replay(call: Call, endpoint: EndpointId, body: Replay) -> Replayed:
    """Post events again, those of a time even if the endpoint was disabled or not yet there when they came.

    A call ends after 10,000 or so; while it gives a `cursor`, ask again with it. Events have the `webhook-id` that
    they always had, and are kept for as many days as the operator says (30).
    """
    given = body.said() - {"cursor"}
    if not given & {"event_ids", "since", "until", "failed"}:
        raise Problem(400, 'Say what to replay: eventIds, since, until, or "failed": true', code="NoFilter")
    if body.event_ids and given != {"event_ids"}:
        raise Problem(400, "eventIds say it all: leave the rest out", code="InvalidFields")
    ids = sorted({_number(id) for id in body.event_ids or ()})
    wish = Wish(
        ids=tuple(ids),
        failed=body.failed,
        types=tuple(body.events or ()),
        since=read_bound(body.since, "since"),
        until=read_bound(body.until, "until"),
    )
    after = _after(body.cursor, wish) if body.cursor else None
    async with call.turn() as conn:
        count, end = await repost.repost(
            conn, call.house.vault, endpoint, call.token.account, wish, datetime.now(UTC), after
        )
    cursor = write_cursor(*(part.isoformat() if isinstance(part, datetime) else part for part in end)) if end else None
    return Replayed(replayed=count, skipped=len(ids) - count if ids else None, cursor=cursor)


async def test(call: Call, endpoint: EndpointId) -> Tested:
    """Post an event `webhookTest` to this endpoint alone. The log tells how it went."""
    async with call.turn() as conn:
        event, posting = await repost.test(conn, call.house.vault, endpoint, call.token.account)
    return Tested(event_id=webhook.event_id(event), posting=posting)


def _after(cursor: str, wish: Wish) -> Any:
    return read_cursor(cursor, *((datetime, RowId) if wish.failed else (Words, datetime, RowId)))


def _number(event_id: str) -> int:
    return int(event_id.removeprefix(PREFIX))


def _headers(one: Endpoint, posting: postlog.Posting, body: bytes, sent: datetime) -> dict[str, str]:
    """As they were sent, but for the values of custom ones; none where the key of the secret is lost."""
    if one.lost:
        return {}
    secrets = [one.secret, *([one.old_secret] if one.old_secret else [])]
    return webhook.headers(posting.event, body, secrets, sent, dict.fromkeys(one.headers, MASK))


def _try(one: postlog.Post) -> Try:
    return Try(
        date=one.at,
        seconds=round(one.seconds, 3),
        url=one.url,
        status=one.status,
        error=one.error,
        response=one.response,
    )
