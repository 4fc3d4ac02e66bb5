"""The best time to send over HTTP: hours and weekdays with their evidence, of an account or one recipient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from api.analytics import Answer, Query
from api.call import Call
from api.shapes import AccountId, Instant, Words
from api.statistics import WEEKDAYS, Days, Zone, begin
from relay import timing
from relay.core import score
from relay.core.score import Confidence, Judged, percent
from relay.store import db
from relay.store.statistics import Span


class Search(Query):
    recipient: Words = Field("", description="This recipient's own habits.")
    email_type: Words = Field("", description="Only mail of this type: types differ more than hours do.")
    days: Days = 90
    tz: Zone = ""


class Slot(Answer):
    """An hour or weekday with its evidence."""

    deliveries: int = Field(description="Tracked messages that were sent then.")
    opened: int = Field(description="Of those: opened, whenever that was.")
    open_rate: float
    opens: int = Field(description="Opens that came then; of a recipient the first one of each message.")
    worth: float = Field(
        description="What slots are ranked by, in percent: of an account the open rate that its evidence allows at"
        " least; of a recipient its share of the opens, drawn towards the account's."
    )
    confidence: Confidence = Field(description="none, weak (chance may explain it), fair or strong.")


class _Hour(Answer):
    hour: int


class _Weekday(Answer):
    weekday: int = Field(description="1 to 7 from Monday.")
    name: str


class Hour(Slot, _Hour):
    """One hour of the day."""


class Weekday(Slot, _Weekday):
    """One day of the week."""


class Best(Answer):
    """Persons' and proxies' opens alone. What is best is left empty where there is no evidence."""

    basis: str = Field(description="account or recipient: whose opens it was drawn from.")
    deliveries: int = Field(description="Tracked messages, of the recipient where one was asked for.")
    opened: int
    best_hours: list[Hour] = Field(description="At most three, the best first.")
    best_weekdays: list[Weekday]


class BestTime(Best):
    """Best hours and weekdays, and all of them. CSV has the hours."""

    sheet: ClassVar[str] = "best-time"
    account: str
    tz: str
    since: Instant | None
    hours: list[Hour]
    weekdays: list[Weekday]

    def line(self) -> type[Answer]:
        return Hour

    def lines(self) -> Sequence[Answer]:
        return self.hours


async def show(call: Call, account: AccountId, query: Search) -> BestTime:
    """The best time to send, with how much evidence there is."""
    async with call.turn() as conn:
        begun = await begin(call, conn, account, query.days, query.tz)
        span = Span(
            account=account,
            now=begun.now,
            since=begun.since,
            email_type=query.email_type or None,
            zone=begun.zone,
        )
        found = await _times(conn, span, query.recipient)
    return BestTime(
        **best(found),
        account=account,
        tz=span.zone,
        since=span.since,
        hours=[_hour(one) for one in found.hours],
        weekdays=[_weekday(one) for one in found.weekdays],
    )


async def _times(conn: db.Connection, span: Span, recipient: str) -> timing.Times:
    return await (timing.of_recipient(conn, span, recipient) if recipient else timing.of_account(conn, span))


def best(found: timing.Times) -> dict[str, Any]:
    """The fields of Best."""
    return {
        "basis": found.basis,
        "deliveries": found.deliveries,
        "opened": found.opened,
        "best_hours": [_hour(one) for one in score.best(found.hours)],
        "best_weekdays": [_weekday(one) for one in score.best(found.weekdays)],
    }


def _hour(one: Judged) -> Hour:
    return Hour(hour=one.place, **_slot(one))


def _weekday(one: Judged) -> Weekday:
    return Weekday(weekday=one.place + 1, name=WEEKDAYS[one.place], **_slot(one))


def _slot(one: Judged) -> dict[str, Any]:
    return {
        "deliveries": one.slot.deliveries,
        "opened": one.slot.opened,
        "open_rate": percent(one.slot.opened, one.slot.deliveries),
        "opens": one.slot.opens,
        "worth": round(100 * one.worth, 2),
        "confidence": one.confidence,
    }
