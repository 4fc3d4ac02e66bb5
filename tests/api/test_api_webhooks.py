"""Webhooks over HTTP: made, shown without secrets, changed, rotated; their log, what is posted again, and a test."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from api.app import SERVED, build
from api.call import House
from relay import repost
from relay.core import webhook
from relay.core.endpoint import EVENTS, MOST
from relay.store import db
from relay.store.db import Connection
from tests.api.client import SHOP, Client, Login
from tests.fakes.receiver import Receiver
from tests.notifying import Told
from tests.stack import until
from tests.store.hooks import postings, told, tried

HOOKS = "/v1/webhooks"
URL = "https://hooks.example.com/postferry"
HOOK = {"url": URL, "account": "shop"}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[Connection]:
    async with db.connection(pool) as conn:
        yield conn


@pytest.fixture
async def tenant(admin: Client, shop: str, login: Login) -> Client:
    """Another account's."""
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other", "email": ""})
    return await login("api", account="other")


async def made(admin: Client, **more: Any) -> int:
    return int((await admin.ok("POST", HOOKS, HOOK | more))["id"])


async def faults(client: Client, method: str, path: str, body: Any) -> dict[str, str]:
    status, error = await client.ask(method, path, body)
    assert status == 400, error
    return {one["key"]: one["message"] for one in error["fields"]}


# -- made and shown ----------------------------------------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_headers_never(admin: Client, shop: str, conn: Connection) -> None:
    given = HOOK | {"headers": {"Authorization": "Bearer s3cret"}, "events": ["messageSent"], "description": "CRM"}
    first = await admin.ok("POST", HOOKS, given)
    shown = await admin.ok("GET", f"{HOOKS}/{first['id']}")
    listed = await admin.ok("GET", HOOKS)
    row = str(await (await conn.execute("select endpoints::text from endpoints")).fetchall())

    assert len(webhook.key(first["secret"])) == 32
    assert first["headers"] == {"Authorization": "******"}
    assert listed["items"] == [{key: value for key, value in first.items() if key != "secret"}]
    assert shown == listed["items"][0] | {"waiting": 0, "nextTry": None}
    assert "s3cret" not in str([first, listed, shown]) + row
    assert first["secret"] not in str([listed, shown]) + row


async def test_a_secret_can_be_brought(admin: Client, shop: str) -> None:
    assert (await admin.ok("POST", HOOKS, HOOK | {"secret": SECRET}))["secret"] == SECRET
    assert "whsec_" in (await faults(admin, "POST", HOOKS, HOOK | {"secret": "short-s3cret"}))["secret"]


async def test_without_an_account_it_gets_the_events_of_all(admin: Client, shop: str, conn: Connection) -> None:
    one = await admin.ok("POST", HOOKS, {"url": URL})
    await told(conn, "shop")
    await told(conn, "elsewhere")

    assert one["account"] is None
    assert [row[0] for row in await postings(conn)] == [one["id"]] * 2


@pytest.mark.parametrize(
    ("body", "key", "words"),
    [
        ({"account": "shop"}, "url", "is missing"),
        (HOOK | {"url": "http://10.0.0.1/"}, "url", "POSTFERRY_ALLOW_NETWORKS"),
        (HOOK | {"url": "https://user:s3cret@example.com/"}, "url", "no user or password"),
        (HOOK | {"events": ["messageSend"]}, "events", f"there are: {', '.join(EVENTS)}"),
        (HOOK | {"headers": {"Webhook-Id": "x"}}, "headers", "Webhook-Id"),
        (HOOK | {"enabled": "yes"}, "enabled", "must be a valid boolean"),
        (HOOK | {"colour": "blue"}, "colour", "not a known field"),
        (HOOK | {"description": "a\nb"}, "description", "one line"),
    ],
)
async def test_what_cannot_be_used_is_a_400_by_name(admin: Client, shop: str, body: Any, key: str, words: str) -> None:
    found = await faults(admin, "POST", HOOKS, body)

    assert words in found[key]
    assert "s3cret" not in str(found)
    assert (await admin.ok("GET", HOOKS))["total"] == 0


