"""Recipients over HTTP: figures, doubts, pages to the end, and one recipient's whole history."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from api.shapes import write_cursor
from relay.core.model import Opener
from relay.store import db, opens
from relay.store.opens import Open
from tests.api.client import SHOP, Client, Login
from tests.store.mail import prepared, stored
from tests.store.test_recipients import PIXEL, person

CSV = {"Accept": "text/csv"}
NOW = datetime.now(UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
async def known(shop: str, pool: db.Pool) -> None:
    """Three recipients of the shop: one who reads, one who never did, one whose mail failed."""
    async with db.connection(pool) as conn:
        await person(
            conn,
            "ada@x.example",
            of="shop",
            name="Ada",
            **{"sent": 10, "tracked": 10, "opened": 8, "any_opened": 9, "opens": 12, "any_opens": 20, "failed": 1},
            first_sent_at=ago(days=90),
            last_sent_at=ago(days=1),
            last_opened_at=ago(days=30),
            any_last_opened_at=ago(days=2),
        )
        silent = {"sent": 5, "tracked": 4, "any_opened": 1, "any_opens": 1}
        await person(conn, "bob@x.example", of="shop", **silent, first_sent_at=ago(days=9), last_sent_at=ago(days=2))
        await person(conn, "eve@x.example", of="shop", failed=3, first_sent_at=None, last_sent_at=None)


async def test_a_recipients_figures(admin: Client, known: None) -> None:
    found = await admin.ok("GET", "/v1/recipients?account=shop")
    assert (found["total"], found["total_is_at_least"], found["pages"], found["cursor"]) == (3, False, 1, None)
    assert found["items"][0] == {
        "account": "shop",
        "address": "ada@x.example",
        "name": "Ada",
        "sent": 10,
        "tracked": 10,
        "opened": 8,
        "open_rate": 80.0,
        "opens": 12,
        "engagement": 49,  # the formula's own example
        "first_sent": text(ago(days=90)),
        "last_sent": text(ago(days=1)),
        "last_opened": text(ago(days=30)),
        "failed": 1,
        "bounced": 0,
        "likely_fake": {"likely": False, "reasons_it_may_be_wrong": []},
    }


async def test_machines_are_in_the_figures_that_ask_for_them(admin: Client, known: None) -> None:
    found = (await admin.ok("GET", "/v1/recipients?machine=true"))["items"][0]
    assert (found["opened"], found["opens"], found["open_rate"]) == (9, 20, 90.0)
    assert found["last_opened"] == text(ago(days=2))


async def test_who_never_opened_is_likely_fake_and_may_not_be(admin: Client, known: None) -> None:
    found = (await admin.ok("GET", "/v1/recipients?likely_fake=true"))["items"]
    assert [one["address"] for one in found] == ["bob@x.example"]
    reasons = " ".join(found[0]["likely_fake"]["reasons_it_may_be_wrong"])
    for words in ("blocked", "Machines fetched the pictures of 1 message", "1 message had no pixel", "none came back"):
        assert words in reasons
    others = (await admin.ok("GET", "/v1/recipients?likely_fake=false"))["items"]
    assert [one["address"] for one in others] == ["ada@x.example", "eve@x.example"]
    assert (await admin.ok("GET", "/v1/recipients?likely_fake=true&machine=true"))["total"] == 0


async def test_without_mail_that_arrived_nothing_is_known(admin: Client, known: None) -> None:
    found = (await admin.ok("GET", "/v1/recipients?search=eve@x.example"))["items"][0]
    assert (found["engagement"], found["open_rate"], found["first_sent"], found["last_sent"]) == (None, 0.0, None, None)


@pytest.mark.parametrize(
    ("sort", "order"),
    [("last_sent", "abe"), ("address", "abe"), ("sent", "abe"), ("engagement", "abe"), ("open_rate", "abe")],
)
async def test_every_order_leads_to_the_end(admin: Client, known: None, sort: str, order: str) -> None:
    found, cursor = "", ""
    for _ in range(3):
        page = await admin.ok("GET", f"/v1/recipients?sort={sort}&limit=1&cursor={cursor}")
        found += page["items"][0]["address"][0]
        cursor = page["cursor"]
        assert (page["total"], page["pages"]) == (3, 3)
    assert (found, cursor) == (order, None)
    assert (await admin.ok("GET", f"/v1/recipients?sort={sort}&limit=1&page=2"))["items"][0]["address"][0] == order[2]


async def test_a_cursor_of_any_offset_is_read(admin: Client, known: None) -> None:
    """Anybody may write one, with an offset that PostgreSQL does not know."""
    cursor = write_cursor(3, False, 1, ["shop", "a@x", "2126-11-20T00:00:00+23:59"])
    assert (await admin.ok("GET", f"/v1/recipients?cursor={cursor}"))["items"]


@pytest.mark.parametrize(
    ("query", "key"),
    [
        *(("sort=name", "sort"), ("limit=0", "limit"), ("likely_fake=2", "likely_fake"), ("search=%00", "search")),
        ("cursor=x", "cursor"),
        (f"cursor={write_cursor(3, False, 1, ['shop', 'a@x', 'tomorrow'])}", "cursor"),
        (f"cursor={write_cursor(3, False, 1, ['shop', 'a@x', '0001-01-01T00:00:00+14:00'])}", "cursor"),
        (f"cursor={write_cursor(3, False, 1, 20)}", "cursor"),  # of another order
        (f"sort=sent&cursor={write_cursor(3, False, 1, 10**9)}", "cursor"),
        ("page=1000000", "page"),
    ],
)
async def test_what_cannot_be_asked_is_said(admin: Client, shop: str, query: str, key: str) -> None:
    status, answer = await admin.ask("GET", f"/v1/recipients?{query}")
    assert (status, [field["key"] for field in answer["fields"]]) == (400, [key])


async def test_as_csv_each_is_a_line(admin: Client, known: None) -> None:
    response = await admin.open("GET", "/v1/recipients?sort=address", headers=CSV)
    lines = list(csv.DictReader(io.StringIO(await response.text())))
    assert [line["address"] for line in lines] == ["ada@x.example", "bob@x.example", "eve@x.example"]
    assert [line["likely_fake"] for line in lines] == ["false", "true", "false"]
    assert "blocked" in lines[1]["reasons_it_may_be_wrong"]


async def test_each_tenant_sees_its_own(admin: Client, known: None, login: Login, pool: db.Pool) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    async with db.connection(pool) as conn:
        await person(conn, "ada@x.example", of="other", sent=1)
    own = await login("api", account="other")
    found = (await own.ok("GET", "/v1/recipients"))["items"]
    assert [(one["account"], one["sent"]) for one in found] == [("other", 1)]
    assert (await own.ask("GET", "/v1/recipients?account=shop"))[0] == 403
    assert (await own.ask("GET", "/v1/account/shop/recipients/ada%40x.example"))[0] == 403
    assert (await own.ask("GET", "/v1/account/other/recipients/bob%40x.example"))[0] == 404
    assert (await admin.ok("GET", "/v1/recipients"))["total"] == 4


# -- one recipient -----------------------------------------------------------------------------------------------


async def mailed(pool: db.Pool, address: str, *times: datetime, read_after: timedelta | None = None) -> list[int]:
    """Tracked mail of the shop's, as outcomes and fetches leave it; each opened so long after."""
    made = []
    async with db.connection(pool) as conn:
        for number, time in enumerate(times):
            (answer,) = await stored(conn, prepared(address, account="shop", splice=PIXEL, subject=f"number {number}"))
            cursor = await conn.execute(
                "update deliveries set state = 'sent', finished_at = %s where message_id = %s::uuid returning id",
                (time, answer.queue_id),
            )
            made += [row[0] for row in await cursor.fetchall()]
        sums = {"sent": len(times), "tracked": len(times), "first_sent_at": min(times), "last_sent_at": max(times)}
        await person(conn, address.lower(), of="shop", **sums)
        if read_after is not None:
            await opens.record(conn, [_opened(id, time + read_after) for id, time in zip(made, times, strict=True)])
    return made


