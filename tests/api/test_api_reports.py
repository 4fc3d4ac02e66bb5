"""Reports over HTTP: what was read and what came of it; what it did to deliveries, in the outbox and in tracking."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay import bounces
from relay.core.bounce import Reported, judge
from relay.core.prose import Told
from relay.core.report import Kind
from relay.store import db, rollups, search
from tests.api.client import Client
from tests.store.mail import prepared, stored

AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
UNKNOWN = Told("ann@there.example", "failed", "5.1.1", "550 5.1.1 no such user", "mx.there.example", "smtp")

Sent = Callable[..., Awaitable[str]]
Report = Callable[..., Awaitable[int]]


@pytest.fixture
def sent(pool: db.Pool) -> Sent:
    """Mail that upstream took an hour before the report: its queueId."""

    async def sent(*recipients: str, header: str = "<m@x.example>", state: str = "sent", **given: Any) -> str:
        message = replace(prepared(*recipients, account="shop", **given), message_id=header)
        async with db.connection(pool) as conn:
            await stored(conn, message)
            await conn.execute(
                f"""
                with applied as (
                    update deliveries set state = %s, ready = false, attempts = 1, code = 250, enhanced = '2.0.0',
                        reply = 'Ok: queued as 4F2D41', finished_at = %s
                    where message_id = %s returning *
                ), {rollups.FINISHED} select from applied
                """.encode(),
                (state, AT - timedelta(hours=1), message.id),
            )
        return message.queue_id

    return sent


@pytest.fixture
def report(pool: db.Pool) -> Report:
    """A report that was read."""

    async def report(*said: Told, kind: Kind = Kind.BOUNCE, message_id: str = "<m@x.example>", **given: Any) -> int:
        key = str(given.pop("key", (kind, said, message_id)))
        found = Reported(kind, "imap", key, message_id, tuple(map(judge, said)), **{"at": AT, "place": "p1", **given})
        async with db.connection(pool) as conn:
            return await bounces.record(conn, "shop", found)

    return report


async def test_a_report_tells_what_was_read_and_what_came_of_it(
    admin: Client, shop: str, sent: Sent, report: Report
) -> None:
    queue_id = await sent("Ann@there.example")
    await report(UNKNOWN, replace(UNKNOWN, recipient="eve@else.example", status="", diagnostic="", mta=""))
    (item,) = (await admin.ok("GET", "/v1/account/shop/reports"))["items"]
    named = {
        "action": "failed",
        "status": "5.1.1",
        "message": "550 5.1.1 no such user",
        "mta": "mx.there.example",
        "category": "unknown_user",
        "recommendedAction": "remove",
    }
    assert isinstance(item.pop("id"), int)
    assert item == {
        "kind": "bounce",
        "source": "imap",
        "message": "p1",
        "messageId": "<m@x.example>",
        "at": "2026-11-20T09:30:00.000Z",
        "matched": 1,
        "changed": 1,
        "recipients": [
            {**named, "recipient": "ann@there.example", "sentTo": "Ann@there.example", "queueId": queue_id}
            | {"changed": True},
            {
                **named,
                **{"recipient": "eve@else.example", "status": None, "message": None, "mta": None},
                **{"category": "refused", "recommendedAction": "review"},
                **{"sentTo": None, "queueId": None, "changed": False},
            },
        ],
    }  # fmt: skip


async def test_reports_are_narrowed_and_paged_newest_first(
    admin: Client, shop: str, sent: Sent, report: Report
) -> None:
    await sent("ann@there.example")
    for number in range(3):
        await report(UNKNOWN, message_id=f"<{number}@else>", at=AT + timedelta(minutes=number))
    await report(Told("ann@there.example"), kind=Kind.COMPLAINT, at=AT - timedelta(hours=2))

    async def listed(**query: Any) -> list[tuple[str, str]]:
        found = await admin.ok("GET", "/v1/account/shop/reports", params=query)
        return [(one["kind"], one["messageId"]) for one in found["items"]]

    others = [("bounce", f"<{number}@else>") for number in (2, 1, 0)]
    complaint = [("complaint", "<m@x.example>")]
    assert await listed() == others + complaint
    assert await listed(kind="complaint") == complaint
    assert await listed(matched="true") == complaint
    assert await listed(matched="false", kind="bounce") == others
    first = await admin.ok("GET", "/v1/account/shop/reports", params={"pageSize": 3})
    assert (first["total"], first["pages"]) == (4, 2)
    assert await listed(pageSize=3, cursor=first["cursor"]) == complaint
    assert await listed(pageSize=3, page=1) == complaint


@pytest.mark.parametrize("query", [{"kind": "dsn"}, {"matched": "x"}, {"cursor": "x"}, {"account": "shop"}])
async def test_what_cannot_be_asked_is_refused(admin: Client, shop: str, query: dict[str, str]) -> None:
    response = await admin.open("GET", "/v1/account/shop/reports", params=query)
    assert response.status == 400


async def test_no_account_has_no_reports(admin: Client, shop: str) -> None:
    response = await admin.open("GET", "/v1/account/nobody/reports")
    assert response.status == 404


async def test_the_outbox_shows_what_was_reported_of_a_delivery(
    admin: Client, shop: str, sent: Sent, report: Report
) -> None:
    queue_id = await sent("ann@there.example", "bob@there.example")
    await report(UNKNOWN)
    entry = await admin.ok("GET", f"/v1/outbox/{queue_id}")
    bounced, fine = sorted(entry["deliveries"], key=lambda one: one["recipient"])
    assert (bounced["state"], bounced["finished"]) == ("bounced", fine["finished"])
    assert bounced["report"] == {
        "kind": "bounce",
        "action": "failed",
        "status": "5.1.1",
        "message": "550 5.1.1 no such user",
        "mta": "mx.there.example",
        "category": "unknown_user",
        "recommendedAction": "remove",
        "at": "2026-11-20T09:30:00.000Z",
    }
    assert (fine["state"], fine["report"]) == ("sent", None)
    assert entry["states"] == {"sent": 1, "bounced": 1}
    assert entry["progress"] == {
        "status": "bounced",
        "response": None,
        "error": {"message": "550 5.1.1 no such user", "code": "unknown_user", "statusCode": None},
    }


async def test_a_warning_is_shown_on_what_is_still_sent(admin: Client, shop: str, sent: Sent, report: Report) -> None:
    queue_id = await sent("ann@there.example")
    await report(replace(UNKNOWN, action="delayed", status="4.4.1", diagnostic="connection timed out"))
    entry = await admin.ok("GET", f"/v1/outbox/{queue_id}")
    (delivery,) = entry["deliveries"]
    assert (delivery["state"], entry["progress"]["status"]) == ("sent", "submitted")
    assert (delivery["report"]["action"], delivery["report"]["category"]) == ("delayed", "unreachable")


@pytest.mark.parametrize("kind", [Kind.BOUNCE, Kind.COMPLAINT])
async def test_what_bounced_is_too_late_to_cancel_like_what_was_sent(
    admin: Client, shop: str, sent: Sent, report: Report, kind: Kind
) -> None:
    queue_id = await sent("ann@there.example", "bob@there.example")
    await report(UNKNOWN, kind=kind)
    assert (await admin.ok("DELETE", f"/v1/outbox/{queue_id}"))["sent"] == 2


async def test_tracking_tells_of_bounces_and_complaints(admin: Client, shop: str, sent: Sent, report: Report) -> None:
    for name in ("ann", "bob", "cid"):
        await sent(f"{name}@there.example", header=f"<{name}@x>")
    await sent("dan@there.example", state="failed")
    await report(UNKNOWN, message_id="<ann@x>")
    await report(Told("bob@there.example"), kind=Kind.COMPLAINT, message_id="<bob@x>")

    async def listed(**query: str) -> dict[str, tuple[Any, ...]]:
        found = await admin.ok("GET", "/v1/account/shop/tracking", params=query)
        assert found["total"] == len(found["items"])
        return {
            one["recipient_email"][:3]: (one["delivery_status"], one["delivery_error"], bool(one["reported_at"]))
            for one in found["items"]
        }

    ann, bob = ("bounced", "550 5.1.1 no such user", True), ("complained", "complaint", True)
    cid, dan = ("sent", None, False), ("failed", "250 2.0.0 Ok: queued as 4F2D41", False)
    assert await listed() == {"ann": ann, "bob": bob, "cid": cid, "dan": dan}
    assert await listed(status="bounced") == {"ann": ann}
    assert await listed(status="complained") == {"bob": bob}
    assert await listed(status="sent") == {"cid": cid}
    assert await listed(status="failed") == {"dan": dan}


async def test_a_bounce_takes_nothing_from_what_was_sent(admin: Client, shop: str, sent: Sent, report: Report) -> None:
    await sent("ann@there.example")
    await report(UNKNOWN)
    (record,) = (await admin.ok("GET", "/v1/account/shop/tracking"))["items"]
    assert (record["sent_at"], record["finished_at"]) == ("2026-11-20T08:30:00.000Z",) * 2
    assert record["provider_message_id"] == "4F2D41"
    detail = await admin.ok("GET", f"/v1/account/shop/tracking/{record['tracking_id']}")
    assert detail["delivery_status"] == "bounced"
    noted = await admin.ok("PATCH", f"/v1/account/shop/tracking/{record['tracking_id']}", {"pinned": True})
    assert noted["pinned"]
    stats = await admin.ok("GET", "/v1/account/shop/tracking/stats")
    assert (stats["total_sent"], stats["failed"], stats["bounced"]) == (1, 0, 1)
    person = (await admin.ok("GET", "/v1/account/shop/recipients/ann@there.example"))["recipient"]
    assert (person["sent"], person["failed"], person["bounced"]) == (1, 0, 1)


async def test_a_sheet_has_the_bounces(admin: Client, shop: str, sent: Sent, report: Report) -> None:
    await sent("ann@there.example")
    await report(UNKNOWN)
    response = await admin.open("GET", "/v1/account/shop/tracking", headers={"Accept": "text/csv"})
    (line,) = csv.DictReader(io.StringIO((await response.read()).decode("utf-8-sig"), newline=""))
    assert (line["delivery_status"], line["delivery_error"]) == ("bounced", "550 5.1.1 no such user")


async def test_many_are_counted_by_the_sums(
    admin: Client, shop: str, sent: Sent, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lists do not count row by row is told by the sums: of what is still sent, without what came back."""
    for name in ("COUNTED", "WINDOW", "DENSE"):
        monkeypatch.setattr(search, name, 1)
    people = [f"{name}@there.example" for name in ("ann", "bob", "cid", "dan", "eve")]
    await sent(*people, email_type="news")
    await report(*(replace(UNKNOWN, recipient=one) for one in people[:2]))
    await report(Told(people[2]), kind=Kind.COMPLAINT)
    for query, total in (({}, 5), ({"status": "sent"}, 2), ({"status": "bounced"}, 2)):
        for typed in ({}, {"email_type": "news"}):
            found = await admin.ok("GET", "/v1/account/shop/tracking", params={"limit": "1", **query, **typed})
            assert (found["total"], found["total_is_at_least"]) == (total, False), (query, typed)
