"""Mailgun's words in ours: its answers to a mail, its signatures, and the events that it documents."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.core import mailgun, mailgunevents, provider
from relay.core.advice import Advice
from relay.core.classify import classify
from relay.core.mailgun import BY_WORDS, Meaning, Said
from relay.core.mailgunevents import Effect, Event
from relay.core.model import Outcome
from relay.core.report import Kind

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = "the webhook signing key"


def said(status: int, body: object = "", retry_after: str = "") -> Said:
    raw = body if isinstance(body, str) else f'{{"message": "{body}"}}'
    return Said(status, raw.encode(), retry_after)


def message(text: str) -> str:
    return f'{{"message": "{text}"}}'


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meaning", BY_WORDS, ids=lambda meaning: meaning.sample[:50])
def test_words_are_known_whatever_the_status(meaning: Meaning) -> None:
    for status in (400, 403, 420, 429):
        stage, reply = mailgun.read(said(status, message(meaning.sample)), NOW)
        assert (stage, reply.code, reply.enhanced) == (meaning.stage, meaning.code, meaning.enhanced)


@pytest.mark.parametrize(
    ("status", "words", "outcome", "category"),
    [
        (400, BY_WORDS[0].sample, Outcome.FAILED, "mailgun_sandbox"),
        (420, "Domain a.example is not allowed to send: recipient limit exceeded", Outcome.HELD, "mailgun_limit"),
        (400, "Domain a.example is not allowed to send: You are sending too fast. Your account is on probation and"
         " the account has been temporarily disabled.", Outcome.HELD, "mailgun_limit"),
        (403, "Domain a.example is not allowed to send: Account disabled", Outcome.HELD, "mailgun_disabled"),
        (403, "Domain a.example is not allowed to send: Please activate your Mailgun account.", Outcome.HELD,
         "mailgun_disabled"),
        (400, "The domain is unverified and requires DNS configuration.", Outcome.HELD, "mailgun_disabled"),
        (400, "'to' parameter is not a valid address. please check documentation", Outcome.FAILED, "bad_address"),
        (400, "'from' parameter is not a valid address. please check documentation", Outcome.FAILED, "sender_refused"),
        (400, "Header name must be pure ASCII: Ünter", Outcome.FAILED, "refused"),
    ],
)  # fmt: skip
def test_what_is_done_about_words(status: int, words: str, outcome: Outcome, category: str) -> None:
    stage, reply = mailgun.read(said(status, message(words)), NOW)
    verdict = classify(reply, stage)
    assert (verdict.outcome, verdict.category) == (outcome, category)


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        (said(429, message("Too Many Requests"), "30"), 30),
        (said(429, message("Too Many Requests"), "Fri, 20 Nov 2026 12:10:00 GMT"), 600),
        (said(429, message("Too Many Requests"), "0"), 1),
        (said(429, message("Too Many Requests"), "999999999999"), 86_400),
        (said(429, message("Too Many Requests"), "soon"), 60),
        (said(429, message("Too Many Requests"), "Fri, 20 Nov 99999999999999999999 12:10:00 GMT"), 60),
        (said(429, message("Too Many Requests"), "Fri, 20 Nov 2026 12:10:00 +99999999999999999999"), 60),
        (said(429, message("Too Many Requests")), 60),
        (said(503, "", "120"), 120),
        (
            said(
                420,
                message(
                    "Domain a is not allowed to send: recipient limit exceeded, try again after Fri, 20 Nov 2026"
                    " 12:05:31 UTC"
                ),
            ),
            331,
        ),
        (said(400, message("Your account is on probation. Account will be enabled in 2081 seconds")), 2081),
        (said(420, message("Domain a is not allowed to send: recipient limit exceeded")), 3600),
    ],
)
def test_how_long_it_asks_to_wait(given: Said, wait: float) -> None:
    stage, reply = mailgun.read(given, NOW)
    verdict = classify(reply, stage)
    assert (verdict.wait, verdict.rests, verdict.outcome) == (wait, True, Outcome.HELD)


def test_a_mail_that_was_taken_has_a_name() -> None:
    given = said(200, '{"id": "<20260203192638.000be97f99f8cea1@mg.example.com>", "message": "Queued. Thank you."}')
    stage, reply = mailgun.read(given, NOW)
    assert classify(reply, stage).outcome is Outcome.SENT
    assert provider.message_id(reply.text) == "20260203192638.000be97f99f8cea1@mg.example.com"


@pytest.mark.parametrize("body", ["", "{", "[]", '{"id": null}', '{"id": 5}', '{"id": ""}', "[" * 10_000, "\ud800"])
def test_what_names_no_mail_took_none(body: str) -> None:
    given = Said(200, body.encode("utf-8", "surrogatepass"))
    stage, reply = mailgun.read(given, NOW)
    assert classify(reply, stage).category == "not_mailgun"


@pytest.mark.parametrize("status", range(100, 600))
def test_any_status_has_a_meaning_and_nothing_but_a_name_is_sent(status: int) -> None:
    stage, reply = mailgun.read(said(status, "<html>"), NOW)
    assert classify(reply, stage).outcome is not Outcome.SENT
    assert 400 <= reply.code < 600


def test_an_answer_of_any_length_becomes_one_short_line() -> None:
    _, reply = mailgun.read(said(500, "a\r\nb\0" * 50_000), NOW)
    assert len(reply.text) <= 1000
    assert "\n" not in reply.text


def test_the_form_ends_where_the_mail_begins() -> None:
    head, tail = mailgun.form("bob@there.example", "BOUNDARY", test=True)
    assert head.endswith(b"\r\n\r\n")
    assert tail == b"\r\n--BOUNDARY--\r\n"
    assert head.count(b"--BOUNDARY\r\n") == 4
    assert b'name="o:testmode"\r\n\r\nyes\r\n' in head


def test_paths_hold_a_domain_and_no_more() -> None:
    assert mailgun.path("a/b?c#d") == "/v3/a%2Fb%3Fc%23d/messages.mime"


@pytest.mark.parametrize(
    ("body", "state", "why"),
    [
        ('{"domain": {"name": "a", "state": "active", "is_disabled": false}}', "active", ""),
        ('{"domain": {"name": "a", "state": "unverified"}}', "unverified", ""),
        ('{"domain": {"state": "active", "is_disabled": true, "disabled": {"reason": "spam"}}}', "disabled", "spam"),
    ],
)
def test_how_a_domain_stands(body: str, state: str, why: str) -> None:
    standing = mailgun.standing(said(200, body))
    assert standing is not None
    assert (standing.state, standing.why) == (state, why)


@pytest.mark.parametrize("given", [said(200, "Mailgun Magnificent API"), said(404, "{}"), said(200, '{"domain": 1}')])
def test_what_tells_of_no_domain(given: Said) -> None:
    assert mailgun.standing(given) is None


# -- signatures --------------------------------------------------------------------------------------------------------


def signed(at: datetime = NOW, key: str = KEY, token: str = "t" * 50, **more: Any) -> dict[str, Any]:
    stamp = str(int(at.timestamp()))
    made = hmac.new(key.encode(), f"{stamp}{token}".encode(), "sha256").hexdigest()
    return {"timestamp": stamp, "token": token, "signature": made} | more


def good(told: dict[str, Any], key: str = KEY) -> bool:
    found = mailgunevents.signature(told)
    return found is not None and found.by(key) and found.fresh(NOW)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=8), timedelta(hours=23), timedelta(minutes=-4)])
def test_a_signature_is_good_for_as_long_as_mailgun_repeats_it(age: timedelta) -> None:
    assert good(signed(NOW - age))


@pytest.mark.parametrize("age", [timedelta(hours=25), timedelta(minutes=-6), timedelta(days=-3650)])
def test_and_no_longer(age: timedelta) -> None:
    assert not good(signed(NOW - age))


def test_a_number_is_a_timestamp_too() -> None:
    told = signed()
    assert good(told | {"timestamp": int(told["timestamp"])})


@pytest.mark.parametrize(
    "change",
    [
        {"token": "u" * 50},
        {"timestamp": "1"},
        {"signature": "0" * 64},
        {"signature": ""},
        {"signature": "ü" * 64},
        {"signature": None},
        {"signature": ["x"]},
        {"token": ""},
        {"token": "a b"},
        {"token": "\0" * 50},
        {"token": "x" * 201},
        {"token": {}},
        {"timestamp": True},
        {"timestamp": "٣" * 10},
        {"timestamp": "9" * 11},
        {"timestamp": "1e9"},
    ],
)
def test_what_is_not_signed(change: dict[str, Any]) -> None:
    assert not good(signed() | change)


def test_the_key_of_the_account_above_is_good_for_a_subaccount() -> None:
    told = signed(key="the subaccount's")
    assert good(told | {"parent-signature": signed()["signature"]})


# -- events ------------------------------------------------------------------------------------------------------------

MAIL = {
    "headers": {
        "to": "Alice <alice@example.com>",
        "message-id": "20130503182626.18666.16540@mg.example.com",
        "from": "Bob <bob@mg.example.com>",
        "subject": "Test webhook",
    }
}
COMMON = {"id": "G9Bn5sl1TC6nu79C8C0bwg", "timestamp": 1521472262.908181, "recipient": "alice@example.com"}
FAILED: dict[str, Any] = {
    **COMMON,
    "event": "failed",
    "severity": "permanent",
    "reason": "bounce",
    "message": MAIL,
    "delivery-status": {
        "mx-host": "aspmx.l.example.org",
        "attempt-no": 1,
        "description": "",
        "code": 550,
        "message": "5.1.1 The email account that you tried to reach does not exist. Please try\n5.1.1 double-checking",
        "enhanced-code": "5.1.1",
    },
}


def read(**told: Any) -> Event:
    return mailgunevents.read(told, "token")


def test_a_permanent_failure_is_a_bounce() -> None:
    event = read(**FAILED)
    assert event.effect is Effect.BOUNCED
    assert (event.about.kind, event.about.source) == (Kind.BOUNCE, "mailgun")
    assert event.about.message_id == "<20130503182626.18666.16540@mg.example.com>"
    assert event.about.key == "mailgun:2018-03-19:G9Bn5sl1TC6nu79C8C0bwg"
    [finding] = event.about.recipients
    assert (finding.recipient, finding.action, finding.status) == ("alice@example.com", "failed", "5.1.1")
    assert finding.diagnostic.startswith("550 5.1.1 The email account")
    assert (finding.mta, finding.source) == ("aspmx.l.example.org", "smtp")
    assert (finding.category, finding.advice, finding.suppresses) == ("unknown_user", Advice.REMOVE, True)


def test_a_full_mailbox_suppresses_nobody() -> None:
    status = {"code": 552, "message": "5.2.2 The email account that you tried to reach is over quota."}
    [finding] = read(**FAILED | {"delivery-status": status}).about.recipients
    assert (finding.status, finding.category, finding.suppresses) == ("5.2.2", "mailbox_full", False)


def test_what_mailgun_did_not_try_says_so_and_suppresses_nobody() -> None:
    status = {
        "attempt-no": 1,
        "message": "",
        "code": 605,
        "description": "Not delivering to previously bounced address",
    }
    [finding] = read(**FAILED | {"reason": "suppress-bounce", "delivery-status": status}).about.recipients
    assert finding.diagnostic == "Not delivering to previously bounced address"
    assert (finding.category, finding.advice) == ("suppressed", Advice.REMOVE)
    assert (finding.suppresses, finding.source, finding.status) == (False, "x-mailgun", "5.0.0")


@pytest.mark.parametrize(
    ("told", "effect"),
    [
        ({"event": "failed", "severity": "temporary", "reason": "greylisted"}, Effect.NONE),
        ({"event": "failed"}, Effect.NONE),
        ({"event": "delivered"}, Effect.NONE),
        ({"event": "accepted"}, Effect.NONE),
        ({"event": "clicked"}, Effect.NONE),
        ({"event": "brand-new"}, Effect.NONE),
        ({"event": "complained"}, Effect.COMPLAINED),
        ({"event": "unsubscribed"}, Effect.UNSUBSCRIBED),
        ({"event": "opened"}, Effect.OPENED),
    ],
)
def test_what_an_event_does(told: dict[str, Any], effect: Effect) -> None:
    assert read(**COMMON, message=MAIL, **told).effect is effect


def test_a_complaint_tells_of_its_mail() -> None:
    event = read(**COMMON, event="complained", message=MAIL)
    assert event.about.kind is Kind.COMPLAINT
    assert event.about.arf["originalRcptTo"] == ["alice@example.com"]
    assert event.about.headers == {
        "messageId": "<20130503182626.18666.16540@mg.example.com>",
        "from": "bob@mg.example.com",
        "to": ["alice@example.com"],
        "subject": "Test webhook",
    }


def test_who_opened_and_with_what() -> None:
    client = {"client-os": "OS X", "user-agent": "Mozilla/5.0 (Macintosh)"}
    event = read(**COMMON, event="opened", message=MAIL, ip="198.51.100.7", **{"client-info": client})
    assert (event.address, event.agent) == ("198.51.100.7", "Mozilla/5.0 (Macintosh)")


def test_an_event_without_id_has_its_tokens_name() -> None:
    assert read(**{**FAILED, "id": None}).about.key == "mailgun:token"


@pytest.mark.parametrize(
    "change",
    [
        {"recipient": None},
        {"recipient": ""},
        {"message": None},
        {"message": {"headers": []}},
        {"message": {"headers": {"message-id": 5}}},
        {"event": ["failed"]},
    ],
)
def test_what_names_no_mail_does_nothing(change: dict[str, Any]) -> None:
    assert read(**FAILED | change).effect is Effect.NONE


@pytest.mark.parametrize(
    "change",
    [
        {"delivery-status": None},
        {"delivery-status": "550"},
        {"delivery-status": {"code": "550", "message": None}},
        {"delivery-status": {"code": True, "message": ["x"], "description": "\0\0"}},
        {"timestamp": "never"},
        {"timestamp": 1e300},
        {"timestamp": None},
        {"reason": {}},
        {"recipient": "x" * 100_000 + "@\0example.com"},
        {"message": {"headers": {"message-id": "<" * 100_000}}},
    ],
)
def test_whatever_stands_there_can_be_read(change: dict[str, Any]) -> None:
    event = read(**FAILED | change)
    told = repr(event)
    assert "\\x00" not in told
    assert len(told) < 20_000