async def test_a_private_receiver_is_taken_where_the_operator_allows_it(admin: Client, shop: str, house: House) -> None:
    await made(admin, url="http://127.0.0.1:9000/")
    strict = TestServer(build(replace(house, settings=replace(house.settings, allow_networks=()))))
    await strict.start_server(**SERVED)
    async with TestClient(strict) as http:
        found = await faults(Client(http, admin.token), "POST", HOOKS, HOOK | {"url": "http://127.0.0.1:9000/"})

    assert "loopback address" in found["url"]


async def test_an_account_that_is_not_there_is_a_404(admin: Client) -> None:
    status, error = await admin.ask("POST", HOOKS, HOOK | {"account": "nobody"})

    assert (status, error["code"]) == (404, "AccountNotFound")


async def test_one_too_many_is_a_409(admin: Client, shop: str) -> None:
    for _ in range(MOST):
        await made(admin)
    status, error = await admin.ask("POST", HOOKS, HOOK)

    assert (status, error["code"]) == (409, "TooManyEndpoints")
    assert "20 endpoints already" in error["message"]


async def test_lists_are_paged_by_cursor(admin: Client, shop: str) -> None:
    ids = [await made(admin) for _ in range(3)]
    first = await admin.ok("GET", f"{HOOKS}?pageSize=2")
    second = await admin.ok("GET", f"{HOOKS}?pageSize=2&cursor={first['cursor']}")

    assert [one["id"] for one in first["items"] + second["items"]] == ids
    assert (first["total"], second["cursor"]) == (3, None)


# -- whose -------------------------------------------------------------------------------------------------------------


async def test_a_tenant_has_its_own_alone(admin: Client, tenant: Client) -> None:
    hidden = [await made(admin), await made(admin, account=None)]
    mine = (await tenant.ok("POST", HOOKS, {"url": URL}))["id"]

    assert [(one["id"], one["account"]) for one in (await tenant.ok("GET", HOOKS))["items"]] == [(mine, "other")]
    for id in hidden:
        assert (await tenant.ask("GET", f"{HOOKS}/{id}"))[1]["message"] == f"There is no webhook {id}"
    assert (await tenant.ask("POST", HOOKS, HOOK))[0] == 403
    assert (await tenant.ask("GET", f"{HOOKS}?account=shop"))[0] == 403


# -- changed -----------------------------------------------------------------------------------------------------------


async def test_a_change_leaves_the_rest_as_it_is(admin: Client, shop: str) -> None:
    id = await made(admin, events=["messageSent"], headers={"X-Key": "s3cret"}, description="CRM")
    before = await admin.ok("GET", f"{HOOKS}/{id}")
    after = await admin.ok("PUT", f"{HOOKS}/{id}", {"url": URL + "/b", "headers": {"X-Key": "******"}})

    assert (after["url"], after["events"], after["description"]) == (URL + "/b", ["messageSent"], "CRM")
    assert after["headers"] == before["headers"]


async def test_headers_are_given_again_when_the_host_changes(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin, headers={"X-Key": "s3cret"})
    found = await faults(admin, "PUT", f"{HOOKS}/{id}", {"url": "https://thief.example/"})

    assert "must be given again" in found["headers.X-Key"]
    assert (await admin.ok("GET", f"{HOOKS}/{id}"))["url"] == URL


async def test_disabled_it_gets_nothing_and_enabled_again_it_begins_anew(
    admin: Client, shop: str, conn: Connection
) -> None:
    id = await made(admin)
    off = await admin.ok("PUT", f"{HOOKS}/{id}", {"enabled": False})
    await told(conn, "shop")
    await conn.execute("update endpoints set failures = 3, failing_since = now()")
    on = await admin.ok("PUT", f"{HOOKS}/{id}", {"enabled": True})

    assert (off["enabled"], off["reason"]) == (False, "Disabled by hand")
    assert await postings(conn) == []
    assert (on["enabled"], on["reason"], on["failures"], on["failingSince"]) == (True, "", 0, None)


