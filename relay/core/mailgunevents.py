"""Mailgun's webhooks in our words: who signed them, and what each event means for what we sent.

https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks, .../webhook-payloads and
.../webhook-retries. What is met beside them:

- Signed are the timestamp and the token alone, not the event: a token is good for one post, whatever comes with it.
- A post is repeated for 8 hours (5, 10, 15 minutes, 1, 2, 4 hours after each other) until it is answered 200 or 406.
  Nothing says that a repeat is signed anew, so a signature is good for longer than that; its token is not.
- Event ids are unique within a day.
- Both kinds of failure are called `failed`; `severity` tells them apart. Codes of 6xx are Mailgun's own words.
- Events of a subaccount are signed with the key of the account above it as well (`parent-signature`).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from relay.core.advice import OTHER, Advice
from relay.core.bounce import Finding, Reported, held, judge
from relay.core.complaint import MOST
from relay.core.prose import ADDRESS, Told, status_in
from relay.core.report import Kind

OLDEST = timedelta(hours=24)  # that a post may be after it was signed; its token is remembered for longer
AHEAD = timedelta(minutes=5)  # that Mailgun's clock may go before ours
LONGEST = 1000  # characters of a name or an address
_TOKEN = re.compile(r"[\x21-\x7e]{1,200}")  # Mailgun's have 50 characters
_HEX = re.compile(r"[0-9a-fA-F]{64}")


class Effect(StrEnum):
    """What an event does here."""

    BOUNCED = "bounced"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OPENED = "opened"
    NONE = "none"


MEANINGS: Mapping[tuple[str, str], Effect] = {
    ("failed", "permanent"): Effect.BOUNCED,
    ("failed", "temporary"): Effect.NONE,  # Mailgun tries again
    ("complained", ""): Effect.COMPLAINED,
    ("unsubscribed", ""): Effect.UNSUBSCRIBED,
    ("opened", ""): Effect.OPENED,
    ("delivered", ""): Effect.NONE,  # it was sent: we know
    ("accepted", ""): Effect.NONE,
    ("clicked", ""): Effect.NONE,
    ("stored", ""): Effect.NONE,
    ("rejected", ""): Effect.NONE,  # has no recipient; the refusal was the answer to our request
}
"""(`event`, `severity`) in our words. What is not here does nothing: new ones come without notice."""

REASONS: Mapping[str, tuple[str, Advice]] = {
    "suppress-bounce": ("suppressed", Advice.REMOVE),
    "suppress-complaint": ("suppressed", Advice.REMOVE),
    "suppress-unsubscribe": ("suppressed", Advice.REMOVE),
    "old": ("expired", Advice.RETRY),
}
"""`reason` in our words, where the reply itself says nothing: Mailgun's own lists, and its end of patience."""


@dataclass(frozen=True, slots=True)
class Signature:
    timestamp: str
    token: str
    signature: str
    parent: str = ""

    def by(self, key: str) -> bool:
        """Whether this key made it. Takes the same time for any signature."""
        made = hmac.new(key.encode(), f"{self.timestamp}{self.token}".encode(), "sha256").hexdigest()
        found = [hmac.compare_digest(made, one.lower()) for one in (self.signature, self.parent) if _HEX.fullmatch(one)]
        return any(found)

    def fresh(self, now: datetime) -> bool:
        if not re.fullmatch(r"[0-9]{1,11}", self.timestamp, re.ASCII):
            return False
        age = now - datetime.fromtimestamp(int(self.timestamp), UTC)
        return -AHEAD <= age <= OLDEST


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. `about` names the mail and its recipient, and of a failure or a complaint what to record."""

    effect: Effect
    about: Reported
    address: str = ""  # of whoever opened, or asked to be left alone
    agent: str = ""


def signature(told: Mapping[str, Any]) -> Signature | None:
    """As a post has it; None for what nobody could have signed."""
    parts = [told.get(name, "") for name in ("timestamp", "token", "signature", "parent-signature")]
    texts = [str(part) if isinstance(part, str | int) and not isinstance(part, bool) else "" for part in parts]
    return Signature(*texts) if _TOKEN.fullmatch(texts[1]) else None


def read(told: Mapping[str, Any], token: str) -> Event:
    """The event that a post tells (`event-data`); `token` names it where it has no id. Never raises."""
    effect = MEANINGS.get((_text(told, "event"), _text(told, "severity")), Effect.NONE)
    recipient, name = _text(told, "recipient"), _text(told, "message", "headers", "message-id")
    if not recipient or not name:
        effect = Effect.NONE
    at = _moment(told.get("timestamp"))
    about = Reported(
        kind=Kind.COMPLAINT if effect is Effect.COMPLAINED else Kind.BOUNCE,
        source="mailgun",
        key=f"mailgun:{at.date()}:{_text(told, 'id')}" if at and _text(told, "id") else f"mailgun:{token}",
        message_id=f"<{name.strip('<>')}>",
        recipients=(_failure(told, recipient) if effect is Effect.BOUNCED else Finding(recipient),),
        at=at,
        arf=_arf(recipient, at) if effect is Effect.COMPLAINED else {},
        headers=_headers(told) if effect is Effect.COMPLAINED else {},
    )
    return Event(effect, about, _text(told, "ip"), _text(told, "client-info", "user-agent"))


def _failure(told: Mapping[str, Any], recipient: str) -> Finding:
    """What Mailgun says of a failure: the reply of the recipient's server, or why it did not ask it."""
    status = told.get("delivery-status")
    status = status if isinstance(status, dict) else {}
    code, words = status.get("code"), _text(status, "message") or _text(status, "description")
    replied = type(code) is int and 400 <= code < 600
    enhanced = _text(status, "enhanced-code")
    said = " ".join(part for part in (str(code), enhanced if enhanced not in words else "", words) if part)
    finding = judge(
        Told(
            recipient,
            action="failed",
            status=enhanced or (status_in(words) or f"{str(code)[0]}.0.0" if replied else "5.0.0"),
            diagnostic=said if replied else words,
            mta=_text(status, "mx-host"),
            source="smtp" if replied else "x-mailgun",
        )
    )
    reason = REASONS.get(_text(told, "reason"))
    if reason is None or (finding.category, finding.advice) != OTHER:
        return finding
    return replace(finding, category=reason[0], advice=reason[1], suppresses=False)


def _arf(recipient: str, at: datetime | None) -> dict[str, Any]:
    """The fields that a feedback report would have had (RFC 5965)."""
    arrived = at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None
    return {"source": "mailgun", "feedbackType": "abuse", "originalRcptTo": [recipient], "arrivalDate": arrived}


def _headers(told: Mapping[str, Any]) -> dict[str, Any]:
    """The original's header, as far as Mailgun tells it, in the fields of core/complaint.py."""
    name, sender, to, subject = (
        _text(told, "message", "headers", key) for key in ("message-id", "from", "to", "subject")
    )
    found = {
        "messageId": f"<{name.strip('<>')}>" if name else "",
        "from": next(iter(ADDRESS.findall(sender)), ""),
        "to": ADDRESS.findall(to)[:MOST],
        "subject": subject,
    }
    return {key: value for key, value in found.items() if value}


def _text(told: Any, *path: str) -> str:
    """The text at the end of this path; "" where there is none."""
    for key in path:
        told = told.get(key) if isinstance(told, Mapping) else None
    return str(held(told[: 4 * LONGEST])).strip()[:LONGEST] if isinstance(told, str) else ""


def _moment(timestamp: Any) -> datetime | None:
    """Seconds since 1970, with a fraction; some senders write them as text."""
    try:
        return datetime.fromtimestamp(float(timestamp), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
