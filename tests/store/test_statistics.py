"""Statistics are sums that can be added up by hand, in any zone, on days of 23 and of 25 hours."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from relay import enrol
from relay.core.errors import Refused
from relay.store import db, statistics
from relay.store.statistics import Came, Span, Sums, Totals

NOW = datetime(2026, 11, 20, 12, 5, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def tally(conn: db.Connection, *rows: dict[str, Any]) -> None:
    """Rows of `tallies`: account "a", no type, and nothing counted, unless said."""
    for row in rows:
        given = {"account_id": "a", "quarter": NOW, "email_type": "", **row}
        given["quarter"] = at(given["quarter"]) if isinstance(given["quarter"], str) else given["quarter"]
        names = ", ".join(given)
        places = ", ".join(f"%({name})s" for name in given)
        await conn.execute(f"insert into tallies ({names}) values ({places})".encode(), given)


async def come(conn: db.Connection, quarter: str, opener: str = "person", opens: int = 1, **more: Any) -> None:
    """A row of `open_tallies`."""
    counts = opener in ("person", "proxy")
    given = {
        "account_id": "a",
        "quarter": at(quarter),
        "email_type": "",
        "opener": opener,
        "client": "",
        "country": "",
        "opens": opens,
        "firsts": 1 if counts else 0,
        "any_firsts": 0 if opener == "self" else 1,
        **more,
    }
    await conn.execute(
        "insert into open_tallies (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts)"
        " values (%(account_id)s, %(quarter)s, %(email_type)s, %(opener)s, %(client)s, %(country)s, %(opens)s,"
        " %(firsts)s, %(any_firsts)s)",
        given,
    )


def span(since: str | None = None, **more: Any) -> Span:
    return Span("a", NOW, since=at(since) if since else None, **more)


async def test_totals_add_up_news_and_folded_rows_of_the_span_alone(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await tally(
            conn,
            {"quarter": "2026-11-01T00:00", "sent": 5, "tracked": 4, "opened": 2, "opens": 6, "folded": True},
            {"quarter": "2026-11-01T00:00", "sent": 1, "tracked": 1, "failed": 2, "bounced": 1},
            {"quarter": "2026-10-31T23:45", "sent": 100, "tracked": 100, "opened": 50, "opens": 50},
            {"quarter": "2026-11-01T00:00", "account_id": "b", "sent": 1000},
        )
        found = await statistics.totals(conn, span("2026-11-01T00:00"))
        assert found == Totals(6, 5, failed=2, bounced=1, opened=2, opens=6, sent_lately=0, opened_lately=0)


async def test_machines_count_where_they_are_asked_for(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await tally(conn, {"tracked": 9, "opened": 1, "any_opened": 4, "opens": 2, "any_opens": 8})
        for opener in ("person", "proxy", "prefetch", "scanner", "unknown", "self"):
            await come(conn, "2026-11-20T08:00", opener, opens=10)
        persons = await statistics.totals(conn, span())
        all_of_them = await statistics.totals(conn, span(machine=True))
        assert (persons.opened, persons.opens, persons.opened_lately) == (1, 2, 2)
        assert (all_of_them.opened, all_of_them.opens, all_of_them.opened_lately) == (4, 8, 5)
        assert list(await statistics.openers(conn, span(), "opener")) == ["person", "proxy"]
        hours = await statistics.rows(conn, span(machine=True), "hour")
        assert hours[8].opens == 50


async def test_the_last_day_is_counted_in_whole_quarters(pool: db.Pool) -> None:
    """At 12:05 the last 24 hours begin in the quarter from 12:00 of yesterday, however short the span is."""
    async with db.connection(pool) as conn:
        await tally(
            conn, {"quarter": "2026-11-19T12:00", "sent": 3}, {"quarter": "2026-11-19T11:45", "sent": 50}, {"sent": 4}
        )
        await come(conn, "2026-11-19T12:00")
        await come(conn, "2026-11-19T11:45")
        found = await statistics.totals(conn, span("2026-11-20T12:00"))
        assert (found.sent, found.sent_lately, found.opened_lately) == (4, 7, 1)


async def test_a_type_narrows_all_of_it(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await tally(conn, {"email_type": "invoice", "sent": 2}, {"email_type": "news", "sent": 5}, {"sent": 7})
        await come(conn, "2026-11-20T09:00", email_type="news", country="DE")
        await come(conn, "2026-11-20T09:00", email_type="invoice", country="AT")
        found = await statistics.totals(conn, span(email_type="invoice"))
        assert (found.sent, found.sent_lately, found.opened_lately) == (2, 2, 1)
        assert await statistics.openers(conn, span(email_type="invoice"), "country") == {"AT": Came(1, 1)}
        assert await statistics.rows(conn, span(), "email_type") == {
            "invoice": Sums(sent=2, opens=1),
            "news": Sums(sent=5, opens=1),
            "": Sums(sent=7),
        }


async def test_opened_goes_with_what_was_sent_and_opens_with_when_they_came(pool: db.Pool) -> None:
    """Given mail of nine that was opened at eleven, then nine has the rate and eleven the opens."""
    async with db.connection(pool) as conn:
        await tally(conn, {"quarter": "2026-11-20T09:15", "sent": 4, "tracked": 4, "opened": 3, "opens": 5})
        await come(conn, "2026-11-20T11:30", opens=5)
        assert await statistics.rows(conn, span(), "hour") == {
            9: Sums(sent=4, tracked=4, opened=3),
            11: Sums(opens=5),
        }


@pytest.mark.parametrize(
    ("zone", "hour", "weekday", "day"),
    [
        ("UTC", 22, 5, date(2026, 11, 20)),
        ("Europe/Berlin", 23, 5, date(2026, 11, 20)),
        ("Asia/Kathmandu", 4, 6, date(2026, 11, 21)),  # 5:45 ahead: 22:15 there is 4:00
        ("Pacific/Chatham", 12, 6, date(2026, 11, 21)),  # 13:45 ahead in summer, which is now
        ("America/St_Johns", 18, 5, date(2026, 11, 20)),  # 3:30 behind
    ],
)
async def test_a_quarter_belongs_to_the_zones_hour(
    pool: db.Pool, zone: str, hour: int, weekday: int, day: date
) -> None:
    async with db.connection(pool) as conn:
        await tally(conn, {"quarter": "2026-11-20T22:15", "sent": 1})
        assert await statistics.rows(conn, span(zone=zone), "hour") == {hour: Sums(sent=1)}
        assert await statistics.rows(conn, span(zone=zone), "weekday") == {weekday: Sums(sent=1)}
        assert await statistics.rows(conn, span(zone=zone), "day") == {day: Sums(sent=1)}


async def test_the_quarter_before_kathmandus_full_hour_is_the_hour_before(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await tally(conn, {"quarter": "2026-11-20T22:00", "sent": 1}, {"quarter": "2026-11-20T22:15", "sent": 2})
        hours = await statistics.rows(conn, span(zone="Asia/Kathmandu"), "hour")
        assert hours == {3: Sums(sent=1), 4: Sums(sent=2)}


@pytest.mark.parametrize("zone", ["CET", "EET", "MET", "WET", "EST", "MST", "HST", "GMT", "NZ", "GB", "EST5EDT"])
@pytest.mark.parametrize("month", ["2026-01", "2026-07"])
async def test_a_zone_that_has_an_abbreviations_name_keeps_its_summer_time(
    pool: db.Pool, zone: str, month: str
) -> None:
    """PostgreSQL reads `CET` as an hour ahead of UTC all year."""
    quarter = at(f"{month}-15T12:00")
    there = quarter.astimezone(ZoneInfo(zone))
    begin = there.replace(hour=0).astimezone(UTC)
    async with db.connection(pool) as conn:
        await tally(conn, {"quarter": quarter, "sent": 1})
        assert await statistics.rows(conn, span(zone=zone), "hour") == {there.hour: Sums(sent=1)}
        assert await statistics.begun(conn, quarter, 1, zone) == (begin, there.date(), there.date())


def quarters(first: str, hours: int) -> Iterable[datetime]:
    return (at(first) + number * timedelta(minutes=15) for number in range(4 * hours))


@pytest.mark.parametrize(
    ("day", "first", "hours", "twice", "never"),
    [
        (date(2026, 3, 29), "2026-03-28T23:00", 23, None, 2),
        (date(2026, 10, 25), "2026-10-24T22:00", 25, 2, None),
        (date(2026, 11, 20), "2026-11-19T23:00", 24, None, None),
    ],
)
async def test_berlins_days_have_their_own_length(
    pool: db.Pool, day: date, first: str, hours: int, twice: int | None, never: int | None
) -> None:
    """Given one message a quarter, then a day has as many as it has quarters, and all of them are its own."""
    async with db.connection(pool) as conn:
        around = [at(first) - timedelta(minutes=15), at(first) + timedelta(hours=hours)]
        await tally(conn, *({"quarter": quarter, "sent": 1} for quarter in [*quarters(first, hours), *around]))
        days = await statistics.rows(conn, span(zone="Europe/Berlin"), "day")
        assert days[day] == Sums(sent=4 * hours)
        assert {one: sums.sent for one, sums in days.items() if one != day} == {
            day - timedelta(days=1): 1,
            day + timedelta(days=1): 1,
        }
        within = Span("a", NOW, since=at(first), until=at(first) + timedelta(hours=hours), zone="Europe/Berlin")
        by_hour = await statistics.rows(conn, within, "hour")
        assert {hour for hour in range(24) if hour not in by_hour} == ({never} - {None})
        assert {hour for hour, sums in by_hour.items() if sums.sent == 8} == ({twice} - {None})


@pytest.mark.parametrize(
    ("now", "days", "zone", "since", "first", "today"),
    [
        ("2026-11-20T12:05", 1, "UTC", "2026-11-20T00:00", date(2026, 11, 20), date(2026, 11, 20)),
        ("2026-11-20T12:05", 30, "UTC", "2026-10-22T00:00", date(2026, 10, 22), date(2026, 11, 20)),
        ("2026-11-20T23:30", 1, "Europe/Berlin", "2026-11-20T23:00", date(2026, 11, 21), date(2026, 11, 21)),
        ("2026-11-20T12:05", 30, "Europe/Berlin", "2026-10-21T22:00", date(2026, 10, 22), date(2026, 11, 20)),
        ("2026-11-20T12:05", 1, "Asia/Kathmandu", "2026-11-19T18:15", date(2026, 11, 20), date(2026, 11, 20)),
        # in Havana summer time ends at one o'clock, which is midnight again; in Cairo it begins at midnight
        ("2026-11-01T12:00", 1, "America/Havana", "2026-11-01T04:00", date(2026, 11, 1), date(2026, 11, 1)),
        ("2026-04-24T12:00", 1, "Africa/Cairo", "2026-04-23T22:00", date(2026, 4, 24), date(2026, 4, 24)),
    ],
)
async def test_a_span_begins_at_a_midnight_of_its_zone(
    pool: db.Pool, now: str, days: int, zone: str, since: str, first: date, today: date
) -> None:
    async with db.connection(pool) as conn:
        assert await statistics.begun(conn, at(now), days, zone) == (at(since), first, today)


async def test_a_zone_that_the_database_does_not_know_is_refused_by_name(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        with pytest.raises(Refused, match="Mars/Olympus"):
            await statistics.begun(conn, NOW, 1, "Mars/Olympus")


def test_the_zone_of_whatever_host_this_is_is_none() -> None:
    assert "localtime" not in enrol.zones()
    assert {"UTC", "Europe/Berlin"} <= enrol.zones()


async def test_countries_come_with_the_most_opens_first(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await come(conn, "2026-11-20T09:00", "proxy", opens=4)
        await come(conn, "2026-11-20T09:00", country="AT", opens=2)
        await come(conn, "2026-11-20T09:15", country="AT", opens=5, firsts=0)
        await come(conn, "2026-11-20T09:15", country="DE", opens=1)
        await come(conn, "2026-11-20T09:15", "scanner", country="US", opens=99)
        found = await statistics.openers(conn, span(), "country")
        assert list(found.items()) == [("AT", Came(7, 1)), ("", Came(4, 1)), ("DE", Came(1, 1))]


async def test_the_sums_over_all_accounts_are_read_apart(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await tally(conn, {"sent": 2}, {"account_id": "", "sent": 7})
        found = await statistics.totals(conn, Span(statistics.EVERYBODY, NOW))
        assert found.sent == 7


async def test_types_without_end_are_told_by_the_thousand_with_the_most(pool: db.Pool) -> None:
    """A tenant may give each mail a type of its own, and they are in the sums of all accounts too."""
    async with db.connection(pool) as conn:
        await conn.execute(
            "insert into tallies (account_id, quarter, email_type, sent) select 'a', %s, 't' || n, n"
            " from generate_series(1, %s) n",
            (NOW, statistics.MOST + 1),
        )
        found = await statistics.rows(conn, span(), "email_type")
    assert len(found) == statistics.MOST
    assert "t1" not in found
    assert found["t2"] == Sums(sent=2)