def _opened(delivery: int, at: datetime) -> Open:
    return Open(delivery, 1, at, "GET", "192.0.2.7", "Reader", Opener.PERSON, "Reader", "It reads.", "", "", False)


def noon(days: int) -> datetime:
    return (NOW - timedelta(days=days)).replace(hour=12, minute=0, second=0, microsecond=0)


async def test_a_recipients_whole_history_newest_first(admin: Client, shop: str, pool: db.Pool) -> None:
    ids = await mailed(pool, "Ada@x.example", *(noon(days) for days in (5, 4, 3)), read_after=timedelta(hours=1))
    path = "/v1/account/shop/recipients/ADA%40x.example?limit=2"
    first = await admin.ok("GET", path)
    assert first["recipient"]["address"] == "ada@x.example"
    assert (first["recipient"]["sent"], first["recipient"]["opened"], first["total"]) == (3, 3, 3)
    assert [one["tracking_id"] for one in first["items"]] == [str(ids[2]), str(ids[1])]
    assert [one["open_count"] for one in first["items"]] == [1, 1]
    second = await admin.ok("GET", f"{path}&cursor={first['cursor']}")
    assert [one["tracking_id"] for one in second["items"]] == [str(ids[0])]
    assert second["cursor"] is None


async def test_a_habit_is_the_recipients_own(admin: Client, shop: str, pool: db.Pool) -> None:
    """Given six messages sent at noon, each opened three hours later, then 15:00 is the hour, with fair evidence."""
    await mailed(pool, "ada@x.example", *(noon(days) for days in range(2, 8)), read_after=timedelta(hours=3))
    best = (await admin.ok("GET", "/v1/account/shop/recipients/ada%40x.example"))["best_time"]
    assert (best["basis"], best["deliveries"], best["opened"]) == ("recipient", 6, 6)
    assert [(hour["hour"], hour["opens"], hour["confidence"]) for hour in best["best_hours"]] == [(15, 6, "fair")]
    path = "/v1/account/shop/tracking/best-time?recipient=ada@x.example&tz=Asia/Kathmandu"
    found = await admin.ok("GET", path)
    assert [hour["hour"] for hour in found["best_hours"]] == [20]  # 15:00 in UTC is 20:45
    assert found["hours"][17]["deliveries"] == 6


