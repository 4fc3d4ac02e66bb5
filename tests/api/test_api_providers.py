"""Mailgun's webhooks: whoever signed them is heard once, and what they tell changes what was sent from here alone."""

from __future__ import annotations

import asyncio
import hmac
import io
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core.errors import StoreAway
from relay.core.model import EventType, Outcome, State
from relay.providers import Providers
from relay.store import db, leases, outcomes, providerposts
from relay.store.db import Connection
from relay.store.outcomes import Report
from tests.api.client import Client
from tests.fakes.mailgun import MailgunServer
from tests.store.mail import prepared, stored
from tests.store.test_leases import granted

KEY = "signing-key-of-mailgun"
TOKENS = itertools.count()
SHOP: dict[str, Any] = {
    "account": "shop",
    "email": "shop@example.com",
    "mailgun": {"domain": "mg.example.com", "apiKey": "key-1", "webhookSigningKey": KEY},
}
PERSON = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Thunderbird/140.1.0"


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[Connection]:
    async with db.connection(pool) as conn:
        yield conn


@pytest.fixture
async def shop(admin: Client) -> str:
    await admin.ok("POST", "/v1/account", SHOP)
    return "shop"


@pytest.fixture
async def sent(conn: Connection, shop: str) -> int:
    """The delivery of a mail that was sent to r@example.com."""
    return await send(conn, "r@example.com")


async def send(conn: Connection, recipient: str, account: str = "shop", **options: Any) -> int:
    await stored(conn, prepared(recipient, account=account, **options))
    (lease,) = await granted(conn, account)
    started = await leases.start(conn, lease.id, seconds=60)
    assert started is not None
    id = started.deliveries[0].delivery
    done = {"stage": "dot", "seconds": 0.1, "data": {}, "event": EventType.MESSAGE_SENT}
    await outcomes.commit(conn, [Report(id, lease.id, State.SENT, Outcome.SENT, code=250, **done)])
    return id


def post(event: str, key: str = KEY, token: str = "", at: float | None = None, **told: Any) -> dict[str, Any]:
    """A webhook of Mailgun's, signed."""
    token, stamp = token or f"{next(TOKENS):050}", str(int(time.time() if at is None else at))
    made = hmac.new(key.encode(), f"{stamp}{token}".encode(), "sha256").hexdigest()
    data = {"event": event, "id": f"id-{token}", "timestamp": time.time(), "recipient": "r@example.com"} | told
    data.setdefault("message", {"headers": {"message-id": "x@example.com"}})
    return {"signature": {"timestamp": stamp, "token": token, "signature": made}, "event-data": data}


def failed(**more: Any) -> dict[str, Any]:
    status = {"code": 550, "message": "5.1.1 The email account that you tried to reach does not exist."}
    return post("failed", **{"severity": "permanent", "reason": "bounce", "delivery-status": status} | more)


async def told(client: Client, body: Any, account: str = "shop") -> tuple[int, Any]:
    return await client.ask("POST", f"/v1/providers/mailgun/{account}", body)


async def state(conn: Connection, delivery: int) -> str:
    row = await (await conn.execute("select state::text from deliveries where id = %s", (delivery,))).fetchone()
    assert row is not None
    return str(row[0])


async def events(conn: Connection, type: EventType) -> list[dict[str, Any]]:
    found = await conn.execute("select data from events where type = %s order by id", (type.value,))
    return [row[0] for row in await found.fetchall()]


async def suppressed(conn: Connection) -> list[tuple[Any, ...]]:
    return await (await conn.execute("select account_id, address, reason from suppressions")).fetchall()


async def test_a_failure_makes_a_bounce_of_what_was_sent(nobody: Client, conn: Connection, sent: int) -> None:
    assert await told(nobody, failed()) == (200, {"effect": "bounced"})
    assert await state(conn, sent) == "bounced"
    [event] = await events(conn, EventType.MESSAGE_BOUNCE)
    assert (event["recipient"], event["action"], event["bounceMessage"]) == ("r@example.com", "failed", None)
    assert event["response"]["category"] == "unknown_user"
    assert await suppressed(conn) == [("shop", "r@example.com", "bounce")]


async def test_a_complaint(nobody: Client, conn: Connection, sent: int) -> None:
    assert await told(nobody, post("complained")) == (200, {"effect": "complained"})
    assert await state(conn, sent) == "complained"
    assert len(await events(conn, EventType.MESSAGE_COMPLAINT)) == 1
    assert await suppressed(conn) == [("shop", "r@example.com", "complaint")]


