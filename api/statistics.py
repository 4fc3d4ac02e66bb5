"""Statistics over HTTP: how much was sent and opened, for an account or for all, and told apart in many ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from api.analytics import Answer, Machine, Query
from api.call import Call
from api.shapes import AccountId, Instant, Words
from relay import enrol
from relay.core.errors import Refused
from relay.core.model import Opener
from relay.core.score import percent
from relay.store import db, statistics
from relay.store.statistics import EVERYBODY, Span, Sums

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
Days = Annotated[
    Annotated[int, Field(ge=1, le=3650)] | Literal["all"],
    Field(description="So many days of the zone, today being the last; or `all`."),
]
Zone = Annotated[Words, Field(description="Time zone, e.g. `Europe/Berlin`; else the account's, and UTC for all.")]


class Search(Query):
    email_type: Words = Field("", description="Only this type.")
    days: Days = 30
    by: Literal["email_type", "hour", "weekday", "day", "country", "opener"] | None = Field(
        None, description="Adds `rows`, one for each."
    )
    tz: Zone = ""
    machine: Machine = False


class SearchAll(Search):
    account: AccountId | None = Field(None, description="Only this account's.")


class Cohort(Answer):
    """Of what was sent then, but for `opens`: those came then, whenever their mail was sent."""

    sent: int = Field(description="Deliveries: a message counts for each recipient.")
    tracked: int = Field(description="Of those: with a pixel.")
    opened: int = Field(description="Of those: opened at least once.")
    open_rate: float = Field(description="Percent of the tracked ones.")
    opens: int = Field(description="Looks that came then, repeated ones too.")
    failed: int = Field(description="Given up.")
    bounced: int = Field(description="Came back after they were sent.")


class _Hour(Answer):
    hour: int = Field(description="0 to 23.")


class _Weekday(Answer):
    weekday: int = Field(description="1 to 7 from Monday.")
    name: str = Field(examples=["Monday"])


class _Day(Answer):
    day: date


class _Type(Answer):
    email_type: str | None = Field(description="Null: mail without one.")


class HourRow(Cohort, _Hour):
    """One hour of the day."""


class WeekdayRow(Cohort, _Weekday):
    """One day of the week."""


class DayRow(Cohort, _Day):
    """One day."""


class TypeRow(Cohort, _Type):
    """One type of mail."""


class CountryRow(Answer):
    """Opens that came from one country."""

    country: str | None = Field(description="ISO 3166 code; null is unknown, as for proxies always.", examples=["AT"])
    opens: int = Field(description="That came from there.")
    opened: int = Field(description="Messages whose first open came from there.")


class OpenerRow(Answer):
    """Opens that came by one kind of opener."""

    opener: Opener
    opens: int = Field(description="Of this kind.")
    opened: int = Field(description="Messages whose first open was of this kind.")


Row = HourRow | WeekdayRow | DayRow | TypeRow | CountryRow | OpenerRow
KINDS: Mapping[str, type[Answer]] = {
    "hour": HourRow,
    "weekday": WeekdayRow,
    "day": DayRow,
    "email_type": TypeRow,
    "country": CountryRow,
    "opener": OpenerRow,
}


class Figures(Answer):
    """Opens count where their mail was sent. `recent_24h` and `opened_24h` count whole quarters of an hour."""

    account: str | None = Field(description="Null: all accounts together.")
    tz: str
    since: Instant | None = Field(description="Midnight of the first day; null: from the beginning.")
    total_sent: int = Field(description="Deliveries: a message counts for each recipient.")
    total_tracked: int = Field(description="Of those: with a pixel.")
    total_opened: int = Field(description="Of those: opened.")
    open_rate: float = Field(description="Percent of the tracked ones.")
    avg_open_count: float = Field(description="Opens of each message that was opened.")
    never_opened: int = Field(description="Tracked, and not opened.")
    recent_24h: int = Field(description="Sent in the last 24 hours.")
    opened_24h: int = Field(description="Opened for the first time in the last 24 hours.")
    failed: int = Field(description="Given up.")
    bounced: int = Field(description="Came back after they were sent.")


class Statistics(Figures):
    """The figures, and with `by` their rows."""

    sheet: ClassVar[str] = "statistics"
    by: str | None
    rows: Sequence[Row] | None

    def line(self) -> type[Answer]:
        return KINDS[self.by] if self.by else Figures

    def lines(self) -> Sequence[Answer]:
        return [self] if self.rows is None else self.rows


@dataclass(frozen=True, slots=True)
class Begun:
    """The days that are asked for, in their zone; `first` is None where there is no beginning."""

    now: datetime
    zone: str
    since: datetime | None
    first: date | None
    today: date


async def of_account(call: Call, account: AccountId, query: Search) -> Statistics:
    """Figures of an account's mail."""
    return await _statistics(call, account, query)


