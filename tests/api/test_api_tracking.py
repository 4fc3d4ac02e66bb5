"""Tracking over HTTP: records with all their keys, notes, pages, CSV, and nothing of anybody else's."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse

from api import sheet
from api.shapes import write_cursor
from relay.core.model import Opener
from relay.store import db, opens, search
from relay.store.opens import Open
from tests.api.client import SHOP, Client, Login
from tests.store.mail import prepared, stored

BEGAN = datetime(2026, 11, 1, 9, tzinfo=UTC)
READ = BEGAN + timedelta(hours=1)
FETCH = Open(0, 1, READ, "GET", "192.0.2.7", "Reader/1", Opener.PERSON, "Reader", "It reads.", "DE", "Berlin", False)
CSV = {"Accept": "text/csv"}
RECORD = {
    "tracking_id": "1",
    "recipient_email": "ada@example.com",
    "recipient_name": None,
    "subject": "Invoice",
    "sent_at": "2026-11-01T09:01:00.000Z",
    "finished_at": "2026-11-01T09:01:00.000Z",
    "tracked": False,
    "opened": True,
    "opened_at": "2026-11-01T10:00:00.000Z",
    "open_count": 2,
    "last_opened_at": "2026-11-01T10:02:00.000Z",
    "first_ip_address": "192.0.2.7",
    "last_ip_address": "192.0.2.7",
    "first_user_agent": "Reader/1",
    "last_user_agent": "Reader/1",
    "first_opener": "person",
    "country": "DE",
    "city": "Berlin",
    "email_type": "invoice",
    "reference_type": "order",
    "reference_id": "17",
    "provider": "smtp.example.com",
    "provider_message_id": "4F2D41",
    "delivery_status": "sent",
    "delivery_error": None,
    "reported_at": None,
    "pinned": False,
    "notes": "",
}
KEYS = list(RECORD)
HUGE = write_cursor(5, False, 1, ["2026-11-01T00:00:00Z", 10**20, 0])

Done = Callable[..., Awaitable[list[str]]]


@pytest.fixture
def done(pool: db.Pool) -> Done:
    """Makes deliveries with an outcome, each a minute after the one before; their tracking ids."""

    async def done(
        *recipients: str, state: str = "sent", reply: str = "Ok: queued as 4F2D41", **given: Any
    ) -> list[str]:
        given = {"account": "shop", **given}
        async with db.connection(pool) as conn:
            (answer,) = await stored(conn, prepared(*recipients, **given))
            cursor = await conn.execute(
                "update deliveries set state = %s, attempts = 1, code = case when %s = 'sent' then 250 else 550 end,"
                " enhanced = '', reply = %s, finished_at = %s + id * interval '1 minute'"
                " where message_id = %s::uuid returning id",
                (state, state, reply, BEGAN, answer.queue_id),
            )
            made = sorted([row[0] for row in await cursor.fetchall()])
            await conn.execute(
                "insert into attempts (delivery_id, account_id, number, seconds, outcome, stage, code, reply, upstream)"
                " select id, %s, 1, 0.5, %s, 'dot', 250, %s, 'smtp.example.com:587' from unnest(%s::bigint[]) id",
                (given["account"], state, reply, made),
            )
        return [str(id) for id in made]

    return done


@pytest.fixture
def fetched(pool: db.Pool) -> Callable[..., Awaitable[None]]:
    """Records fetches of one delivery's pixel, a minute apart."""

    async def fetched(tracking_id: str, *openers: Opener, **given: Any) -> None:
        batch = [
            replace(
                FETCH,
                delivery=int(tracking_id),
                place=place,
                opener=opener,
                at=READ + timedelta(minutes=place),
                **given,
            )
            for place, opener in enumerate(openers)
        ]
        async with db.connection(pool) as conn:
            await opens.record(conn, batch)

    return fetched


async def lines(response: ClientResponse) -> list[list[str]]:
    assert response.status == 200, await response.text()
    return list(csv.reader(io.StringIO((await response.read()).decode(), newline="")))


# -- records ---------------------------------------------------------------------------------------------------------


