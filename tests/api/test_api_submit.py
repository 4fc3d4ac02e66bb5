"""Submit over HTTP: stored before it is answered, every option kept, every fault named."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relay import metrics
from relay.store import db, messages
from tests.api.client import Client

ADA = {"name": "Ada", "address": "ada@example.com"}
HELLO = {"to": ADA, "subject": "Hello", "text": "Hello Ada"}
SUBMIT = "/v1/account/shop/submit"


async def stored(pool: db.Pool, queue_id: str) -> dict[str, Any]:
    """The message's row with its body."""
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select to_jsonb(m) from messages m where id = %s", (UUID(queue_id),))
        row = await cursor.fetchone()
        bodies = await messages.bodies(conn, [UUID(queue_id)])
    assert row is not None
    return {**row[0], "content": bodies[UUID(queue_id)]}


async def recipients(pool: db.Pool, queue_id: str) -> list[tuple[str, ...]]:
    async with db.connection(pool) as conn:
        cursor = await conn.execute(
            "select recipient, name, state::text, ready, max_attempts from deliveries"
            " where message_id = %s order by id",
            (UUID(queue_id),),
        )
        return await cursor.fetchall()


async def test_what_is_answered_is_stored(admin: Client, shop: str, pool: db.Pool) -> None:
    answer = await admin.ok("POST", SUBMIT, HELLO)
    assert answer["response"] == "Queued for delivery"
    message = await stored(pool, answer["queueId"])
    assert (message["account_id"], message["ingress"], message["sender"]) == ("shop", "api", "shop@example.com")
    assert message["message_id"] == answer["messageId"]
    assert b"The Shop" in message["content"]
    assert [row[:4] for row in await recipients(pool, answer["queueId"])] == [
        ("ada@example.com", "Ada", "queued", True)
    ]


async def test_bcc_receives_and_is_not_seen(admin: Client, shop: str, pool: db.Pool) -> None:
    given = {**HELLO, "cc": [{"address": "bob@example.com"}], "bcc": {"address": "eve@example.com"}}
    queue_id = (await admin.ok("POST", SUBMIT, given))["queueId"]
    message = await stored(pool, queue_id)
    assert b"eve@example.com" not in message["content"]
    assert message["bcc"] == ["eve@example.com"]
    assert [row[0] for row in await recipients(pool, queue_id)] == [
        "ada@example.com",
        "bob@example.com",
        "eve@example.com",
    ]


async def test_the_envelope_decides_who_sends_and_receives(admin: Client, shop: str, pool: db.Pool) -> None:
    envelope = {"from": "bounces@example.com", "to": ["list@example.net"]}
    queue_id = (await admin.ok("POST", SUBMIT, {**HELLO, "envelope": envelope}))["queueId"]
    assert (await stored(pool, queue_id))["sender"] == "bounces@example.com"
    assert [row[0] for row in await recipients(pool, queue_id)] == ["list@example.net"]


async def test_options_are_kept(admin: Client, shop: str, pool: db.Pool) -> None:
    given = {
        **HELLO,
        "html": "<p>Hello</p>",
        "deliveryAttempts": 3,
        "priority": "bulk",
        "trackOpens": False,
        "emailType": "invoice",
        "referenceType": "order",
        "referenceId": "4711",
        "tz": "Europe/Berlin",
        "copy": False,
        "sentMailPath": "Gesendet",
    }
    queue_id = (await admin.ok("POST", SUBMIT, given))["queueId"]
    message = await stored(pool, queue_id)
    assert (message["email_type"], message["reference_type"], message["reference_id"]) == ("invoice", "order", "4711")
    assert message["splice"] is None
    assert message["priority"] == 2
    assert set(message["options"].values()) >= {"Europe/Berlin", "Gesendet", "none"}
    assert (await recipients(pool, queue_id))[0][4] == 3


