"""Statistics over HTTP: figures whose sums are made by hand, rows without gaps, zones, CSV, and no one else's."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from relay.store import db
from tests.api.client import SHOP, Client, Login
from tests.store.test_statistics import come, tally

CSV = {"Accept": "text/csv"}
STATS = "/v1/account/shop/tracking/stats"
NOTHING = {"sent": 0, "tracked": 0, "opened": 0, "open_rate": 0.0, "opens": 0, "failed": 0, "bounced": 0}


def today(hours: float = 0, days: int = 0) -> datetime:
    """This UTC day at its first hour, or so many hours after; days ago."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(hours=hours, days=-days)


def iso(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat()


@pytest.fixture
async def mailed(shop: str, pool: db.Pool) -> None:
    """The shop sent seven messages in two days and 100 forty days ago; another account sent 1,000."""
    async with db.connection(pool) as conn:
        await tally(
            conn,
            {"quarter": today(), "sent": 4, "tracked": 3, "opened": 2, "any_opened": 3, "opens": 5, "any_opens": 9},
            {"quarter": today(days=1), "sent": 3, "tracked": 3, "failed": 2, "bounced": 1, "email_type": "news"},
            {"quarter": today(days=40), "sent": 100, "tracked": 100},
        )
        await conn.execute("update tallies set account_id = 'shop'")
        await conn.execute(
            "insert into tallies (account_id, quarter, email_type, sent, tracked) select '', quarter, email_type, sent,"
            " tracked from tallies"
        )
        await tally(conn, {"account_id": "other", "quarter": today(), "sent": 1000}, {"account_id": "", "sent": 1000})
        for opens, more in ((3, {"country": "AT"}), (1, {"country": "AT", "firsts": 0}), (1, {"opener": "proxy"})):
            await come(conn, iso(today()), opens=opens, account_id="shop", **{"opener": "person", **more})
        await come(conn, iso(today()), "prefetch", opens=4, account_id="shop", country="US")


async def test_an_accounts_figures(admin: Client, mailed: None) -> None:
    found = await admin.ok("GET", STATS)
    assert found == {
        "account": "shop",
        "tz": "UTC",
        "since": iso(today(days=29)) + ".000Z",
        "total_sent": 7,
        "total_tracked": 6,
        "total_opened": 2,
        "open_rate": 33.33,
        "avg_open_count": 2.5,
        "never_opened": 4,
        "recent_24h": found["recent_24h"],  # depends on the hour at which this runs; the store's test has it
        "opened_24h": 2,
        "failed": 2,
        "bounced": 1,
        "by": None,
        "rows": None,
    }


async def test_machines_are_in_the_figures_that_ask_for_them(admin: Client, mailed: None) -> None:
    found = await admin.ok("GET", f"{STATS}?machine=true")
    names = ("total_opened", "open_rate", "avg_open_count", "never_opened", "opened_24h")
    assert tuple(found[name] for name in names) == (3, 50.0, 3.0, 3, 4)


@pytest.mark.parametrize(
    ("query", "sent"), [("days=1", 4), ("days=2", 7), ("days=all", 107), ("email_type=news", 3), ("email_type=x", 0)]
)
async def test_days_and_types_narrow(admin: Client, mailed: None, query: str, sent: int) -> None:
    assert (await admin.ok("GET", f"{STATS}?{query}"))["total_sent"] == sent


async def test_without_mail_all_is_zero(admin: Client, shop: str) -> None:
    found = await admin.ok("GET", f"{STATS}?by=day&days=all")
    assert (found["open_rate"], found["avg_open_count"], found["never_opened"]) == (0.0, 0.0, 0)
    assert found["rows"] == [{"day": today().date().isoformat(), **NOTHING}]


async def test_hours_and_weekdays_have_no_gaps(admin: Client, mailed: None) -> None:
    hours = (await admin.ok("GET", f"{STATS}?by=hour"))["rows"]
    assert [row["hour"] for row in hours] == list(range(24))
    assert hours[0] == {
        "hour": 0,
        **{"sent": 7, "tracked": 6, "opened": 2, "open_rate": 33.33, "opens": 5, "failed": 2, "bounced": 1},
    }
    assert hours[1] == {"hour": 1, **NOTHING}
    weekdays = (await admin.ok("GET", f"{STATS}?by=weekday"))["rows"]
    assert [row["weekday"] for row in weekdays] == list(range(1, 8))
    assert [row["name"][:2] for row in weekdays] == ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"]
    assert weekdays[today().weekday()]["sent"] == 4
    assert sum(row["sent"] for row in weekdays) == 7


async def test_every_day_of_the_span_has_its_row(admin: Client, mailed: None) -> None:
    for query, days in (("days=5", 5), ("days=all", 41)):
        rows = (await admin.ok("GET", f"{STATS}?by=day&{query}"))["rows"]
        expected = [today(days=number).date().isoformat() for number in reversed(range(days))]
        assert [row["day"] for row in rows] == expected
        assert [row["sent"] for row in rows[-3:]] == [0, 3, 4]


async def test_rows_by_type_country_and_opener(admin: Client, mailed: None) -> None:
    types = (await admin.ok("GET", f"{STATS}?by=email_type"))["rows"]
    assert [(row["email_type"], row["sent"], row["opens"]) for row in types] == [(None, 4, 5), ("news", 3, 0)]
    countries = (await admin.ok("GET", f"{STATS}?by=country"))["rows"]
    assert countries == [{"country": "AT", "opens": 4, "opened": 1}, {"country": None, "opens": 1, "opened": 1}]
    openers = (await admin.ok("GET", f"{STATS}?by=opener&machine=true"))["rows"]
    assert [(row["opener"], row["opens"], row["opened"]) for row in openers] == [
        ("person", 4, 2),
        ("prefetch", 4, 1),
        ("proxy", 1, 1),
    ]


async def test_the_zone_is_the_accounts_unless_another_is_named(admin: Client, mailed: None) -> None:
    """Midnight in UTC is a quarter to six in Kathmandu."""
    await admin.ok("PUT", "/v1/account/shop", {"tz": "Asia/Kathmandu"})
    for query, zone, hour in (("", "Asia/Kathmandu", 5), ("&tz=Asia/Tokyo", "Asia/Tokyo", 9)):
        found = await admin.ok("GET", f"{STATS}?by=hour{query}")
        assert found["tz"] == zone
        assert found["rows"][hour]["sent"] == 7
        assert (await admin.ok("GET", f"/v1/stats?account=shop{query}"))["tz"] == zone
    assert (await admin.ok("GET", "/v1/stats"))["tz"] == "UTC"


@pytest.mark.parametrize(
    ("query", "key"),
    [
        *(("days=0", "days"), ("days=x", "days"), ("days=3651", "days"), ("by=minute", "by"), ("page=1", "page")),
        *(("tz=Mars/Olympus", "tz"), ("tz=localtime", "tz"), ("tz=EST5EDT4", "tz"), ("machine=maybe", "machine")),
        ("email_type=%00", "email_type"),
    ],
)
async def test_what_cannot_be_asked_is_said(admin: Client, shop: str, query: str, key: str) -> None:
    status, answer = await admin.ask("GET", f"{STATS}?{query}")
    assert (status, [field["key"] for field in answer["fields"]]) == (400, [key])


async def test_all_accounts_together_one_of_them_and_ones_own(admin: Client, mailed: None, login: Login) -> None:
    own = await login("api", account="shop")
    assert (await admin.ok("GET", "/v1/stats"))["total_sent"] == 1007
    for found in (await admin.ok("GET", "/v1/stats?account=shop"), await own.ok("GET", "/v1/stats")):
        assert (found["account"], found["total_sent"]) == ("shop", 7)
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    assert (await own.ask("GET", "/v1/stats?account=other"))[0] == 403
    assert (await own.ask("GET", "/v1/account/other/tracking/stats"))[0] == 403
    assert (await admin.ask("GET", "/v1/stats?account=none"))[0] == 404
    assert (await admin.ask("GET", "/v1/account/none/tracking/stats"))[0] == 404


async def table(client: Client, path: str) -> list[dict[str, str]]:
    response = await client.open("GET", path, headers=CSV)
    assert response.status == 200
    return list(csv.DictReader(io.StringIO(await response.text())))


async def test_figures_and_rows_as_csv(admin: Client, mailed: None) -> None:
    (figures,) = await table(admin, STATS)
    assert (figures["total_sent"], figures["open_rate"], "rows" in figures) == ("7", "33.33", False)
    days = await table(admin, f"{STATS}?by=day&days=2")
    assert [(day["day"], day["sent"]) for day in days] == [
        (today(days=1).date().isoformat(), "3"),
        (today().date().isoformat(), "4"),
    ]
    assert [row["country"] for row in await table(admin, f"{STATS}?by=country")] == ["AT", ""]
    assert await table(admin, f"{STATS}?by=country&email_type=none") == []


# -- the best time to send ---------------------------------------------------------------------------------------

BEST = "/v1/account/shop/tracking/best-time"


async def hourly(pool: db.Pool, hours: dict[int, tuple[int, int]], days: int = 10, email_type: str = "") -> None:
    """Tracked and opened by the hour at which they were sent, that many days ago."""
    async with db.connection(pool) as conn:
        for hour, (tracked, opened) in hours.items():
            row = {"sent": tracked, "tracked": tracked, "opened": opened, "any_opened": tracked}
            await tally(conn, {"account_id": "shop", "quarter": today(hour, days), "email_type": email_type, **row})


async def test_without_evidence_no_time_is_best(admin: Client, shop: str) -> None:
    found = await admin.ok("GET", BEST)
    assert (found["basis"], found["deliveries"], found["best_hours"], found["best_weekdays"]) == ("account", 0, [], [])
    assert [hour["confidence"] for hour in found["hours"]] == ["none"] * 24
    assert len(found["weekdays"]) == 7


async def test_the_best_hour_comes_with_its_evidence(admin: Client, shop: str, pool: db.Pool) -> None:
    await hourly(pool, {9: (400, 240), 15: (1000, 400), 20: (5, 5)})
    found = await admin.ok("GET", BEST)
    assert found["best_hours"] == [
        {"hour": 9, "deliveries": 400, "opened": 240, "open_rate": 60.0, "opens": 0, "worth": 55.13}
        | {"confidence": "strong"}
    ]
    assert (found["deliveries"], found["opened"]) == (1405, 645)
    assert found["hours"][20]["confidence"] == "none"
    assert found["best_weekdays"] == []  # all of it was sent on one day of the week


async def test_young_mail_and_machines_are_no_evidence(admin: Client, shop: str, pool: db.Pool) -> None:
    await hourly(pool, {9: (400, 240)}, days=0)
    await hourly(pool, {15: (1000, 0)})
    found = await admin.ok("GET", BEST)
    assert (found["deliveries"], found["opened"], found["best_hours"]) == (1000, 0, [])
    assert (await admin.ask("GET", f"{BEST}?machine=true"))[0] == 400


async def test_a_type_that_everybody_opens_does_not_make_its_hour_the_best(
    admin: Client, shop: str, pool: db.Pool
) -> None:
    """Given invoices at nine and news at four, when only news is asked about, then nothing speaks for nine."""
    await hourly(pool, {9: (400, 240), 15: (100, 60)}, email_type="invoice")
    await hourly(pool, {16: (1000, 100)}, email_type="news")
    assert [hour["hour"] for hour in (await admin.ok("GET", BEST))["best_hours"]] == [9, 15]
    for one in ("invoice", "news"):
        assert (await admin.ok("GET", f"{BEST}?email_type={one}"))["best_hours"] == []


async def test_best_hours_are_in_the_zone(admin: Client, shop: str, pool: db.Pool) -> None:
    await hourly(pool, {9: (400, 240), 15: (1000, 400)})
    found = await admin.ok("GET", f"{BEST}?tz=Asia/Kathmandu")
    assert [hour["hour"] for hour in found["best_hours"]] == [14]  # 9:00 in UTC is 14:45


async def test_the_hours_as_csv(admin: Client, shop: str, pool: db.Pool) -> None:
    await hourly(pool, {9: (400, 240), 15: (1000, 400)})
    rows = await table(admin, BEST)
    assert [row["hour"] for row in rows] == [str(hour) for hour in range(24)]
    assert (rows[9]["confidence"], rows[9]["deliveries"]) == ("strong", "400")


async def test_an_unknown_account_has_no_best_time(admin: Client) -> None:
    assert (await admin.ask("GET", "/v1/account/none/tracking/best-time"))[0] == 404
