"""Verification says of each step of both servers how it went, and what to do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from relay import verify as verify_module
from relay.core.tenant import Imap, Smtp, Tls
from relay.core.verification import Result, Step
from relay.net import guard
from relay.settings import Settings
from relay.verify import verify, verify_imap, verify_smtp
from tests.dovecot import Dovecot
from tests.fakes.imap import Mailserver
from tests.fakes.upstream import Upstream
from tests.stack import until

SMTP_NONE = "settings:failed resolve:skipped connect:skipped ehlo:skipped tls:skipped auth:skipped"


def states(result: Result) -> str:
    return " ".join(f"{step.name}:{step.state}" for step in result.steps)


def failure(result: Result) -> Step:
    [failed] = [step for step in result.steps if step.state == "failed"]
    return failed


def mailbox(server: Mailserver, tls: Tls = Tls.NONE, **more: Any) -> Imap:
    return Imap(server.host, server.port, tls, **{"user": "ann", "password": "secret", **more})


# -- The upstream ----------------------------------------------------------------------------------------------------


async def test_wrong_settings_are_not_tried(settings: Settings) -> None:
    async with Upstream() as upstream:
        result = await verify_smtp(Smtp(upstream.host, upstream.port, user="ann"), settings)
        assert upstream.connections == 0
    assert (states(result), result.code) == (SMTP_NONE, "ESETTINGS")


async def test_an_account_that_works_passes_every_step(settings: Settings) -> None:
    async with Upstream(implicit=True, auth=["PLAIN"]) as upstream:
        smtp = Smtp(upstream.host, upstream.port, Tls.IMPLICIT, "ann", "secret", verify_certificate=False)
        result = await verify_smtp(smtp, settings)
        assert upstream.said("MAIL") == []
    assert states(result) == "settings:ok resolve:ok connect:ok tls:ok ehlo:ok auth:ok"
    assert result.success
    assert "logged in as ann" in result.steps[-1].detail
    assert "secret" not in str(result.told())


async def test_what_was_not_asked_for_is_skipped(settings: Settings) -> None:
    async with Upstream() as upstream:
        result = await verify_smtp(Smtp(upstream.host, upstream.port), settings)
    assert states(result) == "settings:ok resolve:ok connect:ok ehlo:ok tls:skipped auth:skipped"
    assert result.steps[4].detail == "not offered"
    assert "readable" in result.steps[4].advice


async def test_a_refused_login_says_what_to_do(settings: Settings) -> None:
    async with Upstream(auth=["PLAIN"]) as upstream:
        upstream.when("AUTH").say("535 5.7.8 Username and Password not accepted")
        result = await verify_smtp(Smtp(upstream.host, upstream.port, Tls.NONE, "ann", "not-this"), settings)
    assert states(result) == "settings:ok resolve:ok connect:ok ehlo:ok tls:skipped auth:failed"
    assert failure(result).detail == "535 5.7.8 Username and Password not accepted"
    assert "app password" in failure(result).advice
    assert (result.code, result.said) == ("EAUTH", "535 5.7.8 Username and Password not accepted")


async def test_a_login_refused_under_tls_leaves_tls_good(settings: Settings) -> None:
    async with Upstream(starttls=True, auth=["PLAIN"]) as upstream:
        smtp = Smtp(upstream.host, upstream.port, user="ann", password="not-this", verify_certificate=False)
        result = await verify_smtp(smtp, settings)
    assert states(result) == "settings:ok resolve:ok connect:ok ehlo:ok tls:ok auth:failed"


async def test_a_password_that_upstream_repeats_is_not_told(settings: Settings) -> None:
    async with Upstream(auth=["PLAIN"]) as upstream:
        upstream.when("AUTH").say("535 5.7.8 hunter2 is not your password")
        result = await verify_smtp(Smtp(upstream.host, upstream.port, Tls.NONE, "ann", "hunter2"), settings)
    assert result.said == "535 5.7.8 *** is not your password"
    assert "hunter2" not in str(result.told())


async def test_a_certificate_nobody_trusts_is_said_in_words(settings: Settings) -> None:
    async with Upstream(starttls=True) as upstream:
        result = await verify_smtp(Smtp(upstream.host, upstream.port, Tls.STARTTLS), settings)
    assert states(result) == "settings:ok resolve:ok connect:ok ehlo:ok tls:failed auth:skipped"
    assert "it is self-signed" in failure(result).detail
    assert "rejectUnauthorized" in failure(result).advice
    assert result.code == "ETLS"


async def test_nobody_there_is_said(settings: Settings) -> None:
    async with Upstream() as upstream:
        smtp = Smtp(upstream.host, upstream.port)
    result = await verify_smtp(smtp, settings)
    assert states(result) == "settings:ok resolve:ok connect:failed ehlo:skipped tls:skipped auth:skipped"
    assert "firewall" in failure(result).advice
    assert result.code == "ECONNECTION"


async def test_silence_is_given_up(settings: Settings) -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").hang()
        hasty = replace(settings, connect_timeout=0.5)
        result = await verify_smtp(Smtp(upstream.host, upstream.port), hasty)
    assert states(result) == "settings:ok resolve:ok connect:ok ehlo:failed tls:skipped auth:skipped"
    assert result.code == "ETIMEDOUT"
    assert failure(result).seconds >= 0.4


async def test_a_name_that_resolves_to_nothing_fails_at_resolve(settings: Settings) -> None:
    result = await verify_smtp(Smtp("mx..example.com", 2525), settings)
    assert failure(result).name == "resolve"
    assert "typing" in failure(result).advice
    assert result.code == "EDNS"


async def test_the_sandbox_is_an_upstream_like_others(settings: Settings) -> None:
    async with Upstream() as upstream:
        result = await verify_smtp(Smtp("sandbox", 587), replace(settings, sandbox_port=upstream.port))
    assert result.success


# -- The mailbox -----------------------------------------------------------------------------------------------------


async def test_a_real_mailbox_passes_every_step(dovecot: Dovecot, settings: Settings) -> None:
    for tls, expected in (
        (Tls.IMPLICIT, "settings:ok resolve:ok connect:ok tls:ok greeting:ok login:ok folders:ok"),
        (Tls.STARTTLS, "settings:ok resolve:ok connect:ok greeting:ok tls:ok login:ok folders:ok"),
        (Tls.NONE, "settings:ok resolve:ok connect:ok greeting:ok tls:skipped login:ok folders:ok"),
    ):
        result = await verify_imap(dovecot.imap("ann", tls, verify_certificate=False), settings)
        assert states(result) == expected
    assert result.told()["folders"] == {
        "sent": "Verschickt & raus",
        "trash": "Müll",
        "drafts": "Unfertig",
        "junk": "Kram",
        "all": "Ablage",
    }


async def test_a_refused_mailbox_login_says_what_to_do(dovecot: Dovecot, settings: Settings) -> None:
    result = await verify_imap(dovecot.imap("ann", password="not-this-one"), settings)
    assert states(result) == "settings:ok resolve:ok connect:ok greeting:ok tls:skipped login:failed folders:skipped"
    assert result.code == "AUTHENTICATIONFAILED"
    assert result.said == "[AUTHENTICATIONFAILED] Authentication failed."
    assert "app password" in failure(result).advice
    assert "not-this-one" not in str(result.told())


async def test_a_mailbox_with_wrong_settings_is_not_tried(settings: Settings) -> None:
    async with Mailserver() as server:
        result = await verify_imap(mailbox(server, password=""), settings)
        assert server.connections == 0
    assert failure(result).name == "settings"


async def test_a_mailbox_nobody_answers_for_is_said(settings: Settings) -> None:
    async with Mailserver() as server:
        imap = mailbox(server)
    result = await verify_imap(imap, settings)
    assert (failure(result).name, result.code) == ("connect", "ECONNECTION")


async def test_the_folder_of_sent_mail_must_be_there_when_it_is_named(settings: Settings) -> None:
    async with Mailserver() as server:
        assert (await verify_imap(mailbox(server, sent_path="Sent"), settings)).success
        result = await verify_imap(mailbox(server, sent_path="Gesendet"), settings)
    assert failure(result).name == "folders"
    assert "there is no folder 'Gesendet'" in failure(result).detail
    assert "'Sent'" in failure(result).advice


async def test_a_mailbox_without_a_folder_of_sent_mail_is_good_and_told_of(settings: Settings) -> None:
    async with Mailserver(folders=[r'() "/" "INBOX"']) as server:
        result = await verify_imap(mailbox(server), settings)
    assert result.success
    assert "sentMailPath" in result.steps[-1].advice


async def test_a_mailbox_of_odd_names_is_told_as_json(settings: Settings) -> None:
    async with Mailserver(folders=[r'(\Sent) "/" "&2AA-"', r'(\Sent) "/" "&ZeVnLIqe-"']) as server:
        result = await verify_imap(mailbox(server), settings)
    assert result.told()["folders"] == {"sent": "日本語"}


# -- Both ------------------------------------------------------------------------------------------------------------


async def test_both_servers_are_tried_at_once(settings: Settings) -> None:
    both = asyncio.Event()
    async with Upstream() as upstream, Mailserver() as server:
        upstream.when("CONNECT").wait(both).say("220 ready")
        server.when("CONNECT").wait(both).say("* OK ready")
        verifying = asyncio.create_task(verify(Smtp(upstream.host, upstream.port), mailbox(server), settings))
        await until(lambda: upstream.connections == server.connections == 1)
        both.set()
        assert (await verifying).success


async def test_where_there_is_no_server_nothing_is_told(settings: Settings) -> None:
    report = await verify(None, None, settings)
    assert (report.smtp, report.imap, report.success) == (None, None, True)


async def test_the_whole_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given servers that answer each command just in time
    monkeypatch.setattr(verify_module, "WHOLE", 2.0)
    async with Upstream() as upstream, Mailserver() as server:
        upstream.when("EHLO").hang()
        server.when("LIST").hang()
        report = await verify(Smtp(upstream.host, upstream.port), mailbox(server), settings)
    assert report.smtp is not None
    assert report.imap is not None
    assert failure(report.smtp).name == "ehlo"
    assert failure(report.imap).name == "folders"
    assert (report.smtp.code, report.imap.code) == ("ETIMEDOUT", "ETIMEDOUT")


@pytest.mark.parametrize("port", [2525, 9])
async def test_of_a_private_host_nothing_is_told_but_that_it_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    async def inside(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.11.12.13", port))]

    monkeypatch.setattr(guard, "_system", inside)
    login = {"user": "ann", "password": "secret"}
    strict = replace(settings, allow_networks=())
    report = await verify(Smtp("db.corp.example", port, **login), Imap("db.corp.example", port, **login), strict)
    for result in (report.smtp, report.imap):
        assert result is not None
        assert (failure(result).name, result.code) == ("resolve", "EFORBIDDEN")
        assert failure(result).detail == "db.corp.example may not be used as a host here"
        assert "10." not in str(result.told())
        assert "private address" not in str(result.told())