async def test_who_never_opened_is_given_the_accounts_time(admin: Client, shop: str, pool: db.Pool) -> None:
    await mailed(pool, "ada@x.example", noon(2), noon(3))
    found = await admin.ok("GET", "/v1/account/shop/tracking/best-time?recipient=ada@x.example")
    assert (found["basis"], found["deliveries"], found["opened"], found["best_hours"]) == ("account", 2, 0, [])


@pytest.mark.parametrize(
    "address", ["a/b@x.example", "{a}@x.example", "a%2Fb@x.example", "jörg+news@x.example", "?#@x"]
)
async def test_whatever_an_address_may_hold_is_found(admin: Client, shop: str, pool: db.Pool, address: str) -> None:
    await mailed(pool, address, noon(2))
    found: Any = await admin.ok("GET", f"/v1/account/shop/recipients/{quote(address, safe='')}")
    assert found["items"][0]["recipient_email"] == address


async def test_nobody_is_a_404(admin: Client, shop: str) -> None:
    status, answer = await admin.ask("GET", "/v1/account/shop/recipients/nobody%40x.example")
    assert (status, answer["code"]) == (404, "RecipientNotFound")
    assert (await admin.ask("GET", "/v1/account/none/recipients/nobody%40x.example"))[1]["code"] == "AccountNotFound"
    long = "a" * 257
    assert (await admin.ask("GET", f"/v1/account/shop/recipients/{long}"))[0] == 400


async def test_a_history_as_csv_is_its_deliveries(admin: Client, shop: str, pool: db.Pool) -> None:
    await mailed(pool, "ada@x.example", noon(3), noon(2))
    response = await admin.open("GET", "/v1/account/shop/recipients/ada%40x.example", headers=CSV)
    lines = list(csv.DictReader(io.StringIO(await response.text())))
    assert [line["subject"] for line in lines] == ["number 1", "number 0"]
