"""`postferry account` with Mailgun as the upstream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flow.conftest import Postferry

DOMAIN = ("--mailgun-domain", "mg.example.com")


def test_a_domain_is_added_shown_and_listed_without_its_key(postferry: Postferry, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key-secret\n")

    added = postferry("account", "add", "shop", *DOMAIN, "--mailgun-region", "eu", "--mailgun-key-file", "key")
    shown = postferry("account", "show", "shop")

    assert added.code == 0, added.err
    assert json.loads(shown.out)["mailgun"] == {
        "domain": "mg.example.com",
        "baseUrl": "https://api.eu.mailgun.net",
        "apiKey": "******",
    }
    assert "api.eu.mailgun.net:443" in postferry("account", "list").out
    assert "key-secret" not in added.out + added.err + shown.out


def test_the_key_may_come_from_the_environment_and_a_password_there_is_not_for_it(
    postferry: Postferry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILGUN_API_KEY", "key-secret")
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2")

    assert postferry("account", "add", "shop", *DOMAIN).code == 0
    shown = json.loads(postferry("account", "show", "shop").out)
    assert shown["mailgun"]["apiKey"] == "******"
    assert shown["smtp"] is None


def test_two_upstreams_are_refused(postferry: Postferry) -> None:
    refused = postferry("account", "add", "shop", *DOMAIN, "--smtp-host", "smtp.example.com")
    assert refused.code == 64
    assert "not both" in refused.err


def test_a_domain_without_its_key_is_refused_by_name(postferry: Postferry) -> None:
    refused = postferry("account", "add", "shop", *DOMAIN)
    assert refused.code == 65
    assert "mailgun.apiKey" in refused.err
