"""Verification of a Mailgun domain: each step told, what is wrong in words, and never a mail."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from relay import verify as verify_module
from relay.core.tenant import Mailgun
from relay.core.verification import Result
from relay.settings import Settings
from relay.verify import verify
from tests.fakes.mailgun import DOMAIN, KEY, MailgunServer


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with MailgunServer() as server:
        yield server


async def verified(settings: Settings, server: MailgunServer, **given: Any) -> Result:
    mailgun = Mailgun(**{"domain": DOMAIN, "api_key": KEY, "base_url": server.url} | given)
    report = await verify(mailgun, None, settings)
    assert report.imap is None
    assert report.smtp is not None
    assert server.taken == []
    return report.smtp


def walk(result: Result) -> str:
    return " ".join(f"{step.name}:{step.state}" for step in result.steps)


async def test_a_domain_that_may_send(settings: Settings, server: MailgunServer) -> None:
    result = await verified(settings, server)
    assert walk(result) == "settings:ok resolve:ok connect:ok tls:skipped auth:ok"
    assert result.steps[-1].detail == "the domain mg.example.com is active"
    assert result.told()["provider"] == "mailgun"


async def test_a_key_that_may_send_and_nothing_else(settings: Settings, server: MailgunServer) -> None:
    server.sending.add("key-sending")
    result = await verified(settings, server, api_key="key-sending")
    assert result.success
    assert result.steps[-1].detail == "the key may send for mg.example.com"
    assert "dashboard" in result.steps[-1].advice
    assert [method for method, _ in server.requests] == ["GET", "POST"]


async def test_a_bad_key(settings: Settings, server: MailgunServer) -> None:
    result = await verified(settings, server, api_key="key-wrong-and-secret")
    assert walk(result).endswith("connect:ok tls:skipped auth:failed")
    assert (result.code, result.said) == ("EAUTH", "Invalid private key")
    assert result.failed is not None
    assert "mailgun.apiKey" in result.failed.advice
    assert "key-wrong-and-secret" not in str(result.told())


async def test_an_unknown_domain(settings: Settings, server: MailgunServer) -> None:
    result = await verified(settings, server, domain="elsewhere.example")
    assert result.code == "EDOMAIN"
    assert result.failed is not None
    assert "https://api.eu.mailgun.net" in result.failed.advice


@pytest.mark.parametrize("state", ["disabled", "unverified"])
async def test_a_domain_that_may_not_send(settings: Settings, server: MailgunServer, state: str) -> None:
    server.domains[DOMAIN] |= {"state": state}
    result = await verified(settings, server)
    assert result.code == "EDOMAIN"
    assert result.failed is not None
    assert result.failed.detail == f"the domain mg.example.com is {state}"
    assert "dashboard" in result.failed.advice


async def test_somebody_else_answers(settings: Settings, server: MailgunServer) -> None:
    server.when().say(200, "<html>Welcome to nginx</html>")
    result = await verified(settings, server)
    assert (result.code, result.failed and result.failed.name) == ("EPROTOCOL", "auth")


async def test_a_key_that_an_answer_repeats_is_not_told(settings: Settings, server: MailgunServer) -> None:
    server.when().say(400, {"message": f"what is {KEY}?"})
    assert KEY not in str((await verified(settings, server)).told())


async def test_settings_are_judged_before_anybody_is_asked(settings: Settings, server: MailgunServer) -> None:
    result = await verified(replace(settings, allow_networks=()), server)
    assert walk(result) == "settings:failed resolve:skipped connect:skipped tls:skipped auth:skipped"
    assert result.code == "ESETTINGS"
    assert server.connections == 0


async def test_nobody_there(settings: Settings, server: MailgunServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = await verified(settings, server, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (result.code, result.failed and result.failed.name) == ("ECONNECTION", "connect")


async def test_a_certificate_that_nobody_trusts(settings: Settings) -> None:
    async with MailgunServer(tls=True) as server:
        result = await verified(settings, server)
        assert (result.code, result.failed and result.failed.name) == ("ETLS", "tls")
        assert server.requests == []


async def test_silence_ends_in_time(settings: Settings, server: MailgunServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "WHOLE", 2.0)
    server.when().hang()
    result = await verified(settings, server)
    assert (result.code, result.failed and result.failed.name) == ("ETIMEDOUT", "auth")
