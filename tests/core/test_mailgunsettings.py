"""An account's Mailgun domain: what it may be, and that its key goes nowhere it was not given for."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.account import MASK, Faulty, Fields, Rules, build, change
from relay.core.mailgunsettings import bare
from relay.core.tenant import MAILGUN, AccountState, Mailgun, Smtp

RULES = Rules(allowed=(), sandbox=False, zones={"UTC"})
DOMAIN = {"domain": "mg.example.com", "apiKey": "key-1"}


def faults(given: dict[str, Any], old: Fields | None = None, rules: Rules = RULES) -> dict[str, str]:
    try:
        change(old or {}, given, rules)
    except Faulty as faulty:
        return dict(faulty.faults)
    return {}


def stored(**more: Any) -> Fields:
    return change({}, {"mailgun": {**DOMAIN, **more}}, RULES)


def built(fields: Fields) -> Any:
    return build("a", AccountState.ACTIVE, "", fields).upstream


def test_a_domain_is_an_upstream() -> None:
    assert built(stored()) == Mailgun("mg.example.com", "key-1", MAILGUN)


@pytest.mark.parametrize("end", ["", "/", "//", "/v3", "/v3/", "/v4//"])
def test_a_base_url_is_kept_without_its_version(end: str) -> None:
    url = "https://api.eu.mailgun.net"
    assert built(stored(baseUrl=url + end)).base_url == url


@pytest.mark.parametrize("piece", ["/", "/v3", "//v3/"])
def test_a_base_url_is_read_once(piece: str) -> None:
    begun = time.process_time()
    bare(piece * 100_000 + "x")
    assert time.process_time() - begun < 2  # a few ms; it would be minutes if each slash were looked behind


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"domain": "mg.example.com"}, "mailgun.apiKey"),
        ({"apiKey": "key-1"}, "mailgun.domain"),
        ({"test": True}, "mailgun.domain"),
        ({**DOMAIN, "domain": "mg.example.com/x"}, "mailgun.domain"),
        ({**DOMAIN, "domain": "mg example"}, "mailgun.domain"),
        ({**DOMAIN, "domain": "bücher.example"}, "mailgun.domain"),
        ({**DOMAIN, "domain": ".."}, "mailgun.domain"),
        ({**DOMAIN, "baseUrl": "http://api.mailgun.net"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": "https://10.0.0.1"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": "https://localhost"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": "https://user:pass@api.mailgun.net"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": "https://api.mailgun.net?x=y"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": "api.mailgun.net"}, "mailgun.baseUrl"),
        ({**DOMAIN, "baseUrl": ""}, "mailgun.baseUrl"),
        ({**DOMAIN, "apiKey": ""}, "mailgun.apiKey"),
        ({**DOMAIN, "apiKey": "a\r\nX: y"}, "mailgun.apiKey"),
        ({**DOMAIN, "region": "eu"}, "mailgun.region"),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, Any], key: str) -> None:
    assert key in faults({"mailgun": given})


def test_one_upstream_and_no_second() -> None:
    smtp = {"host": "smtp.example.com"}
    assert "null" in faults({"mailgun": DOMAIN, "smtp": smtp})["mailgun"]
    assert "mailgun" in faults({"mailgun": DOMAIN}, change({}, {"smtp": smtp}, RULES))
    assert "mailgun" in faults({"smtp": smtp}, stored())


def test_the_upstream_may_be_changed_in_one_go() -> None:
    there = change({}, {"smtp": {"host": "smtp.example.com"}}, RULES)
    fields = change(there, {"smtp": None, "mailgun": DOMAIN}, RULES)
    assert isinstance(built(fields), Mailgun)
    assert isinstance(built(change(fields, {"mailgun": None, "smtp": {"host": "smtp.example.com"}}, RULES)), Smtp)


@pytest.mark.parametrize("url", ["https://thief.example", None])
@pytest.mark.parametrize("key", [{}, {"apiKey": MASK}])
def test_the_key_stays_with_its_address(url: str | None, key: dict[str, str]) -> None:
    there = stored(baseUrl="https://api.eu.mailgun.net")
    assert list(faults({"mailgun": {"baseUrl": url, **key}}, there)) == ["mailgun.apiKey"]
    assert faults({"mailgun": {"baseUrl": url, "apiKey": "key-2"}}, there) == {}


def test_the_same_address_otherwise_spelt_asks_for_nothing() -> None:
    assert faults({"mailgun": {"baseUrl": f"{MAILGUN}/v3/", "test": True}}, stored()) == {}


@pytest.mark.parametrize(
    ("url", "fine"), [("http://127.0.0.1:8025", True), ("http://192.0.2.7", False), ("http://mailgun.example", False)]
)
def test_in_the_clear_within_the_operators_networks_alone(url: str, fine: bool) -> None:
    rules = Rules(allowed=(ip_network("127.0.0.0/8"),), sandbox=False, zones={"UTC"})
    assert (faults({"mailgun": {**DOMAIN, "baseUrl": url}}, rules=rules) == {}) == fine


def test_secrets_are_never_shown() -> None:
    assert "key-1" not in repr(built(stored(webhookSigningKey="sign-1")))
    assert "sign-1" not in repr(built(stored(webhookSigningKey="sign-1")))
