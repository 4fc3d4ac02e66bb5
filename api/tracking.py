"""Tracking over HTTP: what became of each delivery, who fetched its pixel, and what people note about it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from api.analytics import Answer, Body, Days, Listing, Machine, Paging, Place, Query
from api.call import Call
from api.problems import Problem
from api.shapes import NO_NUL, AccountId, Instant, RowId, Words
from relay.core import provider
from relay.core.model import DELIVERED, Opener
from relay.core.networks import Address
from relay.store import db, search, tracking

LARGEST = (1 << 63) - 1
LONGEST_NOTE = 10_000

Status = Literal["sent", "failed", "bounced", "complained"]
TrackingId = Annotated[str, Field(description="The delivery's id, as in `trackOpen` and the outbox.")]
Note = Annotated[str, StringConstraints(pattern=NO_NUL, max_length=LONGEST_NOTE)]
Mark = tuple[datetime, RowId, Annotated[int, Field(ge=0, le=search.DEEPEST)]]
BACK = "The call looked no further back than this; `cursor` goes on from there. Null: as far back as it had to."


class Search(Paging):
    email_type: Words = Field("", description="Only this type.")
    opened: bool | None = Field(None, description="Only what was opened, or what was not.")
    reference_type: Words = Field("", description="Only with this reference type.")
    reference_id: Words = Field("", description="Only with this reference id.")
    recipient: Words = Field("", description="Only to this address.")
    status: Status | None = Field(
        None, description="Only these: `sent` leaves out what bounced or was complained about after it was sent."
    )
    pinned: bool | None = Field(None, description="Only what is pinned, or what is not.")
    search: Words = Field(
        "", description="Words of recipient, name, subject, email type or reference id; or the whole Message-ID."
    )
    days: Days = None
    machine: Machine = False


class Record(Answer):
    """What became of one delivery. Opens are those that count, unless `machine` asked for all."""

    tracking_id: str
    recipient_email: str
    recipient_name: str | None
    subject: str
    sent_at: Instant | None = Field(description="Null where it failed; it stays where it bounced after.")
    finished_at: Instant = Field(description="When it was sent or failed; lists are in this order.")
    tracked: bool = Field(description="It went out with a pixel: without one nobody can be seen opening it.")
    opened: bool
    opened_at: Instant | None = Field(description="First.")
    open_count: int
    last_opened_at: Instant | None
    first_ip_address: str | None = Field(examples=["198.51.100.7"])
    last_ip_address: str | None = Field(examples=["198.51.100.7"])
    first_user_agent: str | None
    last_user_agent: str | None
    first_opener: Opener | None
    country: str | None = Field(description="Of the first open; null where unknown, and for proxies always.")
    city: str | None
    email_type: str | None
    reference_type: str | None
    reference_id: str | None
    provider: str | None = Field(description="Host of the server that it was handed to.")
    provider_message_id: str | None = Field(description="What that server's reply calls it, where it does.")
    delivery_status: Status
    delivery_error: str | None = Field(description="The reply that it failed with, or what was reported after.")
    reported_at: Instant | None = Field(description="When we learnt that it bounced, or was complained about.")
    pinned: bool
    notes: str


class Shown(Query):
    machine: Machine = False


class Records(Listing):
    sheet: ClassVar[str] = "tracking"
    searched_back_to: Instant | None = Field(description=BACK)
    items: list[Record]


class Attempt(Answer):
    """One try."""

    number: int
    at: Instant
    seconds: float
    outcome: str = Field(description="sent, deferred, failed or unknown.")
    stage: str = Field(description="How far it came: connect, tls, ehlo, auth, mail, rcpt, data, dot or lease.")
    code: int | None
    status: str | None
    response: str | None
    provider: str | None


class Fetch(Answer):
    """One fetch of the pixel, with its judgement."""

    at: Instant
    opener: Opener
    client: str | None
    reason: str = Field(description="Why it was judged so.")
    address: str | None = Field(examples=["198.51.100.7"])
    user_agent: str | None
    country: str | None
    city: str | None


class Detail(Record):
    """A record with all that is known."""

    queue_id: str
    message_id: str
    attempts: list[Attempt] = Field(description="The last one first; at most 200.")
    judged: dict[Opener, int] = Field(description="All fetches, by who made them.")
    fetches: list[Fetch] = Field(description="The last one first; of one delivery the first 200 are kept.")


class Annotation(Body):
    """What is left out stays as it is."""

    pinned: bool | None = None
    notes: Note | None = Field(None, description='"" removes them.')


async def page(call: Call, account: AccountId, query: Search) -> Records:
    """What became of an account's mail: every delivery that was sent, bounced or not, or failed; newest first."""
    await call.account(account)
    place = query.place(Mark)
    wanted = _filter(account, query)
    async with call.turn() as conn:
        found = await search.find(
            conn,
            wanted,
            after=search.Mark(*place.key) if place else None,
            skip=query.skip,
            size=query.limit,
            count=place is None,
        )
        shown = await tracking.records(conn, account, found.ids, machine=query.machine)
    place = place or Place(found.total or 0, found.at_least, query.page, None)
    more = [found.more.at.isoformat(), found.more.id, found.more.skip] if found.more else None
    items = [Record(**_record(one)) for one in shown]
    return Records(**query.frame(place, more), searched_back_to=found.back_to, items=items)