async def test_a_record_tells_what_became_of_a_delivery(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    """Given mail that a person read twice and a machine fetched, when the list is asked for, then all of it is told."""
    (one,) = await done(
        "ada@example.com", subject="Invoice", email_type="invoice", reference_type="order", reference_id="17"
    )
    await fetched(one, Opener.PERSON, Opener.PREFETCH, Opener.PERSON)
    answer = await admin.ok("GET", "/v1/account/shop/tracking")
    assert {name: answer[name] for name in answer if name != "items"} == {
        "total": 1,
        "total_is_at_least": False,
        "page": 0,
        "pages": 1,
        "cursor": None,
        "searched_back_to": None,
    }
    (record,) = answer["items"]
    assert record == RECORD | {"tracking_id": one}


async def test_all_keys_are_there_where_nothing_is_known(admin: Client, shop: str, done: Done) -> None:
    await done("ada@example.com", reply="OK")
    (record,) = (await admin.ok("GET", "/v1/account/shop/tracking"))["items"]
    assert list(record) == KEYS
    known = {name: value for name, value in record.items() if value not in (None, "", False, 0)}
    assert set(known) == {
        "tracking_id", "recipient_email", "subject", "sent_at", "finished_at", "provider", "delivery_status"
    }  # fmt: skip


async def test_a_failure_tells_its_reply(admin: Client, shop: str, done: Done) -> None:
    await done("ada@example.com", state="failed", reply="no such mailbox")
    (record,) = (await admin.ok("GET", "/v1/account/shop/tracking"))["items"]
    assert (record["delivery_status"], record["delivery_error"]) == ("failed", "550 no such mailbox")
    assert (record["sent_at"], record["provider_message_id"]) == (None, None)


async def test_the_opens_of_machines_are_told_where_they_are_asked_for(
    admin: Client, shop: str, done: Done, fetched: Any
) -> None:
    (one,) = await done("ada@example.com")
    await fetched(one, Opener.PREFETCH, Opener.PERSON)
    shown = [(await admin.ok("GET", f"/v1/account/shop/tracking{query}"))["items"] for query in ("", "?machine=true")]
    assert [(record["open_count"], record["first_opener"]) for (record,) in shown] == [(1, "person"), (2, "prefetch")]


async def test_one_record_tells_its_tries_and_every_fetch(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    (one,) = await done("ada@example.com")
    await fetched(one, Opener.SELF, Opener.PERSON)
    record = await admin.ok("GET", f"/v1/account/shop/tracking/{one}")
    assert set(record) == {*KEYS, "queue_id", "message_id", "attempts", "judged", "fetches"}
    assert (len(record["queue_id"]), record["message_id"]) == (32, "<x@example.com>")
    assert record["judged"] == {"person": 1, "self": 1}
    assert [fetch["opener"] for fetch in record["fetches"]] == ["person", "self"]
    assert record["fetches"][0] == {
        "at": "2026-11-01T10:01:00.000Z",
        "opener": "person",
        "client": "Reader",
        "reason": "It reads.",
        "address": "192.0.2.7",
        "user_agent": "Reader/1",
        "country": "DE",
        "city": "Berlin",
    }
    (attempt,) = record["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["provider"]) == (1, "sent", "smtp.example.com")


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT"])
async def test_a_record_that_is_not_there_is_a_404(admin: Client, shop: str, done: Done, method: str) -> None:
    """Given one record, when it is asked for by names that are wrong, cut, huge or made up, then there is none."""
    await done("ada@example.com")
    body = None if method == "GET" else {"pinned": True}
    for name in ("0", "-1", "01", "1.0", "99", "x", "%00", "9" * 18, "9" * 19, "9" * 40, "1" * 3000, "١", "1%20"):
        status, _ = await admin.ask(method, f"/v1/account/shop/tracking/{name}", body)
        assert status == 404, name


async def test_a_record_of_another_account_is_a_404(admin: Client, shop: str, done: Done, login: Login) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    (one,) = await done("ada@example.com")
    other = await login("*", account="other")
    for client in (admin, other):
        status, error = await client.ask("GET", f"/v1/account/other/tracking/{one}")
        assert (status, error["code"]) == (404, "RecordNotFound")


async def test_mail_that_waits_has_no_record(admin: Client, shop: str, done: Done) -> None:
    (one,) = await done("ada@example.com", state="deferred")
    assert (await admin.ok("GET", "/v1/account/shop/tracking"))["total"] == 0
    assert (await admin.ask("GET", f"/v1/account/shop/tracking/{one}"))[0] == 404


# -- lists -----------------------------------------------------------------------------------------------------------


async def test_a_list_goes_on_by_page_and_by_cursor(admin: Client, shop: str, done: Done) -> None:
    made = await done(*(f"r{number}@example.com" for number in range(5)))
    pages = [await admin.ok("GET", "/v1/account/shop/tracking?limit=2")]
    while cursor := pages[-1]["cursor"]:
        pages.append(await admin.ok("GET", f"/v1/account/shop/tracking?limit=2&cursor={cursor}"))
    numbered = [await admin.ok("GET", f"/v1/account/shop/tracking?limit=2&page={page}") for page in range(4)]
    assert [record["tracking_id"] for page in pages for record in page["items"]] == made[::-1]
    assert [(page["total"], page["page"], page["pages"]) for page in pages] == [(5, 0, 3), (5, 1, 3), (5, 2, 3)]
    assert [page["items"] for page in numbered] == [*(page["items"] for page in pages), []]


async def test_every_filter_is_heard(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    await done("plain@example.com")
    (wanted,) = await done(
        "wanted@example.com", subject="Invoice", email_type="bill", reference_type="order", reference_id="17"
    )
    await fetched(wanted, Opener.PERSON)
    await admin.ok("PATCH", f"/v1/account/shop/tracking/{wanted}", {"pinned": True})
    for query in (
        *("email_type=bill", "opened=true", "reference_type=order", "reference_id=17", "pinned=true"),
        *("search=invoice", "recipient=WANTED@example.com", "days=3650&opened=true", "status=sent&search=wanted"),
    ):
        answer = await admin.ok("GET", f"/v1/account/shop/tracking?{query}")
        assert [record["tracking_id"] for record in answer["items"]] == [wanted], query


async def test_a_search_tells_how_far_it_looked(
    admin: Client, shop: str, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", 2)
    monkeypatch.setattr(search, "DENSE", 0)
    (needle,) = await done("needle@example.com")
    await done("a@example.com", "b@example.com")
    first = await admin.ok("GET", "/v1/account/shop/tracking?search=needle")
    assert (first["items"], first["total"], first["total_is_at_least"]) == ([], 0, True)
    assert first["searched_back_to"] == "2026-11-01T09:02:00.000Z"
    second = await admin.ok("GET", f"/v1/account/shop/tracking?search=needle&cursor={first['cursor']}")
    assert [record["tracking_id"] for record in second["items"]] == [needle]
    assert (second["cursor"], second["searched_back_to"]) == (None, None)


@pytest.mark.parametrize(
    "queries",
    [
        ("limit=0", "limit=1001", "limit=x", "page=-1", "page=1&page=2", "pageSize=2", "limit=1000&page=1001"),
        ("emailType=x", "days=0", "days=3651", "days=x", "opened=perhaps", "status=lost", "search=%00"),
        ("cursor=x", "cursor=W10", "cursor=WzEsMiwzXQ", f"cursor={HUGE}", f"cursor={'x' * 801}"),
    ],
)
async def test_a_query_that_cannot_be_is_a_400(admin: Client, shop: str, queries: tuple[str, ...]) -> None:
    for query in queries:
        assert (await admin.ask("GET", f"/v1/account/shop/tracking?{query}"))[0] == 400, query


async def test_an_unknown_parameter_is_named(admin: Client, shop: str) -> None:
    _, error = await admin.ask("GET", "/v1/account/shop/tracking?emailType=x")
    assert error["fields"] == [{"message": "is not a known field", "key": "emailType"}]


async def test_an_unknown_account_is_a_404(admin: Client) -> None:
    status, error = await admin.ask("GET", "/v1/account/nobody/tracking")
    assert (status, error["code"]) == (404, "AccountNotFound")


# -- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_note_stays_until_it_is_removed(admin: Client, shop: str, done: Done, method: str) -> None:
    (one,) = await done("ada@example.com")
    path = f"/v1/account/shop/tracking/{one}"
    assert (await admin.ok(method, path, {"notes": "called ☎"}))["notes"] == "called ☎"
    pinned = await admin.ok(method, path, {"pinned": True})
    assert (pinned["pinned"], pinned["notes"]) == (True, "called ☎")
    assert (await admin.ok(method, path, {"notes": "", "pinned": None}))["pinned"] is True
    assert (await admin.ok("GET", path))["notes"] == ""


async def test_a_note_that_cannot_be_is_a_400(admin: Client, shop: str, done: Done) -> None:
    (one,) = await done("ada@example.com")
    long = "x" * 10_001
    for body in (
        {},
        {"pinned": None},
        {"pinned": "true"},
        {"notes": 1},
        {"notes": "\0"},
        {"notes": long},
        {"note": "x"},
    ):
        assert (await admin.ask("PATCH", f"/v1/account/shop/tracking/{one}", body))[0] == 400, body


# -- CSV -------------------------------------------------------------------------------------------------------------


async def test_csv_is_the_whole_list_with_a_header(
    admin: Client, shop: str, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more records than are read at once, when CSV is asked for, then it has every one, in order."""
    monkeypatch.setattr(sheet, "PAGE", 2)
    made = await done(*(f"r{number}@example.com" for number in range(5)), subject='=HYPERLINK("x"), Grüße')
    response = await admin.open("GET", "/v1/account/shop/tracking", headers=CSV)
    assert response.content_type == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="tracking.csv"'
    assert response.headers["X-Request-Id"]
    header, *rows = await lines(response)
    assert header == KEYS
    assert [row[0] for row in rows] == made[::-1]
    assert {row[3] for row in rows} == {'\'=HYPERLINK("x"), Grüße'}
    assert (rows[0][4], rows[0][7], rows[0][9]) == ("2026-11-01T09:05:00.000Z", "false", "0")


async def test_csv_ends_at_its_bound(admin: Client, shop: str, done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "PAGE", 2)
    monkeypatch.setattr(sheet, "MOST", 3)
    await done(*(f"r{number}@example.com" for number in range(5)))
    assert len(await lines(await admin.open("GET", "/v1/account/shop/tracking", headers=CSV))) == 4


async def test_csv_of_one_page_leads_to_the_next(admin: Client, shop: str, done: Done) -> None:
    made = await done(*(f"r{number}@example.com" for number in range(3)))
    first = await admin.open("GET", "/v1/account/shop/tracking?limit=2&status=sent", headers=CSV)
    assert [row[0] for row in (await lines(first))[1:]] == made[:0:-1]
    second = await admin.open("GET", str(first.links["next"]["url"].relative()), headers=CSV)
    assert [row[0] for row in (await lines(second))[1:]] == made[:1]
    assert "Link" not in second.headers


async def test_csv_of_nothing_is_a_header(admin: Client, shop: str) -> None:
    assert await lines(await admin.open("GET", "/v1/account/shop/tracking", headers=CSV)) == [KEYS]


async def test_head_of_csv_has_no_lines(admin: Client, shop: str, done: Done) -> None:
    await done("ada@example.com")
    response = await admin.open("HEAD", "/v1/account/shop/tracking", headers=CSV)
    assert (response.status, response.content_type, await response.read()) == (200, "text/csv", b"")


async def test_an_error_is_json_whatever_was_asked_for(admin: Client, shop: str) -> None:
    response = await admin.open("GET", "/v1/account/shop/tracking?days=0", headers=CSV)
    assert (response.status, response.content_type) == (400, "application/json")


async def test_a_fault_in_the_middle_of_a_file_cuts_it(
    admin: Client, shop: str, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a store that fails at the second page, when CSV is read, then it does not look whole."""
    monkeypatch.setattr(sheet, "PAGE", 2)
    await done(*(f"r{number}@example.com" for number in range(5)))
    real, asked = search.find, []

    async def failing(*given: Any, **more: Any) -> Any:
        asked.append(given)
        if len(asked) > 1:
            raise RuntimeError("the second page")
        return await real(*given, **more)

    monkeypatch.setattr(search, "find", failing)
    with pytest.raises(ClientError):
        await lines(await admin.open("GET", "/v1/account/shop/tracking", headers=CSV))
    assert len(asked) == 2


async def test_csv_of_another_account_is_refused(admin: Client, shop: str, login: Login) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    other = await login("*", account="other")
    assert (await other.ask("GET", "/v1/account/shop/tracking", headers=CSV))[0] == 403


async def test_the_document_tells_of_csv(nobody: Client) -> None:
    document = await nobody.ok("GET", "/openapi.json")
    for path, has in (
        ("/v1/account/{account}/tracking", True),
        ("/v1/account/{account}/tracking/{tracking_id}", False),
    ):
        assert ("text/csv" in document["paths"][path]["get"]["responses"]["200"]["content"]) is has


# -- recent opens ----------------------------------------------------------------------------------------------------


async def test_recent_opens_come_with_their_delivery(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    (one,) = await done("ada@example.com", subject="Invoice", reference_id="17")
    await fetched(one, Opener.PERSON, Opener.PREFETCH, Opener.SELF)
    (item,) = (await admin.ok("GET", "/v1/opens/recent"))["items"]
    assert item == {
        "at": "2026-11-01T10:00:00.000Z",
        "opener": "person",
        "client": "Reader",
        "reason": "It reads.",
        "address": "192.0.2.7",
        "user_agent": "Reader/1",
        "country": "DE",
        "city": "Berlin",
        "account": "shop",
        "tracking_id": one,
        "recipient_email": "ada@example.com",
        "recipient_name": None,
        "subject": "Invoice",
        "email_type": None,
        "reference_type": None,
        "reference_id": "17",
    }


async def test_recent_opens_are_those_that_count(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    (one,) = await done("ada@example.com")
    await fetched(one, Opener.PERSON, Opener.PREFETCH, Opener.PROXY, Opener.SELF, Opener.SCANNER)
    for query, openers in (
        ("", ["proxy", "person"]),
        ("?machine=true", ["scanner", "proxy", "prefetch", "person"]),
        ("?opener=self", ["self"]),
        ("?opener=prefetch", ["prefetch"]),
    ):
        found = await admin.ok("GET", f"/v1/opens/recent{query}")
        assert [item["opener"] for item in found["items"]] == openers, query


async def test_recent_opens_go_on_by_cursor_and_as_csv(admin: Client, shop: str, done: Done, fetched: Any) -> None:
    (one,) = await done("ada@example.com")
    await fetched(one, *[Opener.PERSON] * 3)
    first = await admin.ok("GET", "/v1/opens/recent?limit=2")
    second = await admin.ok("GET", f"/v1/opens/recent?limit=2&cursor={first['cursor']}")
    assert [len(page["items"]) for page in (first, second)] == [2, 1]
    assert second["cursor"] is None
    header, *rows = await lines(await admin.open("GET", "/v1/opens/recent", headers=CSV))
    assert (header[0], [row[0] for row in rows]) == (
        "at",
        [item["at"] for page in (first, second) for item in page["items"]],
    )


async def test_a_bound_token_sees_its_own_opens_alone(
    admin: Client, shop: str, done: Done, fetched: Any, login: Login
) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    (mine,), (theirs,) = await done("a@example.com"), await done("b@example.com", account="other")
    await fetched(mine, Opener.PERSON)
    await fetched(theirs, Opener.PERSON)
    bound = await login("api", account="shop")
    assert [item["tracking_id"] for item in (await bound.ok("GET", "/v1/opens/recent"))["items"]] == [mine]
    assert (await bound.ask("GET", "/v1/opens/recent?account=other"))[0] == 403
    found = await admin.ok("GET", "/v1/opens/recent?account=other")
    assert [item["tracking_id"] for item in found["items"]] == [theirs]