async def test_who_unsubscribes_is_written_to_no_more(nobody: Client, conn: Connection, sent: int) -> None:
    body = post("unsubscribed", ip="198.51.100.7", **{"client-info": {"user-agent": PERSON}})
    assert await told(nobody, body) == (200, {"effect": "unsubscribed"})
    assert await state(conn, sent) == "sent"
    assert await suppressed(conn) == [("shop", "r@example.com", "unsubscribe")]
    [event] = await events(conn, EventType.LIST_UNSUBSCRIBE)
    assert (event["recipient"], event["messageId"]) == ("r@example.com", "<x@example.com>")
    assert (event["remoteAddress"], event["userAgent"]) == ("198.51.100.7", PERSON)


@pytest.mark.parametrize("event", ["delivered", "accepted", "clicked", "temporary", "brand-new"])
async def test_other_events_change_nothing(nobody: Client, conn: Connection, sent: int, event: str) -> None:
    body = failed(severity="temporary") if event == "temporary" else post(event)
    assert await told(nobody, body) == (200, {"effect": "none"})
    assert await state(conn, sent) == "sent"


async def test_an_open_that_no_picture_of_ours_saw_is_told(nobody: Client, conn: Connection, sent: int) -> None:
    body = post("opened", ip="198.51.100.7", **{"client-info": {"user-agent": PERSON}})
    assert await told(nobody, body) == (200, {"effect": "opened"})
    [event] = await events(conn, EventType.TRACK_OPEN)
    assert (event["trackingId"], event["recipient"], event["opener"]) == (str(sent), "r@example.com", "person")


async def test_an_open_that_our_picture_sees_counts_there_alone(nobody: Client, conn: Connection, shop: str) -> None:
    from relay.core import splice
    from tests.flow.test_deliver import HTML

    await send(conn, "r@example.com", content=HTML, splice=splice.find(HTML))
    assert await told(nobody, post("opened")) == (200, {"effect": "none"})
    assert await events(conn, EventType.TRACK_OPEN) == []


async def test_what_nobody_sent_changes_nothing(nobody: Client, conn: Connection, sent: int) -> None:
    stranger = {"recipient": "stranger@example.com"}
    other = {"message": {"headers": {"message-id": "other@example.com"}}}
    for event in ("complained", "unsubscribed", "opened"):
        assert await told(nobody, post(event, **other)) == (200, {"effect": "none"})
    assert await told(nobody, failed(**other)) == (200, {"effect": "none"})
    assert await told(nobody, post("unsubscribed", **stranger, **other)) == (200, {"effect": "none"})
    assert await state(conn, sent) == "sent"
    assert await suppressed(conn) == []


# -- who may tell ------------------------------------------------------------------------------------------------------


async def test_the_same_answer_to_all_who_are_not_its_mailgun(admin: Client, nobody: Client, sent: int) -> None:
    await admin.ok("POST", "/v1/account", {"account": "keyless", "mailgun": {"domain": "k.example", "apiKey": "k"}})
    await admin.ok("POST", "/v1/account", {"account": "plain", "smtp": {"host": "smtp.example.com"}})
    answers = [
        await told(nobody, failed(key="guessed")),
        await told(nobody, failed(key="")),
        await told(nobody, failed(), "nobody-there"),
        await told(nobody, failed(), "keyless"),
        await told(nobody, failed(), "plain"),
        await told(nobody, failed(at=time.time() - 90_000)),
        await told(nobody, failed(at=time.time() + 3600)),
    ]
    for _, answer in answers:
        answer.pop("requestId")
    assert {status for status, _ in answers} == {401}
    assert all(answer == answers[0][1] for _, answer in answers)


async def test_a_bad_signature_changes_nothing(nobody: Client, conn: Connection, sent: int) -> None:
    await told(nobody, failed(key="guessed"))
    assert await state(conn, sent) == "sent"
    row = await (await conn.execute("select count(*) from provider_posts")).fetchone()
    assert row == (0,)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"signature": {}},
        {"signature": [], "event-data": {}},
        {"signature": {"timestamp": "1", "token": "x", "signature": "y"}, "event-data": "failed"},
        [],
        None,
    ],
)
async def test_what_is_no_webhook_of_mailguns(nobody: Client, shop: str, body: Any) -> None:
    response = await nobody.open("POST", f"/v1/providers/mailgun/{shop}", [] if body is None else body)
    assert response.status == 400


async def test_a_webhook_is_bounded(nobody: Client, shop: str) -> None:
    large = io.BytesIO(json.dumps(post("failed", note="x" * (2 << 20))).encode())
    headers = {"Content-Type": "application/json"}
    async with nobody.http.post("/v1/providers/mailgun/shop", data=large, headers=headers) as response:
        assert response.status == 413


