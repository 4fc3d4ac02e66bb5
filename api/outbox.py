"""The outbox over HTTP: what waits to be sent, cancelled or moved while it waits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from api.call import Call
from api.problems import Problem
from api.shapes import QUEUE_ID, AccountId, Answer, Body, Instant, Listing, Paging
from api.times import read_time
from relay.core.model import DELIVERED, Priority
from relay.store import outbox

Named = Annotated[str, Field(max_length=100, description="The message's queueId.")]
"""What is asked for may be a name that somebody else gave: there is no such message then, and nothing worse."""

PROGRESS = {"queued": "queued", "leased": "processing", "deferred": "error", "sent": "submitted"}


class Envelope(Answer):
    from_: str
    to: list[str]


class Report(Answer):
    """What was reported of a delivery last, after it was sent."""

    kind: str = Field(description="bounce or complaint.")
    action: str | None = Field(description="failed; delayed and others say nothing against it. Null of a complaint.")
    status: str | None = Field(examples=["5.1.1"])
    message: str | None = Field(description="The server's words.")
    mta: str | None = Field(description="The server that said it.")
    category: str = Field(description="`unknown_user`, `mailbox_full`, `spam`, ...: what it comes to.")
    recommended_action: str = Field(description="remove, retry, fix_configuration, remove_content or review.")
    at: Instant = Field(description="When the report came.")


class Delivery(Answer):
    """One recipient's copy."""

    delivery: int
    recipient: str
    name: str | None
    state: str = Field(description="queued, leased, deferred, sent, failed, cancelled, bounced or complained.")
    attempts_made: int
    attempts: int = Field(description="Tries that it may have.")
    next_attempt: Instant | None = Field(description="Not before; null once it is finished.")
    finished: Instant | None
    code: int | None = Field(description="Of the last reply: SMTP code,")
    status: str | None = Field(description="enhanced code,")
    response: str | None = Field(description="and text.")
    category: str | None
    report: Report | None = Field(description="Null where nothing was reported.")


class Progress(Answer):
    status: str = Field(
        description="queued, processing, error (tried, and will be again), submitted, failed, bounced (after it was "
        "sent), complained or cancelled."
    )
    response: str | None
    error: dict[str, Any] | None


class Entry(Answer):
    """A message with its deliveries. In a list at most the first 100 of them; `states` counts all."""

    queue_id: str
    account: str
    source: str = Field(description="The ingress: `api`, `smtp`, or `notice` for our own mail about opens.")
    message_id: str
    envelope: Envelope
    subject: str
    size: int = Field(description="Bytes.")
    priority: str
    created: Instant
    scheduled: Instant
    next_attempt: Instant | None
    attempts_made: int
    attempts: int
    progress: Progress
    states: dict[str, int] = Field(description="Deliveries by state.")
    deliveries: list[Delivery]


class Outbox(Listing):
    messages: list[Entry]


class Search(Paging):
    account: AccountId | None = Field(None, description="Only this account's.")


class Cancelled(Answer):
    """What a cancel came in time for, and what not."""

    queue_id: str
    deleted: bool = Field(description="At least one delivery was cancelled.")
    cancelled: int
    sent: int = Field(description="Were sent already.")
    leased: int = Field(description="Are being sent just now: too late for them.")
    failed: int


class Move(Body):
    send_at: str | int | float = Field(
        description="ISO 8601, RFC 5322, or epoch seconds; a time that has passed means now."
    )


class Moved(Answer):
    queue_id: str
    send_at: Instant
    moved: int
    sent: int = Field(description="Were sent already.")
    leased: int = Field(description="Are being sent just now: too late for them.")
    failed: int


async def page(call: Call, query: Search) -> Outbox:
    """Messages that have a delivery queued, being sent, or deferred; newest first."""
    at = query.after(UUID)
    account = await call.narrowed(query.account)
    async with call.turn() as conn:
        total, entries = await outbox.page(
            conn,
            account=account,
            after=at[2] if at else None,
            skip=query.skip,
            size=query.page_size,
            count=at is None,
        )
    frame = query.frame(at, total, len(entries), entries[-1].id.hex if entries else "")
    return Outbox(**frame, messages=[_entry(entry) for entry in entries])


async def show(call: Call, queue_id: Named) -> Entry:
    """One message and all of its deliveries, in whatever state they are."""
    return _entry(await _find(call, queue_id))


