"""What a sender asks for beside the content, read from the control headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar

from relay.core.errors import Refused
from relay.core.model import Options, Priority

FARTHEST = timedelta(days=5 * 366)
MILLISECONDS = 1e11  # a larger number counts milliseconds: as seconds it would be after the year 5000
MOST_ATTEMPTS = 100
LONGEST_MOMENT = 100  # characters of a date
LONGEST = 255  # characters of a label
LONGEST_KEY = 1024  # bytes of an idempotency key
FORMS = "2030-01-31T09:30:00Z (ISO 8601), Thu, 31 Jan 2030 09:30:00 +0000 (RFC 5322) or 1896082200 (epoch seconds)"

_ZONE = re.compile(r":\d\d\s*[A-Za-z]")  # a word behind the time: PM, or a zone by its name
_EPOCH = re.compile(r"\d{9,20}(?:\.\d{1,9})?", re.ASCII)  # shorter numbers are years and dates: none means the 1970s
_TRUTH = dict.fromkeys(("true", "yes", "y", "on", "1"), True) | dict.fromkeys(("false", "no", "n", "off", "0"), False)
T = TypeVar("T")


def read_options(controls: Mapping[str, str], now: datetime) -> Options:
    """The options that `controls` (Mail.controls) ask for. Raises Refused, naming the header and what it may be."""

    def read(name: str, reader: Callable[[str], T]) -> T | None:
        if name not in controls:
            return None
        try:
            return reader(controls[name])
        except ValueError as fault:
            header = f"X-{name.title()}"
            raise Refused(f"{header}: {fault}", smtp="550 5.6.0", key=header) from None

    priority = read("priority-class", Priority.named)
    return Options(
        send_at=read("send-at", lambda text: send_at(text, now)),
        attempts=read("delivery-attempts", attempts),
        priority=Priority.NORMAL if priority is None else priority,
        track=read("track-opens", truth),
        email_type=read("email-type", label),
        reference_type=read("reference-type", label),
        reference_id=read("reference-id", label),
        idempotency_key=read("idempotency-key", key),
    )


def send_at(text: str, now: datetime) -> datetime | None:
    """When to send; None, which is at once, for an instant that has passed. Raises ValueError."""
    wanted = near(text, now)
    return wanted if wanted > now else None


def near(text: str, now: datetime) -> datetime:
    """An instant that is not farther than mail is planned ahead. Raises ValueError."""
    wanted = moment(text)
    if wanted > now + FARTHEST:
        raise ValueError(f"is more than five years ahead ({wanted:%Y-%m-%d}); give a nearer one, such as {FORMS}")
    return wanted


def moment(text: str) -> datetime:
    """An instant in one of the FORMS, in UTC; without a zone it is taken as UTC. Raises ValueError."""
    for reader in (_epoch, datetime.fromisoformat, _spoken) if len(text) <= LONGEST_MOMENT else ():
        try:
            found = reader(text.strip().upper())  # T and Z may be small (RFC 3339, section 5.6)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError, OSError, TypeError, IndexError):
            continue
    raise ValueError(f"{_short(text)} is no date and time; give one such as {FORMS}")


def spelled(instant: datetime) -> str:
    """An instant as we write it, in answers, replies and events: ISO 8601 in UTC, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def attempts(text: str) -> int:
    """How often to try. Raises ValueError."""
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 1 <= int(text) <= MOST_ATTEMPTS:
        raise ValueError(f"{_short(text)} is not a whole number from 1 to {MOST_ATTEMPTS}")
    return int(text)


def truth(text: str) -> bool:
    """Raises ValueError for anything but true and false, in any of their spellings."""
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(f"{_short(text)} is neither true nor false") from None


def label(text: str) -> str:
    """A short text that is kept as it is. Raises ValueError."""
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    return text


def key(text: str) -> str:
    """An idempotency key. Raises ValueError."""
    if len(text.encode()) > LONGEST_KEY:
        raise ValueError(f"is longer than {LONGEST_KEY} bytes")
    return text


def _epoch(text: str) -> datetime:
    if not _EPOCH.fullmatch(text):
        raise ValueError
    number = float(text)
    if MILLISECONDS < number < 10 * MILLISECONDS:  # the last century in milliseconds: more likely 203001310930
        raise ValueError
    return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS else number, UTC)


def _spoken(text: str) -> datetime:
    """As RFC 5322 has it; a zone whose name says nothing would be taken as UTC."""
    found = parsedate_to_datetime(text)
    if found.tzinfo is None and _ZONE.search(text):
        raise ValueError
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