async def of_all(call: Call, query: SearchAll) -> Statistics:
    """Figures of all accounts together; a token that is bound to an account sees that account's."""
    return await _statistics(call, await call.narrowed(query.account), query)


async def begin(call: Call, conn: db.Connection, account: str | None, days: int | str, tz: str) -> Begun:
    """Reads days and zone. Refused for a zone that nobody knows, 404 for such an account."""
    home = (await call.account(account)).tz if account else "UTC"
    zone, now = tz or home, datetime.now(UTC)
    if zone not in enrol.zones():
        raise Refused("tz is not a known time zone (example: Europe/Berlin)", key="tz", code="InvalidFields")
    since, first, today = await statistics.begun(conn, now, 1 if days == "all" else int(days), zone)
    return Begun(now, zone, None, None, today) if days == "all" else Begun(now, zone, since, first, today)


async def _statistics(call: Call, account: str | None, query: Search) -> Statistics:
    async with call.turn() as conn:
        begun = await begin(call, conn, account, query.days, query.tz)
        span = Span(
            account=account or EVERYBODY,
            now=begun.now,
            since=begun.since,
            email_type=query.email_type or None,
            zone=begun.zone,
            machine=query.machine,
        )
        found = await statistics.totals(conn, span)
        rows = await _rows(conn, span, begun, query.by) if query.by else None
    return Statistics(
        account=account,
        tz=span.zone,
        since=span.since,
        total_sent=found.sent,
        total_tracked=found.tracked,
        total_opened=found.opened,
        open_rate=percent(found.opened, found.tracked),
        avg_open_count=round(found.opens / found.opened, 2) if found.opened else 0.0,
        never_opened=found.tracked - found.opened,
        recent_24h=found.sent_lately,
        opened_24h=found.opened_lately,
        failed=found.failed,
        bounced=found.bounced,
        by=query.by,
        rows=rows,
    )


async def _rows(conn: db.Connection, span: Span, begun: Begun, by: str) -> list[Row]:
    """Hours, weekdays and days without gaps; the others with the most first."""
    if by in ("country", "opener"):
        came = await statistics.openers(conn, span, by)
        if by == "country":
            return [CountryRow(country=key or None, opens=one.opens, opened=one.firsts) for key, one in came.items()]
        return [OpenerRow(opener=Opener(key), opens=one.opens, opened=one.firsts) for key, one in came.items()]
    found = await statistics.rows(conn, span, by)
    match by:
        case "hour":
            return [HourRow(hour=hour, **_sums(found, hour)) for hour in range(24)]
        case "weekday":
            days = enumerate(WEEKDAYS, 1)
            return [WeekdayRow(weekday=number, name=name, **_sums(found, number)) for number, name in days]
        case "day":
            return [DayRow(day=day, **_sums(found, day)) for day in _days(begun, found)]
        case _:
            types = sorted(found, key=lambda key: (-found[key].sent, key))
            return [TypeRow(email_type=key or None, **_sums(found, key)) for key in types]


def _days(begun: Begun, found: Mapping[date, Sums]) -> list[date]:
    first = begun.first or min(found, default=begun.today)
    return [first + timedelta(days=number) for number in range((begun.today - first).days + 1)]


def _sums(found: Mapping[Any, Sums], key: Any) -> dict[str, Any]:
    one = found.get(key, Sums())
    return {
        "sent": one.sent,
        "tracked": one.tracked,
        "opened": one.opened,
        "open_rate": percent(one.opened, one.tracked),
        "opens": one.opens,
        "failed": one.failed,
        "bounced": one.bounced,
    }
