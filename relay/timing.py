"""The best time to send: what the sums tell of an account, and one recipient's own habits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from relay.core import score
from relay.core.score import Judged, Slot
from relay.store import recipients, statistics
from relay.store.db import Connection
from relay.store.statistics import Span, Sums

HOURS, WEEKDAYS = range(24), range(1, 8)
Look = tuple[datetime, datetime | None]  # sent, first seen


@dataclass(frozen=True, slots=True)
class Times:
    """Hours from 0 and weekdays from Monday, judged. `deliveries` and `opened` are those of whom it was asked."""

    basis: str  # account or recipient: whose opens it was drawn from
    deliveries: int
    opened: int
    hours: Sequence[Judged]
    weekdays: Sequence[Judged]


async def of_account(conn: Connection, span: Span) -> Times:
    """Of mail that was sent in the span and is a day old: what is younger may still be opened."""
    hours, weekdays = await _sums(conn, span)
    tracked, opened = sum(slot.deliveries for slot in hours), sum(slot.opened for slot in hours)
    return Times("account", tracked, opened, score.by_rate(hours), score.by_rate(weekdays))


async def of_recipient(conn: Connection, span: Span, address: str) -> Times:
    """Of the recipient's own first looks at each message; the account's, where there are none."""
    looks = await recipients.looks(conn, span, address)
    if not any(seen for _, seen in looks):
        return replace(await of_account(conn, span), deliveries=len(looks), opened=0)
    hours, weekdays = await _sums(conn, span)
    own_hours, own_weekdays = _own(looks, HOURS, _hour), _own(looks, WEEKDAYS, datetime.isoweekday)
    return Times(
        "recipient",
        len(looks),
        sum(slot.opened for slot in own_hours),
        score.by_opens(own_hours, [slot.opens for slot in hours]),
        score.by_opens(own_weekdays, [slot.opens for slot in weekdays]),
    )


def _own(looks: Sequence[Look], keys: range, part: Callable[[datetime], int]) -> list[Slot]:
    """One person's slots. However often a message was looked at, it is one open: that of the first look."""
    sent = Counter(part(sent) for sent, _ in looks)
    opened = Counter(part(sent) for sent, seen in looks if seen)
    opens = Counter(part(seen) for _, seen in looks if seen)
    return [Slot(sent[key], opened[key], opens[key]) for key in keys]


def _hour(at: datetime) -> int:
    return at.hour


async def _sums(conn: Connection, span: Span) -> tuple[list[Slot], list[Slot]]:
    """The account's hours and weekdays, without what is younger than a day."""
    settled = replace(span, until=span.now - score.YOUNG, machine=False)
    hours = await statistics.rows(conn, settled, "hour")
    weekdays = await statistics.rows(conn, settled, "weekday")
    return _filled(hours, HOURS), _filled(weekdays, WEEKDAYS)


def _filled(found: Mapping[int, Sums], keys: range) -> list[Slot]:
    sums = [found.get(key, Sums()) for key in keys]
    return [Slot(one.tracked, one.opened, one.opens) for one in sums]
