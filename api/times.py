"""Instants as clients write them: ISO 8601, RFC 5322, or epoch seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from relay.core import options
from relay.core.errors import Refused

_UNESCAPED = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)")
"""The blank is a plus: behind a question mark one that is not written %2B becomes that."""


def read_time(value: str | int | float, now: datetime, key: str = "sendAt") -> datetime:
    """The instant in UTC. Refused, naming `key`, when it is none or farther than mail is planned ahead."""
    try:
        return options.near(_UNESCAPED.sub(r"\1+\2", str(value)), now)
    except ValueError as fault:
        raise Refused(f"{key} {fault}", key=key) from None


def read_bound(value: str | int | float | None, key: str) -> datetime | None:
    """The beginning or the end of what is asked for, in UTC; None where it has none. Refused as by read_time."""
    return None if value is None or value == "" else read_time(value, datetime.now(UTC), key)