async def test_what_waits_is_told(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    await told(conn, "shop")
    shown = await admin.ok("GET", f"{HOOKS}/{id}")

    assert shown["waiting"] == 1
    assert shown["nextTry"] is not None


async def test_deleted_it_is_gone_with_its_log(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    await told(conn, "shop")

    assert await admin.ok("DELETE", f"{HOOKS}/{id}") == {"id": id, "deleted": True}
    assert (await admin.ask("GET", f"{HOOKS}/{id}"))[0] == 404
    assert await postings(conn) == []


async def test_a_rotated_secret_is_shown_once_and_the_old_one_is_valid_for_a_day(admin: Client, shop: str) -> None:
    id = await made(admin, secret=SECRET)
    rotated = await admin.ok("POST", f"{HOOKS}/{id}/secret", {})
    at_once = await admin.ok("POST", f"{HOOKS}/{id}/secret", {"secret": SECRET, "validSeconds": 0})

    assert rotated["secret"] != SECRET
    until = datetime.fromisoformat(rotated["oldSecretUntil"])
    assert 86_000 < (until - datetime.now(UTC)).total_seconds() < 86_401
    assert (at_once["secret"], at_once["oldSecretUntil"]) == (SECRET, None)


# -- the account's own setting ---------------------------------------------------------------------------------------


async def test_an_accounts_own_webhook_follows_its_setting(admin: Client, shop: str) -> None:
    await admin.ok("PUT", "/v1/account/shop", {"webhooks": URL})
    one = (await admin.ok("GET", HOOKS))["items"][0]
    status, error = await admin.ask("DELETE", f"{HOOKS}/{one['id']}")
    moved = await admin.ask("PUT", f"{HOOKS}/{one['id']}", {"url": "https://other.example/"})

    assert (one["managed"], one["account"], one["url"]) == (True, "shop", URL)
    assert (status, error["code"], moved[0]) == (409, "ManagedEndpoint", 409)
    assert "setting `webhooks` of account shop" in error["message"]
    assert (await admin.ok("PUT", f"{HOOKS}/{one['id']}", {"events": ["messageSent"], "url": URL}))["managed"]
    assert (await admin.ok("GET", "/v1/account/shop"))["webhooks"] == URL

    await admin.ok("PUT", "/v1/account/shop", {"webhooks": None})
    assert (await admin.ok("GET", HOOKS))["items"] == []
    assert (await admin.ok("GET", "/v1/account/shop"))["webhooks"] is None


async def test_an_accounts_own_webhook_is_judged_as_any(admin: Client, shop: str) -> None:
    found = await faults(admin, "PUT", "/v1/account/shop", {"webhooks": "http://10.0.0.1/"})

    assert "private address" in found["webhooks"]
    assert (await admin.ok("GET", HOOKS))["total"] == 0


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_the_log_tells_what_became_of_each_event(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    sent, failed = await told(conn, "shop"), await told(conn, "shop", "messageFailed")
    await tried(conn, sent, "delivered", 200)
    found = await admin.ok("GET", f"{HOOKS}/{id}/log")

    assert [(one["event"], one["eventId"], one["state"]) for one in found["items"]] == [
        ("messageFailed", f"evt_{failed}", "pending"),
        ("messageSent", f"evt_{sent}", "delivered"),
    ]
    assert [one["status"] for one in found["items"]] == [None, 200]
    assert [one["nextTry"] is None for one in found["items"]] == [False, True]
    assert found["total"] == 2


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("state=failed", 1),
        ("state=pending", 1),
        ("event=messageSent", 1),
        ("event=nothing", 0),
        ("eventId=evt_1", 1),
        ("eventId=evt_77", 0),
        ("until=2020-01-01", 0),
        ("since=2020-01-01", 2),
    ],
)
async def test_the_log_is_narrowed(admin: Client, shop: str, conn: Connection, query: str, count: int) -> None:
    id = await made(admin)
    await tried(conn, await told(conn, "shop", "messageFailed"), "failed", 500)
    await told(conn, "shop")
    found = await admin.ok("GET", f"{HOOKS}/{id}/log?{query}")

    assert (found["total"], len(found["items"])) == (count, count)


@pytest.mark.parametrize("query", ["state=lost", "eventId=1", "eventId=evt_0", f"eventId=evt_{'9' * 30}", "since=x"])
async def test_a_filter_that_means_nothing_is_a_400(admin: Client, shop: str, query: str) -> None:
    assert (await admin.ask("GET", f"{HOOKS}/{await made(admin)}/log?{query}"))[0] == 400


async def test_the_log_goes_on_by_cursor(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    events = [await told(conn, "shop") for _ in range(3)]
    first = await admin.ok("GET", f"{HOOKS}/{id}/log?pageSize=2")
    second = await admin.ok("GET", f"{HOOKS}/{id}/log?pageSize=2&cursor={first['cursor']}")

    assert [one["eventId"] for one in first["items"] + second["items"]] == [f"evt_{one}" for one in reversed(events)]
    assert (second["cursor"], second["total"], second["page"]) == (None, 3, 1)


async def test_a_posting_shows_its_request_and_every_try(
    admin: Client, shop: str, conn: Connection, house: House
) -> None:
    id = await made(admin, headers={"Authorization": "Bearer s3cret"}, secret=SECRET)
    event = await told(conn, "shop", recipient="ä@example.com")
    await tried(conn, event, "pending", None, "no answer within 10 s")
    await tried(conn, event, "delivered", 204)
    posting = (await admin.ok("GET", f"{HOOKS}/{id}/log"))["items"][0]["id"]
    shown = await admin.ok("GET", f"{HOOKS}/{id}/log/{posting}")
    headers, body = shown["request"]["headers"], shown["request"]["body"]

    assert [(one["status"], one["error"], one["seconds"]) for one in shown["tries"]] == [
        (None, "no answer within 10 s", 0.25),
        (204, "", 0.25),
    ]
    assert (shown["tries"][0]["url"], shown["tries"][0]["response"]) == ("https://was.example/", "words")
    assert json.loads(body)["data"] == {"recipient": "ä@example.com"}
    assert (json.loads(body)["serviceUrl"], json.loads(body)["account"]) == (house.settings.public_url, "shop")
    assert (headers["Authorization"], headers["webhook-id"]) == ("******", f"evt_{event}")
    stamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == webhook.sign(SECRET, f"evt_{event}", stamp, body.encode())
    assert "s3cret" not in str(shown)


async def test_the_log_shows_what_the_receiver_got(admin: Client, shop: str, pool: db.Pool, house: House) -> None:
    async with Receiver() as receiver, Told(pool, house.settings).running():
        id = await made(admin, url=receiver.url("/hook"), headers={"X-Key": "s3cret"})
        posting = (await admin.ok("POST", f"{HOOKS}/{id}/test"))["posting"]
        (post,) = await receiver.wait(1)

        async def known() -> bool:
            return bool((await admin.ok("GET", f"{HOOKS}/{id}/log/{posting}"))["tries"])

        await until(known)
    shown = (await admin.ok("GET", f"{HOOKS}/{id}/log/{posting}"))["request"]
    headers = {name.lower(): value for name, value in shown["headers"].items()}

    assert shown["body"].encode() == post.body
    assert shown["url"] == receiver.url("/hook")
    assert headers.pop("x-key") == "******"
    assert headers.items() <= post.headers.items()
    assert {"webhook-id", "webhook-timestamp", "webhook-signature", "x-ee-wh-signature"} <= set(headers)


async def test_another_endpoints_posting_is_a_404(admin: Client, shop: str, conn: Connection) -> None:
    first, second = await made(admin), await made(admin, events=["messageFailed"])
    await told(conn, "shop")
    posting = (await admin.ok("GET", f"{HOOKS}/{first}/log"))["items"][0]["id"]

    assert (await admin.ask("GET", f"{HOOKS}/{second}/log/{posting}"))[0] == 404


# -- replay and test ------------------------------------------------------------------------------------------


async def test_events_are_posted_again_by_their_ids(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    event = await told(conn, "shop")
    await tried(conn, event, "failed", 500)
    answer = await admin.ok("POST", f"{HOOKS}/{id}/replay", {"eventIds": [f"evt_{event}", "evt_777"]})

    assert answer == {"replayed": 1, "skipped": 1, "cursor": None}
    assert [row[2:] for row in await postings(conn)] == [("pending", 0, True)]


async def test_a_time_is_posted_again_even_from_before_the_endpoint(admin: Client, shop: str, conn: Connection) -> None:
    events = [await told(conn, "shop") for _ in range(2)]
    id = await made(admin)
    answer = await admin.ok("POST", f"{HOOKS}/{id}/replay", {"since": "2026-01-01"})

    assert answer == {"replayed": 2, "skipped": None, "cursor": None}
    assert [row[1] for row in await postings(conn)] == events


async def test_what_failed_is_posted_again(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    for state in ("failed", "delivered", "failed"):
        await tried(conn, await told(conn, "shop"), state, 500)

    assert (await admin.ok("POST", f"{HOOKS}/{id}/replay", {"failed": True}))["replayed"] == 2
    assert [row[2] for row in await postings(conn)] == ["pending", "delivered", "pending"]


async def test_what_failed_is_posted_again_even_if_it_is_not_subscribed_to_any_more(
    admin: Client, shop: str, conn: Connection
) -> None:
    id = await made(admin)
    await tried(conn, await told(conn, "shop"), "failed", 500)
    await admin.ok("PUT", f"{HOOKS}/{id}", {"events": ["messageFailed"]})

    assert (await admin.ok("POST", f"{HOOKS}/{id}/replay", {"failed": True}))["replayed"] == 1


async def test_fields_that_say_nothing_may_come_along(admin: Client, shop: str, conn: Connection) -> None:
    id = await made(admin)
    event = await told(conn, "shop")
    await tried(conn, event, "delivered", 200)
    body = {"eventIds": [f"evt_{event}"], "since": None, "until": None, "failed": False}
    assert (await admin.ok("POST", f"{HOOKS}/{id}/replay", body))["replayed"] == 1


async def test_a_large_replay_goes_on_by_cursor(
    admin: Client, shop: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repost.replays, "LOOK", 2)
    monkeypatch.setattr(repost, "AT_ONCE", 2)
    for _ in range(3):
        await told(conn, "shop")
    id = await made(admin)
    first = await admin.ok("POST", f"{HOOKS}/{id}/replay", {"since": "2020-01-01"})
    second = await admin.ok("POST", f"{HOOKS}/{id}/replay", {"since": "2020-01-01", "cursor": first["cursor"]})

    assert (first["replayed"], second["replayed"], second["cursor"]) == (2, 1, None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"failed": False},
        {"eventIds": None, "since": None, "until": None, "failed": False},
        {"since": ""},
        {"events": ["messageSent"]},
        {"eventIds": []},
        {"eventIds": ["1"]},
        {"eventIds": ["evt_1"], "since": "2020-01-01"},
        {"since": "x"},
        {"since": "2020-01-01", "events": ["nothing"]},
        {"since": "2020-01-01", "cursor": "x"},
        {"since": "2020-01-01", "cursor": "WyJcdTAwMDAiLDEsMV0"},
    ],
)
async def test_a_replay_of_nothing_in_particular_is_a_400(admin: Client, shop: str, body: Any) -> None:
    assert (await admin.ask("POST", f"{HOOKS}/{await made(admin)}/replay", body))[0] == 400


async def test_a_replay_of_what_is_not_subscribed_to_says_so(admin: Client, shop: str) -> None:
    id = await made(admin, events=["messageSent"])
    found = await faults(admin, "POST", f"{HOOKS}/{id}/replay", {"since": "2020-01-01", "events": ["messageFailed"]})

    assert "messageFailed, which this endpoint is not subscribed to" in found["events"]


async def test_a_test_goes_to_one_endpoint_alone(admin: Client, shop: str, conn: Connection) -> None:
    id, _ = await made(admin), await made(admin, account=None)
    answer = await admin.ok("POST", f"{HOOKS}/{id}/test")
    found = (await admin.ok("GET", f"{HOOKS}/{id}/log"))["items"]

    assert [(one["event"], one["eventId"], one["id"]) for one in found] == [
        ("webhookTest", answer["eventId"], answer["posting"])
    ]
    assert [row[0] for row in await postings(conn)] == [id]


@pytest.mark.parametrize(("path", "body"), [("test", None), ("replay", {"since": "2020-01-01"})])
async def test_a_disabled_endpoint_is_enabled_first(admin: Client, shop: str, path: str, body: Any) -> None:
    id = await made(admin, enabled=False)
    status, error = await admin.ask("POST", f"{HOOKS}/{id}/{path}", body)

    assert (status, error["code"]) == (409, "EndpointDisabled")