async def cancel(call: Call, queue_id: Named) -> Cancelled:
    """Cancel what has not begun. What is being sent or was sent stays, and is counted."""
    await _find(call, queue_id)
    async with call.turn() as conn:
        changed = await outbox.cancel(conn, UUID(queue_id))
    return Cancelled(queue_id=queue_id, deleted=changed.changed > 0, cancelled=changed.changed, **_others(changed))


async def move(call: Call, queue_id: Named, body: Move) -> Moved:
    """Send what waits at another time. Its lifetime begins then."""
    now = datetime.now(UTC)
    send_at = max(read_time(body.send_at, now), now)
    entry = await _find(call, queue_id)
    async with call.turn() as conn:
        changed = await outbox.move(conn, entry.id, send_at, lifetime=call.house.settings.delivery_lifetime)
    if changed.changed and send_at <= now:
        call.house.waker.wake(entry.account)
    return Moved(queue_id=queue_id, send_at=send_at, moved=changed.changed, **_others(changed))


def _others(changed: outbox.Changed) -> dict[str, int]:
    counts = {state: changed.others.get(state, 0) for state in ("leased", "failed")}
    return counts | {"sent": sum(changed.others.get(state, 0) for state in DELIVERED)}


async def _find(call: Call, queue_id: str) -> outbox.Entry:
    """404 alike for what is not there and for what is another account's."""
    entry = None
    if re.fullmatch(QUEUE_ID, queue_id):
        async with call.turn() as conn:
            entry = await outbox.get(conn, UUID(queue_id), account=call.token.account)
    if entry is None:
        raise Problem(404, f"There is no message {queue_id}", code="MessageNotFound")
    return entry


def _entry(entry: outbox.Entry) -> Entry:
    open_ = [one for one in entry.deliveries if one.finished_at is None]
    return Entry(
        queue_id=entry.id.hex,
        account=entry.account,
        source=entry.ingress,
        message_id=entry.message_id,
        envelope=Envelope(from_=entry.sender, to=[one.recipient for one in entry.deliveries]),
        subject=entry.subject,
        size=entry.size,
        priority=Priority(entry.priority).label,
        created=entry.created_at,
        scheduled=entry.send_at,
        next_attempt=min((one.due_at for one in open_), default=None),
        attempts_made=max((one.attempts for one in entry.deliveries), default=0),
        attempts=max((one.max_attempts for one in entry.deliveries), default=0),
        progress=_progress(entry),
        states=dict(entry.states),
        deliveries=[_delivery(one) for one in entry.deliveries],
    )


def _progress(entry: outbox.Entry) -> Progress:
    """Where the message stands: what is still going on says more than what is over."""
    order = ("leased", "deferred", "queued", "failed", "bounced", "complained", "sent", "cancelled")
    state = next((state for state in order if entry.states.get(state)), "cancelled")
    one = next((one for one in entry.deliveries if one.state == state), None)
    return Progress(
        status=PROGRESS.get(state, state),
        response=one.reply if one and state == "sent" else None,
        error=_error(one) if one else None,
    )


def _error(one: outbox.Delivery) -> dict[str, Any] | None:
    """What upstream said against it, or what was reported after."""
    if one.report and one.state in ("bounced", "complained"):
        return {"message": one.report["diagnostic"], "code": one.report["category"], "statusCode": None}
    if one.state in ("deferred", "failed"):
        return {"message": one.reply, "code": one.category, "statusCode": one.code}
    return None


def _delivery(one: outbox.Delivery) -> Delivery:
    return Delivery(
        delivery=one.id,
        recipient=one.recipient,
        name=one.name,
        state=one.state,
        attempts_made=one.attempts,
        attempts=one.max_attempts,
        next_attempt=None if one.finished_at else one.due_at,
        finished=one.finished_at,
        code=one.code,
        status=one.enhanced,
        response=one.reply,
        category=one.category,
        report=reported(one.report) if one.report else None,
    )


def reported(told: Mapping[str, str]) -> Report:
    """A report as a delivery keeps it."""
    return Report(
        kind=told["kind"],
        action=told["action"] or None,
        status=told["status"] or None,
        message=told["diagnostic"] or None,
        mta=told["mta"] or None,
        category=told["category"],
        recommended_action=told["recommendedAction"],
        at=datetime.fromisoformat(told["at"]),
    )
