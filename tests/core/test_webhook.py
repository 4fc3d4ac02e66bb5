"""The posted bytes, their signatures and headers, and the waits between tries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from relay.core import webhook
from relay.settings import read

AT = datetime(2030, 1, 31, 10, 30, 0, 123456, timezone(timedelta(hours=1)))
SECRET = webhook.new_secret(bytes(range(32)))
OTHER = webhook.new_secret(bytes(range(1, 33)))
POSTED = webhook.body("https://relay.example", "a1", AT, "messageSent", {"recipient": "zoë@there.example"})


def headers(*secrets: str, custom: dict[str, str] | None = None) -> dict[str, str]:
    return webhook.headers(7, POSTED, secrets or (SECRET,), datetime.now(UTC), custom or {})


def test_the_body_is_compact_utf8_with_its_fields_in_their_order() -> None:
    spelled = (
        '{"serviceUrl":"https://relay.example","account":"a1","date":"2030-01-31T09:30:00.123Z",'
        '"event":"messageSent","data":{"recipient":"zoë@there.example"}}'
    )
    assert spelled.encode() == POSTED


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_the_public_library_verifies_either_secret_while_they_rotate(secret: str) -> None:
    assert Webhook(secret).verify(POSTED, headers(SECRET, OTHER)) == json.loads(POSTED)


def test_another_secret_or_body_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(POSTED, headers(SECRET))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(POSTED.replace(b"a1", b"a2"), headers(SECRET))


def test_the_body_is_signed_as_emailengine_does() -> None:
    """createHmac("sha256", secret).update(body).digest("base64url") in Node: no padding; the key is the text."""
    expected = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), POSTED, hashlib.sha256).digest()).decode().rstrip("=")
    assert headers(SECRET, OTHER)["X-EE-Wh-Signature"] == expected


def test_the_id_is_the_events() -> None:
    sent = headers()
    assert sent["webhook-id"] == sent["X-EE-Wh-Event-Id"] == "evt_7"
    assert sent["Content-Type"] == "application/json"
    assert sent["User-Agent"].startswith("Postferry")


@pytest.mark.parametrize("name", ["User-Agent", "content-type", "Webhook-Signature", "X-EE-Wh-Signature", "host"])
def test_what_is_ours_is_not_overridden(name: str) -> None:
    sent = headers(custom={name: "theirs", "Authorization": "Bearer x"})
    assert "theirs" not in sent.values()
    assert sent["Authorization"] == "Bearer x"
    with pytest.raises(ValueError, match=name):
        webhook.check_headers({name: "theirs"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-One", "a\r\nX-Two: b"), ("X-One", "nul\0"), ("X One", "a"), ("X:One", "a"), ("", "a"), ("X-One", "x" * 5000)],
)
def test_a_header_that_cannot_be_sent_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"header|One"):
        webhook.check_headers({name: value})


def test_headers_that_can_be_sent_are_taken() -> None:
    webhook.check_headers({"Authorization": "Basic x", "X-Name": "zoë\tand others"})
    with pytest.raises(ValueError, match="once"):
        webhook.check_headers({"X-One": "1", "x-one": "2"})
    with pytest.raises(ValueError, match="at most"):
        webhook.check_headers({f"X-{number}": "1" for number in range(21)})


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_is_made_and_read_again(size: int) -> None:
    assert webhook.key(webhook.new_secret(b"k" * size)) == b"k" * size


def test_a_secret_may_come_without_its_padding() -> None:
    assert webhook.key(webhook.new_secret(b"k" * 25).rstrip("=")) == b"k" * 25


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_is_not_made_too_short_or_long(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        webhook.new_secret(b"k" * size)


@pytest.mark.parametrize(
    "secret", ["", "hunter2", "whsec_", "whsec_hunter2", "whsec_" + "!" * 40, base64.b64encode(b"k" * 32).decode()]
)
def test_what_is_no_secret_is_told_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and the base64") as refused:
        webhook.key(secret)
    assert "hunter2" not in str(refused.value)


def test_the_waits_are_those_of_the_schedule_and_never_shorter() -> None:
    waits = read({}, dotenv=None).webhook_retries
    told: list[Any] = [webhook.wait(tries, waits, lambda: 0.0) for tries in range(1, 9)]
    assert told == [5, 300, 1800, 7200, 18000, 36000, 36000, None]
    assert webhook.wait(1, waits, lambda: 0.999) == pytest.approx(5.4995)