def _filter(account: str, query: Search) -> search.Filter:
    return search.Filter(
        account=account,
        machine=query.machine,
        days=query.days,
        status=query.status,
        recipient=query.recipient,
        email_type=query.email_type,
        reference_type=query.reference_type,
        reference_id=query.reference_id,
        opened=query.opened,
        pinned=query.pinned,
        words=tuple(query.search.split()),
    )


async def show(call: Call, account: AccountId, tracking_id: TrackingId, query: Shown) -> Detail:
    """One delivery: its record, its tries, and every fetch of its pixel."""
    async with call.turn() as conn:
        return await _detail(conn, account, tracking_id, query.machine)


async def note(call: Call, account: AccountId, tracking_id: TrackingId, body: Annotation) -> Detail:
    """Pin a record, or write notes about it."""
    if body.pinned is None and body.notes is None:
        raise Problem(400, "Say what to note: pinned, notes, or both", code="InvalidFields")
    async with call.turn() as conn:
        id = _id(tracking_id)
        if not await tracking.annotate(conn, account, id, pinned=body.pinned, notes=body.notes):
            raise _unknown(tracking_id)
        return await _detail(conn, account, tracking_id, False)


async def note_again(call: Call, account: AccountId, tracking_id: TrackingId, body: Annotation) -> Detail:
    """The same as PATCH."""
    return await note(call, account, tracking_id, body)


async def _detail(conn: db.Connection, account: str, tracking_id: str, machine: bool) -> Detail:
    id = _id(tracking_id)
    found = await tracking.records(conn, account, [id], machine=machine)
    if not found:
        raise _unknown(tracking_id)
    return Detail(
        **_record(found[0]),
        queue_id=found[0].message.hex,
        message_id=found[0].message_id,
        attempts=[_attempt(one) for one in await tracking.attempts(conn, id)],
        judged={Opener(name): n for name, n in found[0].judged.items()},
        fetches=[Fetch(**fetched(one)) for one in await tracking.fetches(conn, id)],
    )


def _id(tracking_id: str) -> int:
    """Whatever else somebody makes up is no record of ours."""
    if not re.fullmatch(r"[1-9][0-9]{0,18}", tracking_id, re.ASCII) or int(tracking_id) > LARGEST:
        raise _unknown(tracking_id)
    return int(tracking_id)


def _unknown(tracking_id: str) -> Problem:
    return Problem(
        404,
        f"There is no tracking record {tracking_id[:40]}; mail that still waits is in the outbox",
        code="RecordNotFound",
    )


def _record(one: tracking.Record) -> dict[str, Any]:
    sent = one.state in DELIVERED
    return {
        "tracking_id": str(one.id),
        "recipient_email": one.recipient,
        "recipient_name": one.name,
        "subject": one.subject,
        "sent_at": one.finished_at if sent else None,
        "finished_at": one.finished_at,
        "tracked": one.tracked,
        "opened": one.opens > 0,
        "opened_at": one.first_at,
        "open_count": one.opens,
        "last_opened_at": one.last_at,
        "first_ip_address": _text(one.first_address),
        "last_ip_address": _text(one.last_address),
        "first_user_agent": one.first_agent or None,
        "last_user_agent": one.last_agent or None,
        "first_opener": one.first_opener,
        "country": one.country or None,
        "city": one.city or None,
        "email_type": one.email_type,
        "reference_type": one.reference_type,
        "reference_id": one.reference_id,
        "provider": _host(one.upstream),
        "provider_message_id": provider.message_id(one.reply or "") if sent else None,
        "delivery_status": one.state,
        "delivery_error": _error(one),
        "reported_at": one.reported_at,
        "pinned": one.pinned,
        "notes": one.notes,
    }


def _error(one: tracking.Record) -> str | None:
    """What speaks against it; a report that has no words is told by its category."""
    if one.state == "sent":
        return None
    if one.report and one.state in DELIVERED:
        return one.report["diagnostic"] or one.report["category"]
    return " ".join(str(part) for part in (one.code, one.enhanced, one.reply) if part) or one.category or "failed"


def _attempt(one: tracking.Attempt) -> Attempt:
    return Attempt(
        number=one.number,
        at=one.at,
        seconds=round(one.seconds, 3),
        outcome=one.outcome,
        stage=one.stage,
        code=one.code,
        status=one.enhanced or None,
        response=one.reply or None,
        provider=_host(one.upstream),
    )


def fetched(one: tracking.Fetch) -> dict[str, Any]:
    """The fields of Fetch."""
    return {
        "at": one.at,
        "opener": one.opener,
        "client": one.client or None,
        "reason": one.reason,
        "address": _text(one.address),
        "user_agent": one.user_agent or None,
        "country": one.country or None,
        "city": one.city or None,
    }


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)


def _host(upstream: str | None) -> str | None:
    """`smtp.example.com:587` without its port."""
    return (upstream or "").rpartition(":")[0] or None
