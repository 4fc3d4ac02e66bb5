"""What is recorded for one try: the event has the fields that subscribers are promised, whatever the outcome."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relay import reading
from relay.core.classify import classify
from relay.core.model import EventType, Leased, State
from relay.core.reply import Reply, Stage
from relay.settings import Settings, read

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
ROW = Leased(
    delivery=7,
    message=UUID(int=1),
    recipient="ada@example.com",
    sender="shop@example.com",
    attempts=1,
    max_attempts=10,
    accepted_at=NOW,
    due_at=NOW,
    expires_at=NOW + timedelta(days=3),
    size=100,
    splice=None,
    smtputf8=False,
    eightbit=False,
    message_id="<m@example.com>",
)
ALWAYS = {
    "queueId": f"{1:032x}",
    "messageId": "<m@example.com>",
    "recipient": "ada@example.com",
    "envelope": {"from": "shop@example.com", "to": ["ada@example.com"]},
}
TRIED = {"error", "errorCode", "smtpResponse", "smtpResponseCode", "job"}


@pytest.fixture
def defaults() -> Settings:
    return read({}, None)


def told(reply: Reply, stage: Stage, settings: Settings) -> tuple[EventType | None, dict[str, Any], State]:
    """The event of a try that was answered like this."""
    verdict = classify(reply, stage)
    found = reading.report(ROW, 3, verdict, reply, stage, seconds=0.1, upstream="mx:25", now=NOW, settings=settings)
    return found.event, dict(found.data or {}), found.state


def test_sent_tells_the_upstreams_words(defaults: Settings) -> None:
    event, data, _ = told(Reply(250, "2.0.0", "kept"), Stage.DOT, defaults)
    assert (event, data) == (EventType.MESSAGE_SENT, {**ALWAYS, "response": "250 2.0.0 kept"})


def test_deferred_tells_the_next_attempt_as_the_api_spells_instants(defaults: Settings) -> None:
    event, data, state = told(Reply(451, "4.3.0", "later"), Stage.RCPT, defaults)
    assert (event, state) == (EventType.MESSAGE_DELIVERY_ERROR, State.DEFERRED)
    assert data.keys() == ALWAYS.keys() | TRIED
    assert (data["smtpResponse"], data["smtpResponseCode"]) == ("451 4.3.0 later", 451)
    job = data["job"]
    assert (job["id"], job["attemptsMade"], job["attempts"]) == ("7", 2, 10)
    assert len(job["nextAttempt"]) == len("2030-01-02T03:05:05.678Z")
    assert job["nextAttempt"].endswith("Z")
    assert datetime.fromisoformat(job["nextAttempt"]) > NOW


def test_failed_is_final(defaults: Settings) -> None:
    event, data, state = told(Reply(550, "5.1.1", "no such user"), Stage.RCPT, defaults)
    assert (event, state) == (EventType.MESSAGE_FAILED, State.FAILED)
    assert data.keys() == ALWAYS.keys() | TRIED
    assert data["job"]["nextAttempt"] is None
    assert data["errorCode"] == "unknown_user"
