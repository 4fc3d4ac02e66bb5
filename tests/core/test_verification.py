"""What is certainly wrong with settings is found without trying them; results are told in EmailEngine's words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.folders import Folder
from relay.core.tenant import Imap, Smtp, Tls
from relay.core.verification import Result, Step, StepState, imap_faults, smtp_faults

SMTP = Smtp("smtp.example.com", 587, user="ann", password="secret")
IMAP = Imap("imap.example.com", user="ann", password="secret")

HOSTS = [
    ({"host": ""}, "no host"),
    ({"host": "http://mail.example.com/"}, "not a host name"),
    ({"host": "mail example com"}, "not a host name"),
    ({"host": "10.0.0.1"}, "private address"),
    ({"host": "0x7f.1"}, "loopback address"),
    ({"host": "localhost"}, "loopback address"),
    ({"host": "::ffff:169.254.169.254"}, "metadata"),
    ({"port": 0}, "no port 0"),
    ({"port": 70000}, "no port 70000"),
    ({"port": 995}, "is for POP3"),
    ({"port": 443}, "is for HTTP"),
]
SENDING = [
    *HOSTS,
    ({"password": ""}, "neither password nor access token"),
    ({"user": ""}, "no user"),
    ({"auth_method": "xoauth2"}, "access token"),
    ({"port": 993}, "is for IMAP"),
    ({"port": 465}, "TLS from the first byte"),
    ({"port": 465, "tls": Tls.NONE}, "TLS from the first byte"),
    ({"port": 587, "tls": Tls.IMPLICIT}, "starts in the clear"),
    ({"port": 25, "tls": Tls.IMPLICIT}, "starts in the clear"),
]
READING = [
    *HOSTS,
    ({"password": ""}, "neither password nor access token"),
    ({"user": ""}, "no user"),
    ({"port": 587}, "is for SMTP"),
    ({"port": 993, "tls": Tls.OPPORTUNISTIC}, "TLS from the first byte"),
    ({"port": 143}, "starts in the clear"),
]


@pytest.mark.parametrize(("changes", "words"), SENDING)
def test_what_is_certainly_wrong_with_an_upstream_is_said_with_advice(changes: dict[str, Any], words: str) -> None:
    [(fault, advice)] = list(smtp_faults(replace(SMTP, **changes), (), sandbox=False))
    assert words in fault
    assert advice.endswith(".")


@pytest.mark.parametrize(("changes", "words"), READING)
def test_what_is_certainly_wrong_with_a_mailbox_is_said_with_advice(changes: dict[str, Any], words: str) -> None:
    [(fault, advice)] = list(imap_faults(replace(IMAP, **changes), ()))
    assert words in fault
    assert advice.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"port": 465, "tls": Tls.IMPLICIT},
        {"port": 2525, "tls": Tls.IMPLICIT},
        {"port": 2525, "tls": Tls.NONE},
        {"port": 25, "tls": Tls.NONE},
        {"user": "", "password": ""},
        {"password": "", "access_token": "t"},
    ],
)
def test_good_upstreams_have_no_fault(changes: dict[str, Any]) -> None:
    assert list(smtp_faults(replace(SMTP, **changes), (), sandbox=False)) == []


@pytest.mark.parametrize(
    "changes", [{}, {"port": 143, "tls": Tls.STARTTLS}, {"port": 1993}, {"port": 1143, "tls": Tls.NONE}]
)
def test_good_mailboxes_have_no_fault(changes: dict[str, Any]) -> None:
    assert list(imap_faults(replace(IMAP, **changes), ())) == []


def test_what_the_operator_allows_is_no_fault() -> None:
    allowed = [ip_network("10.0.0.0/8")]
    assert list(smtp_faults(replace(SMTP, host="10.0.0.1"), allowed, sandbox=False)) == []
    assert list(imap_faults(replace(IMAP, host="10.0.0.1"), allowed)) == []


def test_the_sandbox_is_a_host_where_there_is_one() -> None:
    assert list(smtp_faults(replace(SMTP, host="sandbox"), (), sandbox=True)) == []


def test_a_good_result_is_told_with_its_folders() -> None:
    sent = Folder("Sent", "/", frozenset({"\\sent"}))
    result = Result((Step("folders", StepState.OK, "sent: Sent", seconds=0.12345),), folders=(sent,))
    assert result.told() == {
        "success": True,
        "steps": [{"step": "folders", "state": "ok", "seconds": 0.123, "detail": "sent: Sent"}],
        "folders": {"sent": "Sent"},
    }


def test_a_failure_is_told_in_emailengines_fields() -> None:
    steps = (Step("connect", StepState.OK), Step("auth", StepState.FAILED, "535 no", "Do this."))
    told = Result(steps, "EAUTH", "535 no").told()
    assert {key: told[key] for key in ("success", "error", "code", "responseText")} == {
        "success": False,
        "error": "535 no",
        "code": "EAUTH",
        "responseText": "535 no",
    }
    assert told["steps"][1] == {
        "step": "auth",
        "state": "failed",
        "seconds": 0.0,
        "detail": "535 no",
        "advice": "Do this.",
    }


def test_what_a_server_says_is_told_as_text() -> None:
    step = Step("ehlo", StepState.FAILED, "a\x00b\x1b[2J\ud800c" + "x" * 5000)
    told = Result((step,), "C\x00", "\r\nd\udfff").told()
    assert told["error"].startswith("a b [2J c")
    assert len(told["error"]) == 1000
    assert (told["code"], told["responseText"]) == ("C", "d")
    assert told["steps"][0]["detail"] == told["error"]
