"""Dead letters over HTTP: what failed for good, why, and its replay, singly or in bulk."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from api.call import Call
from api.problems import Problem
from api.shapes import AccountId, Answer, Body, Instant, Listing, Paging, QueueId, RowId, Words
from api.times import read_bound
from relay.core.model import Reason, Suppressed
from relay.store import deadletters
from relay.store.deadletters import Filter

MOST_TOLD = 100  # dead letters that an answer names as suppressed
AT_ONCE = 5000  # rows of one database transaction: a bulk replay must not lock the queue
REASON = "A category (`unknown_user`), an enhanced code (`5.1.1`), an SMTP code (`550`), or words of the reply."


class Search(Paging):
    account: AccountId | None = Field(None, description="Only this account's.")
    queue_id: QueueId | None = Field(None, description="Only this message's.")
    reason: Words = Field("", description=REASON)
    since: Words = Field("", alias="from", description="Failed at or after: ISO 8601, or epoch seconds.")
    until: Words = Field("", alias="to", description="Failed before.")


class DeadLetter(Answer):
    """A delivery that failed for good."""

    id: int = Field(description="For `ids` of a replay.")
    queue_id: str
    account: str
    message_id: str
    from_: str
    recipient: str
    subject: str
    attempts_made: int
    failed: Instant
    code: int | None = Field(description="Of the last reply: SMTP code,")
    status: str | None = Field(description="enhanced code,")
    response: str | None = Field(description="and text.")
    category: str | None


class DeadLetters(Listing):
    items: list[DeadLetter]


class Replay(Body):
    """Which dead letters to try again. At least one field that is not null; `all: true` alone for every one."""

    ids: list[RowId] | None = Field(None, min_length=1, max_length=10_000)
    account: AccountId | None = None
    queue_id: QueueId | None = None
    reason: Words | None = Field(None, min_length=1, description=REASON)
    since: str | int | float | None = Field(None, alias="from", description="Failed at or after.")
    until: str | int | float | None = Field(None, alias="to", description="Failed before.")
    all_: bool = Field(False, description="Every dead letter that this token may see.")


class StillSuppressed(Answer):
    id: int
    recipient: str
    reason: Reason
    since: Instant


class Replayed(Answer):
    replayed: int = Field(description="Deliveries that are queued anew, with all their attempts and a new lifetime.")
    skipped: int | None = Field(default=None, description="Of `ids`: not dead (any more), or not there.")
    suppressed: int = Field(description="Left as they are, for their recipients are suppressed: lift that first.")
    suppressions: list[StillSuppressed] = Field(description=f"Of those: the first {MOST_TOLD}.")


async def page(call: Call, query: Search) -> DeadLetters:
    """Failed deliveries, the last to fail first."""
    at = query.after(tuple[datetime, int])
    wanted = Filter(
        account=await call.narrowed(query.account),
        queue_id=UUID(query.queue_id) if query.queue_id else None,
        reason=query.reason,
        since=read_bound(query.since, "from"),
        until=read_bound(query.until, "to"),
    )
    async with call.turn() as conn:
        total, found = await deadletters.page(
            conn, wanted, after=at[2] if at else None, skip=query.skip, size=query.page_size, count=at is None
        )
    last = [found[-1].failed_at.isoformat(), found[-1].id] if found else None
    frame = query.frame(at, total, len(found), last)
    return DeadLetters(**frame, items=[_shown(one) for one in found])


async def replay(call: Call, body: Replay) -> Replayed:
    """Try dead letters again. What was replayed by someone else meanwhile is left alone."""
    if not body.said():
        raise Problem(
            400, 'Say which dead letters: ids, account, queueId, reason, from, to, or "all": true', code="NoFilter"
        )
    wanted = Filter(
        account=await call.narrowed(body.account),
        ids=sorted(set(body.ids)) if body.ids is not None else None,
        queue_id=UUID(body.queue_id) if body.queue_id else None,
        reason=body.reason or "",
        since=read_bound(body.since, "from"),
        until=read_bound(body.until, "to"),
    )
    answer = await _replay(call, wanted)
    if wanted.ids is not None:
        answer.skipped = len(wanted.ids) - answer.replayed - answer.suppressed
    return answer


async def _replay(call: Call, wanted: Filter) -> Replayed:
    """Piece by piece."""
    answer = Replayed(replayed=0, suppressed=0, suppressions=[])
    lifetime = call.house.settings.delivery_lifetime
    last: deadletters.Place | None = None
    more = True
    while more:
        async with call.turn() as conn:
            piece = await deadletters.replay(conn, wanted, after=last, lifetime=lifetime, most=AT_ONCE)
        for account in {account for _, account in piece.revived}:
            call.house.waker.wake(account)
        answer.replayed += len(piece.revived)
        answer.suppressed += len(piece.suppressed)
        answer.suppressions += map(_still, piece.suppressed[: MOST_TOLD - len(answer.suppressions)])
        last, more = piece.last, piece.last is not None
    return answer


def _still(letter: tuple[int, Suppressed]) -> StillSuppressed:
    id, one = letter
    return StillSuppressed(id=id, recipient=one.recipient, reason=one.reason, since=one.since)


def _shown(one: deadletters.DeadLetter) -> DeadLetter:
    return DeadLetter(
        id=one.id,
        queue_id=one.message.hex,
        account=one.account,
        message_id=one.message_id,
        from_=one.sender,
        recipient=one.recipient,
        subject=one.subject,
        attempts_made=one.attempts,
        failed=one.failed_at,
        code=one.code,
        status=one.enhanced,
        response=one.reply,
        category=one.category,
    )
