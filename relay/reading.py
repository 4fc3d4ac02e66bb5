"""From what the upstream said about one delivery to what is recorded: state, wait, event."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from relay.core import backoff
from relay.core.classify import Verdict
from relay.core.model import EventType, Leased, Outcome, State
from relay.core.options import spelled
from relay.core.reply import Reply, Stage
from relay.settings import Settings
from relay.store.outcomes import Report

LOST = Verdict(
    Outcome.UNKNOWN,
    "unknown",
    "The reply was lost after the whole message was sent: it may have arrived, and is tried again.",
)

DAMAGED = "Its content in the database is damaged or gone"


def report(
    row: Leased,
    lease: int,
    verdict: Verdict,
    reply: Reply,
    stage: Stage,
    *,
    seconds: float,
    upstream: str,
    now: datetime,
    settings: Settings,
) -> Report:
    """What to commit for one try. A temporary failure is final when attempts or lifetime are exhausted."""
    state, wait, why = _next(row, verdict, now, settings)
    return Report(
        delivery=row.delivery,
        lease=lease,
        state=state,
        outcome=_attempt(state, verdict),
        stage=stage.value,
        seconds=seconds,
        code=reply.code or None,
        enhanced=reply.enhanced,
        reply=reply.text,
        category=verdict.category,
        upstream=upstream,
        wait=wait,
        counts=stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT),
        tried=verdict.outcome is not Outcome.HELD,
        event=_EVENTS[state],
        data=_data(row, state, verdict, reply, wait, why, now, row.attempts + (verdict.outcome is not Outcome.HELD)),
    )


def overdue(row: Leased, lease: int) -> Report:
    """A delivery whose lifetime ended while it waited: a dead letter without another try."""
    verdict = Verdict(Outcome.FAILED, "expired", "It waited too long: replay it if it still matters.")
    return _untried(row, lease, verdict, Reply(0, "4.4.7", "Its lifetime ended while it was waiting"), "lifetime")


def damaged(row: Leased, lease: int) -> Report:
    """A delivery whose content is not what was stored: a dead letter, and no copy of it is sent in pieces."""
    verdict = Verdict(
        Outcome.FAILED, "damaged", "Submit it again; or bring its row of `bodies` back from a backup, and replay it."
    )
    return _untried(row, lease, verdict, Reply(0, "5.3.0", DAMAGED), "")


def _untried(row: Leased, lease: int, verdict: Verdict, reply: Reply, why: str) -> Report:
    return Report(
        delivery=row.delivery,
        lease=lease,
        state=State.FAILED,
        outcome=Outcome.FAILED,
        stage=Stage.LEASE.value,
        seconds=0,
        enhanced=reply.enhanced,
        reply=reply.text,
        category=verdict.category,
        tried=False,
        event=EventType.MESSAGE_FAILED,
        data=_data(row, State.FAILED, verdict, reply, 0, why, row.expires_at, row.attempts),
    )


_EVENTS = {
    State.SENT: EventType.MESSAGE_SENT,
    State.DEFERRED: EventType.MESSAGE_DELIVERY_ERROR,
    State.FAILED: EventType.MESSAGE_FAILED,
}


def _next(row: Leased, verdict: Verdict, now: datetime, settings: Settings) -> tuple[State, float, str]:
    """The state that follows, the seconds until the next try, and what was exhausted."""
    if verdict.outcome is Outcome.SENT:
        return State.SENT, 0.0, ""
    if verdict.outcome is Outcome.FAILED:
        return State.FAILED, 0.0, ""
    tries = row.attempts + (verdict.outcome is not Outcome.HELD)
    wait = backoff.wait(
        max(tries, 1),
        first=settings.retry_first,
        most=settings.retry_most,
        rng=random.random,
        floor=verdict.wait,
    )
    if tries >= row.max_attempts:
        return State.FAILED, 0.0, f"no success in {tries} attempts"
    if now + timedelta(seconds=wait) >= row.expires_at:
        return State.FAILED, 0.0, "lifetime"
    return State.DEFERRED, wait, ""


def _attempt(state: State, verdict: Verdict) -> Outcome:
    """How the attempt itself is recorded: a deferral that was the last one is still a deferral by its reply."""
    if verdict.outcome is Outcome.UNKNOWN:
        return Outcome.UNKNOWN
    return {State.SENT: Outcome.SENT, State.FAILED: Outcome.FAILED}.get(state, Outcome.DEFERRED)


def _data(
    row: Leased, state: State, verdict: Verdict, reply: Reply, wait: float, why: str, now: datetime, made: int
) -> dict[str, Any]:
    """The event's data, as docs/webhooks names the fields."""
    common = {
        "queueId": row.message.hex,
        "messageId": row.message_id,
        "recipient": row.recipient,
        "envelope": {"from": row.sender, "to": [row.recipient]},
    }
    if state is State.SENT:
        return {**common, "response": str(reply)}
    return {
        **common,
        "error": f"{verdict.advice} ({why})" if why else verdict.advice,
        "errorCode": verdict.category,
        "smtpResponse": str(reply) if reply.code else None,
        "smtpResponseCode": reply.code or None,
        "job": {
            "id": str(row.delivery),
            "attemptsMade": made,
            "attempts": row.max_attempts,
            "nextAttempt": spelled(now + timedelta(seconds=wait)) if state is State.DEFERRED else None,
        },
    }
