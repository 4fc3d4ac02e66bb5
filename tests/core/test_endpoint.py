"""What an endpoint may be: every reason named, masked headers kept, and never sent to another server."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.account import MASK, Faulty
from relay.core.endpoint import EVENTS, Wanted, change, same_place
from relay.core.hosts import judge_url

HOOK = Wanted("https://hooks.example.com/a", headers={"Authorization": "Bearer s3cret"})


def faults(old: Wanted, **given: Any) -> dict[str, str]:
    with pytest.raises(Faulty) as raised:
        change(old, given, ())
    return dict(raised.value.faults)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/x?y=1&z=%20",
        "http://example.com",
        "HTTPS://EXAMPLE.COM:8443/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:8443/x",
        "https://xn--bcher-kva.example/",
        "http://internal_name/hook",
    ],
)
def test_a_url_of_the_public_web_is_taken(url: str) -> None:
    assert judge_url(url, ()) == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is missing"),
        ("https://example.com/" + "x" * 2048, "at most 2048"),
        ("ftp://example.com/", "must begin with"),
        ("javascript:alert(1)", "must begin with"),
        ("//example.com/", "must begin with"),
        ("https:///x", "is no URL"),
        ("https://example.com:0/", "is no URL"),
        ("https://example.com:99999/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://[v1.x]/", "is no URL"),
        ("https://ho%73t.example/", "is no URL"),
        ("https://-x.example/", "is no URL"),
        ("https://user@example.com/", "no user or password"),
        ("https://user:pass@example.com/", "no user or password"),
        ("https://example.com/#", "no fragment"),
        ("https://example.com/ x", "only what a URL may"),
        ("https://example.com\\@10.0.0.1/", "only what a URL may"),
        ("https://example.com/\r\nX: y", "only what a URL may"),
        ("https://bücher.example/", "only what a URL may"),
        ("http://localhost:3000/", "loopback address"),
        ("http://127.1/", "loopback address"),
        ("http://2130706433/", "loopback address"),
        ("http://[::ffff:10.0.0.1]/", "private address 10.0.0.1 inside IPv6"),
        ("http://169.254.169.254/latest/meta-data", "to a cloud metadata address"),
        ("http://0.0.0.0/", "to an unspecified address"),
        ("http://10.0.0.1/", "unless the operator allows it with POSTFERRY_ALLOW_NETWORKS"),
    ],
)
def test_every_other_url_is_told_why_not(url: str, words: str) -> None:
    assert words in judge_url(url, ())


def test_a_network_that_the_operator_allows_is_taken() -> None:
    assert judge_url("http://127.0.0.1:9000/", [ip_network("127.0.0.0/8")]) == ""


def test_what_is_left_out_stays_and_null_is_the_default() -> None:
    new = change(Wanted("https://a.example/", ("messageSent",), {}, "CRM"), {"events": None}, ())

    assert new == Wanted("https://a.example/", (), {}, "CRM")


def test_every_fault_is_told_at_once() -> None:
    found = faults(Wanted(), url="ftp://x", events=["sent"], headers={"a b": "x"}, description="a\nb", enabled="yes")

    assert set(found) == {"url", "events", "headers", "description", "enabled"}


def test_an_unknown_event_is_named_with_those_there_are() -> None:
    found = faults(HOOK, events=["messageSent", "messageSend"])

    assert "'messageSend'" in found["events"]
    assert all(name in found["events"] for name in EVENTS)


def test_a_test_event_cannot_be_subscribed_to() -> None:
    assert "webhookTest" in faults(HOOK, events=["webhookTest"])["events"]


def test_a_star_means_all_events_and_twice_is_once() -> None:
    assert change(HOOK, {"events": ["*"]}, ()).events == ()
    assert change(HOOK, {"events": ["messageSent", "messageSent"]}, ()).events == ("messageSent",)


@pytest.mark.parametrize("name", ["Webhook-Id", "webhook-signature", "Content-Length", "Host", "X-EE-Wh-Signature"])
def test_headers_that_are_ours_are_refused_by_name(name: str) -> None:
    assert name in faults(HOOK, headers={name: "x"})["headers"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A:": "a"},
        {"": "a"},
        {"X-A": "a\0"},
        {"X-A": "a", "x-a": "b"},
        {"X-A": 1},
        ["X-A"],
        {f"X-{n}": "a" for n in range(21)},
        {"X-A": "a" * 4097},
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: Any) -> None:
    assert set(faults(HOOK, headers=headers)) == {"headers"}


def test_a_masked_header_stays_as_it_was() -> None:
    assert change(HOOK, {"headers": {"authorization": MASK}}, ()).headers == {"authorization": "Bearer s3cret"}
    assert change(HOOK, {"url": "https://hooks.example.com/b"}, ()).headers == HOOK.headers


def test_a_masked_header_that_never_was_is_refused() -> None:
    assert "no value of before" in faults(HOOK, headers={"X-New": MASK})["headers.X-New"]


@pytest.mark.parametrize("given", [{}, {"headers": {"Authorization": MASK}}])
@pytest.mark.parametrize(
    "url", ["https://thief.example/a", "http://hooks.example.com/a", "https://hooks.example.com:1/"]
)
def test_headers_never_move_to_another_server(url: str, given: dict[str, Any]) -> None:
    found = faults(HOOK, url=url, **given)

    assert "must be given again" in found["headers.Authorization"]
    assert "s3cret" not in str(found)


def test_headers_that_are_given_again_move_along() -> None:
    assert change(HOOK, {"url": "https://b.example/", "headers": {}}, ()).headers == {}
    assert change(HOOK, {"url": "https://b.example/", "headers": {"A": "b"}}, ()).headers == {"A": "b"}


def test_what_is_allowed_no_more_can_still_be_disabled() -> None:
    old = Wanted("http://10.0.0.1/")

    assert not change(old, {"enabled": False}, ()).enabled
    assert "private" in faults(old, description="x")["url"]


def test_a_default_port_is_the_same_place() -> None:
    assert same_place("https://a.example/x", "https://A.example:443/y")
    assert not same_place("https://a.example/", "https://a.example:444/")


def test_secrets_are_in_no_repr() -> None:
    assert "s3cret" not in repr(HOOK)
