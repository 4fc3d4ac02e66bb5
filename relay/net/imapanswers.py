"""What a mailbox answers, as values that were checked: servers send nonsense, and tell of mail nobody asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from imapclient.response_parser import parse_fetch_response  # type: ignore[import-untyped]

from relay.net.imapfolders import Nonsense

MOST = 1 << 63  # numbers of IMAP have 32 bits; there are servers that do not know, and our tables hold 63
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Attributes = dict[bytes, Any]
"""Of one mail, by their names in upper case."""


@dataclass(frozen=True, slots=True)
class Status:
    """A folder, from outside (RFC 3501 6.3.10)."""

    uidvalidity: int
    uidnext: int
    messages: int


@dataclass(frozen=True, slots=True)
class Selected:
    r"""A folder, from inside. `flags_kept`: it stores flags of one's own naming, such as $Forwarded.

    `uidnext`: no mail that is there has this UID or a higher one.
    """

    path: str
    uidvalidity: int
    uidnext: int
    exists: int
    flags_kept: bool


@dataclass(frozen=True, slots=True)
class Brief:
    r"""A mail in short. `size` in bytes; `flags` as they came, e.g. \Seen; `date`: UTC, 1970 where it is no date."""

    uid: int
    size: int
    flags: frozenset[str]
    date: datetime


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a mail was stored (RFC 4315 3)."""

    uidvalidity: int
    uid: int


def number(value: Any, least: int = 0) -> int:
    """Raises ValueError for what is none."""
    found = int(value) if isinstance(value, int | bytes) else -1
    if not least <= found < MOST:
        raise ValueError(f"{value!r} is no number here")
    return found


def fetched(data: Sequence[Any]) -> dict[int, Attributes]:
    """By UID what FETCH told. `data`: as imaplib keeps it.

    Each answer is read by itself, and one without a UID is about no mail that we asked for: imapclient would take its
    sequence number for a UID.
    """
    found: dict[int, Attributes] = {}
    for attributes in _answers(data):
        uid = attributes.get(b"UID")
        if isinstance(uid, int) and 0 < uid < MOST:
            found.setdefault(uid, {}).update(attributes)
    return found


def _answers(data: Sequence[Any]) -> Iterator[Attributes]:
    """One that nobody can read spoils no other."""
    answer: list[Any] = []
    for part in data:
        answer.append(part)
        if isinstance(part, tuple):  # a literal: there is more to come
            continue
        with suppress(Nonsense, ValueError, TypeError, AttributeError, LookupError):
            yield from parse_fetch_response(answer, normalise_times=False, uid_is_key=False).values()
        answer = []


def brief(uid: int, attributes: Attributes) -> Brief | None:
    """None where it says nothing of the mail itself."""
    flags, size = attributes.get(b"FLAGS"), attributes.get(b"RFC822.SIZE")
    if not isinstance(size, int) or not isinstance(flags, tuple):
        return None
    kept = frozenset(flag.decode("ascii", "replace") for flag in flags if isinstance(flag, bytes))
    return Brief(uid, size, kept, _utc(attributes.get(b"INTERNALDATE")))


def _utc(date: Any) -> datetime:
    with suppress(ValueError, OverflowError):
        if isinstance(date, datetime):
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    return EPOCH


def body(attributes: Attributes) -> bytes | None:
    """The part of the mail that was asked for, under whatever name it comes; NIL is nothing."""
    for name, value in attributes.items():
        if name.startswith(b"BODY["):
            return value if isinstance(value, bytes) else b""
    return None
