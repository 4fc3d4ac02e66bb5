"""What a complaint tells beside who complained: the feedback report's fields (RFC 5965), and the original's header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from relay.core import words
from relay.core.letter import Fields
from relay.core.prose import ADDRESS

LONGEST = 500  # characters of one field that are told
MOST = 20  # values of a field that may stand several times
_UNHELD = re.compile("[\x00\ud800-\udfff]")

ONCE: Mapping[str, str] = {
    "feedback-type": "feedbackType",
    "abuse-type": "abuseType",
    "user-agent": "userAgent",
    "source-ip": "sourceIp",
    "original-mail-from": "originalMailFrom",
    "original-envelope-id": "originalEnvelopeId",
    "reporting-mta": "reportingMta",
    "incidents": "incidents",
}
OFTEN: Mapping[str, str] = {
    "original-rcpt-to": "originalRcptTo",
    "reported-domain": "reportedDomain",
    "reported-uri": "reportedUri",
    "authentication-results": "authenticationResults",
}
OTHERWISE = frozenset({"auth-failure", "not-spam"})
"""Types of feedback by which nobody complains: of failed authentication (RFC 6591), of no spam after all (RFC 6430)."""

DATES: Mapping[str, str] = {"arrival-date": "arrivalDate", "received-date": "arrivalDate"}


def meant(feedback: Fields) -> bool:
    """Whether the recipient complains by it."""
    return feedback.get("feedback-type").lower() not in OTHERWISE


def arf(feedback: Fields, original: Fields) -> dict[str, Any]:
    """The fields of a feedback report that are there. Hotmail's complaints have none: the original says who it was."""
    told: dict[str, Any] = {"feedbackType": "abuse"}
    if hotmail := original.get("x-hmxmroriginalrecipient"):
        told |= {"source": "Hotmail", "originalRcptTo": ADDRESS.findall(hotmail)[:MOST]}
    told |= {name: _shown(feedback.get(key)) for key, name in ONCE.items() if feedback.get(key)}
    told |= {name: [_bare(one) for one in feedback.all(key)[:MOST]] for key, name in OFTEN.items() if feedback.get(key)}
    told |= {name: at for key, name in DATES.items() if (at := _date(feedback.get(key)))}
    return told


def headers(original: Fields) -> dict[str, Any]:
    """What the original's header says, as far as it was sent along."""
    told = {
        "messageId": _shown(original.get("message-id")),
        "from": next(iter(_addresses(original.get("from"))), ""),
        "to": _addresses(original.get("to")),
        "subject": _shown(words.decode(original.get("subject"))),
        "date": _date(original.get("date")),
    }
    return {name: value for name, value in told.items() if value}


def _addresses(value: str) -> list[str]:
    return [_shown(address) for address in ADDRESS.findall(value)[:MOST]]


def _bare(value: str) -> str:
    """Without the angle brackets around the whole."""
    shown = _shown(value)
    return shown[1:-1] if shown[:1] == "<" and shown[-1:] == ">" else shown


def _date(value: str) -> str | None:
    """In ISO 8601, UTC; None where nobody can read it."""
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _iso(at if at.tzinfo else at.replace(tzinfo=UTC))


def _iso(at: datetime) -> str | None:
    try:
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None


def _shown(text: str) -> str:
    return " ".join(_UNHELD.sub(" ", text).split())[:LONGEST]