async def test_a_new_key_is_heard_at_once(admin: Client, nobody: Client, conn: Connection, sent: int) -> None:
    assert (await told(nobody, failed(key="new")))[0] == 401
    await admin.ok("PUT", "/v1/account/shop", {"mailgun": {"webhookSigningKey": "new"}})
    assert await told(nobody, failed(key="new")) == (200, {"effect": "bounced"})


async def test_another_tenants_key_reaches_nothing_of_this_one(
    admin: Client, nobody: Client, conn: Connection, sent: int
) -> None:
    """Given two tenants of one Mailgun account, and so with one key, each is told of its own mail alone."""
    other = {"domain": "other.example", "apiKey": "key-2", "webhookSigningKey": KEY}
    await admin.ok("POST", "/v1/account", {"account": "other", "mailgun": other})
    for body in (failed(), post("complained"), post("unsubscribed"), post("opened")):
        assert await told(nobody, body, "other") == (200, {"effect": "none"})
    assert await state(conn, sent) == "sent"
    assert await suppressed(conn) == []


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_replay_is_refused_whatever_it_brings(nobody: Client, conn: Connection, sent: int) -> None:
    """The event is not signed: whoever has seen one post could send another with its signature."""
    body = failed(recipient="somebody-else@example.com")
    assert (await told(nobody, body))[0] == 200
    assert (await told(nobody, body))[0] == 406
    forged = body | {"event-data": failed()["event-data"]}
    assert (await told(nobody, forged))[0] == 406
    assert await state(conn, sent) == "sent"


async def test_of_many_at_once_one_is_taken(nobody: Client, conn: Connection, sent: int) -> None:
    body = failed()
    answers = await asyncio.gather(*(told(nobody, body) for _ in range(6)))
    assert sorted(status for status, _ in answers) == [200, 406, 406, 406, 406, 406]
    assert len(await events(conn, EventType.MESSAGE_BOUNCE)) == 1


async def test_an_event_that_comes_by_two_posts_counts_once(nobody: Client, conn: Connection, sent: int) -> None:
    told_at = time.time()
    for effect in ("bounced", "none"):
        assert await told(nobody, failed(id="the-same", timestamp=told_at)) == (200, {"effect": effect})
    assert len(await events(conn, EventType.MESSAGE_BOUNCE)) == 1


async def test_what_could_not_be_stored_is_taken_when_it_comes_again(
    nobody: Client, conn: Connection, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = post("unsubscribed")

    async def away(*_: object) -> None:
        raise StoreAway("gone in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(providerposts, "unsubscribed", away)
        assert (await told(nobody, body))[0] == 503
    assert await suppressed(conn) == []
    assert await told(nobody, body) == (200, {"effect": "unsubscribed"})
    assert len(await suppressed(conn)) == 1


async def test_too_many_at_once_come_again(nobody: Client, sent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.providers.MOST", 0)
    assert (await told(nobody, failed()))[0] == 503


async def test_whoever_calls_it_off_leaves_room(nobody: Client, house: Any, sent: int) -> None:
    providers: Providers = house.providers
    body = failed()
    task = asyncio.create_task(providers.mailgun("shop", body["signature"], body["event-data"]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await told(nobody, failed()) == (200, {"effect": "bounced"})


async def test_no_secret_in_the_log_or_an_answer(
    admin: Client, nobody: Client, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, refused = await told(nobody, failed(key="guessed"))
    await told(nobody, failed())
    shown = await admin.ok("GET", "/v1/account/shop")
    assert shown["mailgun"] == {"domain": "mg.example.com", "apiKey": "******", "webhookSigningKey": "******"}
    for text in (caplog.text, str(refused), str(shown)):
        assert KEY not in text
        assert "key-1" not in text


async def test_a_domain_is_tried_before_it_is_stored(admin: Client) -> None:
    async with MailgunServer() as server:
        found = (await admin.ok("POST", "/v1/verifyAccount", {"mailgun": server.settings}))["smtp"]
    assert (found["success"], found["provider"]) == (True, "mailgun")
    assert [step["state"] for step in found["steps"]] == ["ok", "ok", "ok", "skipped", "ok"]


async def test_a_stored_domain_is_tried_and_what_was_found_is_shown(admin: Client) -> None:
    async with MailgunServer() as server:
        await admin.ok("POST", "/v1/account", {"account": "a", "mailgun": server.settings | {"apiKey": "wrong"}})
        await admin.ok("POST", "/v1/account/a/verify")
    shown = await admin.ok("GET", "/v1/account/a")
    assert (shown["verification"]["smtp"]["provider"], shown["verification"]["smtp"]["code"]) == ("mailgun", "EAUTH")