async def test_html_is_tracked_unless_told_otherwise(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = (await admin.ok("POST", SUBMIT, {"to": ADA, "html": "<p>Hello</p>"}))["queueId"]
    assert (await stored(pool, queue_id))["splice"] is not None


@pytest.mark.parametrize("form", ["iso", "rfc", "epoch", "number"])
async def test_a_time_ahead_is_waited_for(admin: Client, shop: str, pool: db.Pool, form: str) -> None:
    at = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    forms: dict[str, Any] = {
        "iso": at.isoformat(),
        "rfc": at.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        "epoch": str(int(at.timestamp())),
        "number": int(at.timestamp()),
    }
    answer = await admin.ok("POST", SUBMIT, {**HELLO, "sendAt": forms[form]})
    assert datetime.fromisoformat(answer["sendAt"]) == at
    assert (await recipients(pool, answer["queueId"]))[0][3] is False


async def test_a_time_that_has_passed_is_now(admin: Client, shop: str, pool: db.Pool) -> None:
    answer = await admin.ok("POST", SUBMIT, {**HELLO, "sendAt": "2001-01-01T00:00:00Z"})
    assert abs(datetime.fromisoformat(answer["sendAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (await recipients(pool, answer["queueId"]))[0][3] is True


RAW = (
    b"From: Shop <shop@example.com>\r\nTo: Ada <Ada@example.com>\r\nBcc: eve@example.com\r\nSubject: Raw\r\n"
    b"\r\nHello\r\n"
)


async def test_raw_is_sent_as_it_is(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = (await admin.ok("POST", SUBMIT, {"raw": base64.b64encode(RAW).decode()}))["queueId"]
    message = await stored(pool, queue_id)
    assert message["content"].endswith(b"\r\n\r\nHello\r\n")
    assert b"eve@" not in message["content"]
    assert [row[0] for row in await recipients(pool, queue_id)] == ["Ada@example.com", "eve@example.com"]


async def test_the_lines_of_a_raw_message_may_end_as_a_files_do(admin: Client, shop: str, pool: db.Pool) -> None:
    queue_id = (await admin.ok("POST", SUBMIT, {"raw": base64.b64encode(RAW.replace(b"\r", b"")).decode()}))["queueId"]
    assert (await stored(pool, queue_id))["content"].endswith(b"Subject: Raw\r\n\r\nHello\r\n")
    mixed = {"raw": base64.b64encode(RAW + b"so\nso\r\n").decode()}
    assert (await admin.ask("POST", SUBMIT, mixed))[0] == 400


async def test_a_dry_run_shows_and_stores_nothing(admin: Client, shop: str, pool: db.Pool) -> None:
    answer = await admin.ok("POST", SUBMIT, {**HELLO, "dryRun": True})
    assert answer["response"] == "Dry run"
    assert b"Hello Ada" in base64.b64decode(answer["preview"])
    assert "queueId" not in answer
    assert (await admin.ok("GET", "/v1/outbox"))["total"] == 0


async def test_the_same_key_and_body_get_the_first_answer(admin: Client, shop: str) -> None:
    headers = {"Idempotency-Key": "order-4711"}
    first = await admin.ok("POST", SUBMIT, HELLO, headers=headers)
    second = await admin.ok("POST", SUBMIT, HELLO, headers=headers)
    assert first["idempotency"] == {"key": "order-4711", "status": "MISS"}
    assert second == {**first, "idempotency": {"key": "order-4711", "status": "HIT"}}
    assert (await admin.ok("GET", "/v1/outbox"))["total"] == 1


async def test_the_same_key_with_another_body_is_a_409(admin: Client, shop: str) -> None:
    headers = {"Idempotency-Key": "k"}
    await admin.ok("POST", SUBMIT, HELLO, headers=headers)
    for other in ({**HELLO, "text": "other"}, dict(reversed(HELLO.items()))):  # the bytes count, as the document says
        status, error = await admin.ask("POST", SUBMIT, other, headers=headers)
        assert (status, error["code"]) == (409, "IdempotencyConflict")


async def test_of_many_at_once_with_one_key_one_is_stored(admin: Client, shop: str) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(admin.ask("POST", SUBMIT, HELLO, headers=headers) for _ in range(20)))
    assert {status for status, _ in answers} <= {200, 409}
    assert len({answer["queueId"] for status, answer in answers if status == 200}) == 1
    assert (await admin.ok("GET", "/v1/outbox"))["total"] == 1


async def test_the_same_key_of_another_account_is_another_key(admin: Client, shop: str) -> None:
    await admin.ok(
        "POST", "/v1/account", {"account": "b", "email": "b@example.com", "smtp": {"host": "mx.example.com"}}
    )
    headers = {"Idempotency-Key": "k"}
    await admin.ok("POST", SUBMIT, HELLO, headers=headers)
    assert (await admin.ok("POST", "/v1/account/b/submit", HELLO, headers=headers))["idempotency"]["status"] == "MISS"


CONTROLLED = (
    b"From: shop@example.com\r\nTo: ada@example.com\r\nX-EE-Account: shop\r\nX-EE-Send-At: 2030-01-31T09:30:00Z\r\n"
    b"X-Priority-Class: bulk\r\nX-Email-Type: news\r\nX-EE-Delivery-Attempts: 3\r\nX-Idempotency-Key: k1\r\n"
    b"Subject: x\r\n\r\nx\r\n"
)


async def test_the_control_headers_of_a_raw_message_are_read_and_taken_off(
    admin: Client, shop: str, pool: db.Pool
) -> None:
    raw = base64.b64encode(CONTROLLED).decode()
    answer = await admin.ok("POST", SUBMIT, {"raw": raw})
    assert answer["sendAt"] == "2030-01-31T09:30:00.000Z"
    assert answer["idempotency"] == {"key": "k1", "status": "MISS"}
    message = await stored(pool, answer["queueId"])
    assert (message["priority"], message["email_type"]) == (2, "news")
    assert b"X-" not in message["content"]
    assert [row[4] for row in await recipients(pool, answer["queueId"])] == [3]
    assert (await admin.ok("POST", SUBMIT, {"raw": raw}))["idempotency"]["status"] == "HIT"


async def test_a_field_goes_before_the_control_header(admin: Client, shop: str, pool: db.Pool) -> None:
    given = {"raw": base64.b64encode(CONTROLLED).decode(), "priority": "normal", "sendAt": "2030-02-01T00:00:00Z"}
    answer = await admin.ok("POST", SUBMIT, given, headers={"Idempotency-Key": "k2"})
    assert answer["sendAt"] == "2030-02-01T00:00:00.000Z"
    assert answer["idempotency"]["key"] == "k2"
    assert (await stored(pool, answer["queueId"]))["priority"] == 1


@pytest.mark.parametrize(
    ("header", "key"), [(b"X-Account: other", "raw"), (b"X-EE-Send-At: soon", "X-Send-At"), (b"X-Track-Opens: ?", "")]
)
async def test_a_control_header_of_a_raw_message_that_cannot_be_meant_is_a_400(
    admin: Client, shop: str, header: bytes, key: str
) -> None:
    raw = base64.b64encode(header + b"\r\nTo: ada@example.com\r\n\r\nx\r\n").decode()
    status, error = await admin.ask("POST", SUBMIT, {"raw": raw})
    assert (status, key in error["fields"][0]["key"]) == (400, True)


async def test_the_shapes_of_an_emailengine_client_are_taken(admin: Client, shop: str, pool: db.Pool) -> None:
    picture = {"content": "R0lGODlh", "filename": "x.gif", "contentDisposition": "Inline", "encoding": "base64"}
    envelope = {"from": "", "to": "bob@example.com"}
    given = {**HELLO, "replyTo": ADA, "copy": None, "attachments": [picture], "envelope": envelope}
    answer = await admin.ok("POST", SUBMIT, given)
    assert [row[0] for row in await recipients(pool, answer["queueId"])] == ["bob@example.com"]
    assert (await stored(pool, answer["queueId"]))["sender"] == ""


async def test_refusals_are_counted_by_their_code(admin: Client, shop: str) -> None:
    counter = metrics.REFUSED.labels("api", "InvalidFields")
    [before] = [sample.value for sample in counter.collect()[0].samples if sample.name.endswith("_total")]
    await admin.ask("POST", SUBMIT, {"subjet": "x"})
    [after] = [sample.value for sample in counter.collect()[0].samples if sample.name.endswith("_total")]
    assert after == before + 1


async def test_an_unknown_account_is_a_404(admin: Client) -> None:
    assert (await admin.ask("POST", "/v1/account/none/submit", HELLO))[0] == 404


async def test_an_account_without_a_server_is_a_422_that_says_so(admin: Client) -> None:
    await admin.ok("POST", "/v1/account", {"account": "new", "email": "new@example.com"})
    status, error = await admin.ask("POST", "/v1/account/new/submit", HELLO)
    assert (status, error["code"]) == (422, "AccountNotConfigured")
    assert "smtp" in error["message"]


async def test_a_paused_account_is_accepted_and_held(admin: Client, shop: str) -> None:
    await admin.ok("PUT", "/v1/account/shop/queue", {"paused": True})
    await admin.ok("POST", SUBMIT, HELLO)
    status = await admin.ok("GET", "/v1/account/shop/queue/status")
    assert (status["pending"], status["held"], status["paused"]) == (1, 1, True)


async def test_an_empty_message_is_a_message(admin: Client, shop: str, pool: db.Pool) -> None:
    answer = await admin.ok("POST", SUBMIT, {"to": ADA})
    kept = await stored(pool, answer["queueId"])
    head, _, body = kept["content"].partition(b"\r\n\r\n")
    assert (b"\r\nTo: " in head, body.strip()) == (True, b"")


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"to": "ada@example.com"}, "to", '{"address": "ada@example.com"}'),
    ({"to": ["ada@example.com"]}, "to[0]", '{"address": "ada@example.com"}'),
    ({"from": "ada@example.com"}, "from", '{"address": "ada@example.com"}'),
    ({"text": "x"}, "to", "nobody"),
    ({"to": []}, "to", "nobody"),
    ({"to": [ADA, {"address": "not an address"}]}, "to[1].address", "address"),
    ({"to": {"address": "a@b.example\r\nRCPT TO:<c@d.example>"}}, "to[0].address", ""),
    ({"to": {"address": "a@b.example\x00"}}, "to[0].address", ""),
    ({"to": {"address": "a\u2028@b.example"}}, "to[0].address", ""),
    ({"to": {"address": ""}}, "to[0].address", "empty"),
    ({"to": "ada@example.com"}, "to", "list"),
    ({"to": [{"name": "x"}]}, "to[0].address", "missing"),
    ({"to": {"name": "x"}}, "to[0].address", "missing"),
    ({"cc": [{"address": "x@y.example", "mail": 1}]}, "cc[0].mail", "not a known field"),
    ({"cc": {"address": "x@y.example", "mail": 1}}, "cc[0].mail", "not a known field"),
    ({"from": {"address": "@"}}, "from.address", ""),
    ({"envelope": {"to": ["a@b.example", "c"]}}, "envelope.to[1]", ""),
    ({"envelope": {"from": "x\ry@z.example"}}, "envelope.from", ""),
    ({"envelope": {"to": []}}, "envelope.to", "nobody"),
    ({"raw": base64.b64encode(b"From: a@b.example\r\n\r\nx").decode()}, "raw", "no recipient"),
    ({"reference": {"message": "x", "action": "bounce"}}, "reference.action", "reply"),
    ({"reference": {"action": "reply"}}, "reference.message", "missing"),
    ({"reference": {"message": "x", "documentStore": True}}, "reference.documentStore", "not available"),
    ({"reference": {"message": "x", "forwardAttachments": True}}, "reference.forwardAttachments", "forward"),
    ({"reference": {"message": "x", "template": 1}}, "reference.template", "not a known field"),
    ({"subjet": "x"}, "subjet", "not a known field"),
    ({"text": 1}, "text", "string"),
    ({"raw": "%%%"}, "raw", "base64"),
    ({"raw": "aGVsbG8=", "subject": "x"}, "subject", "without raw"),
    ({"attachments": [{"content": "%%%"}]}, "attachments[0].content", "base64"),
    ({"attachments": [{"filename": "x"}]}, "attachments[0].content", "missing"),
    ({"sendAt": "tomorrow"}, "sendAt", "ISO 8601"),
    ({"sendAt": "2999-01-01T00:00:00Z"}, "sendAt", "five years ahead"),
    ({"sendAt": 1e300}, "sendAt", ""),
    ({"sendAt": True}, "sendAt", ""),
    ({"sendAt": "2030-01-01\r\nX: y"}, "sendAt", ""),
    ({"deliveryAttempts": 0}, "deliveryAttempts", "greater"),
    ({"deliveryAttempts": "3"}, "deliveryAttempts", "integer"),
    ({"priority": "urgent"}, "priority", "high"),
    ({"tz": "Mars/Olympus"}, "tz", "time zone"),
    ({"referenceId": "a\nb"}, "referenceId", "line break"),
    ({"emailType": "a\u2028b"}, "emailType", "line break"),
    ({"emailType": "x" * 300}, "emailType", "255"),
    ({"sentMailPath": "Sent\x00"}, "sentMailPath", "control character"),
    ({"trackingEnabled": True}, "trackingEnabled", "trackOpens"),
    ({"gateway": "g"}, "gateway", "smtp settings"),
    ({"mailMerge": []}, "mailMerge", "not available"),
]


@pytest.mark.parametrize(
    ("given", "key", "words"), FAULTS, ids=[f"{key}-{at}" for at, (_, key, _) in enumerate(FAULTS)]
)
async def test_what_is_wrong_is_named(admin: Client, shop: str, given: dict[str, Any], key: str, words: str) -> None:
    whole = given if "raw" in given or given in ({"text": "x"}, {"to": []}) else {**HELLO, **given}
    status, error = await admin.ask("POST", SUBMIT, whole)
    assert status == 400, error
    found = {fault["key"]: fault["message"] for fault in error["fields"]}
    assert words in found[key], error
    assert f"{key}: {key} " not in error["message"]
    assert (await admin.ok("GET", "/v1/outbox"))["total"] == 0


INJECTED = ["a\r\nBcc: x@y.example", "a\nb", "a\x00b", "a\u2028b"]


@pytest.mark.parametrize("text", INJECTED)
@pytest.mark.parametrize("place", ["subject", "name", "filename", "header", "header name", "messageId", "cid"])
async def test_a_line_end_never_becomes_a_header(
    admin: Client, shop: str, pool: db.Pool, place: str, text: str
) -> None:
    given: dict[str, Any] = {
        "subject": {"subject": text},
        "name": {"to": {"name": text, "address": "ada@example.com"}},
        "filename": {"attachments": [{"filename": text, "content": "eA=="}]},
        "header": {"headers": {"X-Thing": text}},
        "header name": {"headers": {text: "x"}},
        "messageId": {"messageId": text},
        "cid": {"attachments": [{"cid": text, "content": "eA=="}]},
    }[place]
    status, answer = await admin.ask("POST", SUBMIT, {**HELLO, **given})
    if status == 200:
        head = (await stored(pool, answer["queueId"]))["content"]
        assert b"\nBcc:" not in head
        assert b"\0" not in head
        assert "\u2028".encode() not in head
    else:
        assert status == 400, answer


@pytest.mark.parametrize("key", ["", "x" * 1025, "a b", "ключ"])
async def test_an_idempotency_key_of_other_characters_is_a_400(admin: Client, shop: str, key: str) -> None:
    status, error = await admin.ask("POST", SUBMIT, HELLO, headers={"Idempotency-Key": key})
    assert (status, error["fields"][0]["key"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("where", ["text", "raw", "attachments"])
async def test_a_message_over_the_limit_is_a_413(admin: Client, shop: str, house: Any, where: str) -> None:
    text = "x" * 70 + "\r\n"
    big = text * (house.settings.max_message_size // len(text) + 1)
    packed = base64.b64encode(f"Subject: big\r\n\r\n{big}".encode()).decode()
    given = {"text": big, "raw": packed, "attachments": [{"filename": "a.bin", "content": packed}]}[where]
    content = {**HELLO, where: given} if where != "raw" else {"envelope": {"to": ["ada@x.example"]}, "raw": packed}
    body = io.BytesIO(json.dumps(content).encode())
    status, error = await admin.ask("POST", SUBMIT, data=body, headers={"Content-Type": "application/json"})
    assert status == 413, error


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"to": [{"address": "a@b.example"}] * 1001}, "to"),
        ({"to": ADA, "cc": [{"address": "a@b.example"}] * 1001}, "cc"),
        ({"to": ADA, "envelope": {"to": ["not an address"] * 1001}}, "envelope.to"),
        ({"raw": base64.b64encode(b"To: " + b"a@b.example," * 1001 + b"\r\n\r\nx").decode()}, "raw"),
        ({"to": ADA, "attachments": [{"content": ""}] * 1001}, "attachments"),
    ],
)
async def test_more_than_a_message_may_have_is_one_fault(
    admin: Client, shop: str, given: dict[str, Any], key: str
) -> None:
    status, error = await admin.ask("POST", SUBMIT, given if "raw" in given else {"text": "x", **given})
    assert (status, [fault["key"] for fault in error["fields"]]) == (400, [key])


async def test_fields_that_are_too_many_together_are_each_told_with_how_many(admin: Client, shop: str) -> None:
    given = {"to": [{"address": "a@b.example"}] * 600, "bcc": [{"address": "a@b.example"}] * 401}
    status, error = await admin.ask("POST", SUBMIT, {"text": "x", **given})
    assert (status, error["fields"]) == (
        400,
        [
            {"key": "to", "message": "has 600 of the 1001 addresses of to, bcc, and one message has 1000 at most"},
            {"key": "bcc", "message": "has 401 of the 1001 addresses of to, bcc, and one message has 1000 at most"},
        ],
    )


async def test_a_null_is_as_good_as_nothing(admin: Client, shop: str, pool: db.Pool) -> None:
    file = {"content": "eA==", "encoding": None}
    given = {**HELLO, "priority": None, "dryRun": None, "attachments": [file]}
    queue_id = (await admin.ok("POST", SUBMIT, given))["queueId"]
    assert (await stored(pool, queue_id))["priority"] == 1
