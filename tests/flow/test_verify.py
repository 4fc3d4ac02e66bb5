"""Verification says of each step how it went, and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay.core.model import Smtp, Tls
from relay.settings import Settings
from relay.verify import Step, doubt, faults, verify
from tests.fakes.upstream import Upstream

GOOD = Smtp("smtp.example.com", 587, user="ann", password="secret")


@pytest.fixture
def here(settings: Settings) -> Settings:
    return replace(settings, connect_timeout=0.5)


def states(steps: list[Step]) -> str:
    return " ".join(f"{step.name}:{step.state}" for step in steps)


def failure(steps: list[Step]) -> Step:
    [failed] = [step for step in steps if step.state == "failed"]
    return failed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": ""}, "no host"),
        ({"host": "http://smtp.example.com/"}, "not a host name"),
        ({"host": "smtp example com"}, "not a host name"),
        ({"host": "10.0.0.1"}, "private address"),
        ({"host": "0x7f.1"}, "loopback address"),
        ({"host": "localhost"}, "loopback address"),
        ({"port": 0}, "no port 0"),
        ({"port": 70000}, "no port 70000"),
        ({"password": ""}, "neither password nor access token"),
        ({"user": ""}, "no user"),
        ({"auth_method": "xoauth2"}, "access token"),
    ],
)
def test_what_is_certainly_wrong_is_said_with_advice(changes: dict[str, Any], words: str) -> None:
    [(fault, advice)] = list(faults(replace(GOOD, **changes), (), sandbox=False))
    assert words in fault
    assert advice.endswith(".")


def test_good_settings_have_no_fault() -> None:
    assert list(faults(GOOD, (), sandbox=False)) == []


@pytest.mark.parametrize(
    ("port", "tls", "words"),
    [
        (465, Tls.STARTTLS, "first byte"),
        (465, Tls.NONE, "first byte"),
        (587, Tls.IMPLICIT, "starts in the clear"),
        (465, Tls.IMPLICIT, ""),
        (587, Tls.STARTTLS, ""),
        (2525, Tls.NONE, ""),
    ],
)
def test_a_port_with_an_unusual_tls_is_doubted(port: int, tls: Tls, words: str) -> None:
    said = doubt(replace(GOOD, port=port, tls=tls))
    assert words in said
    assert bool(said) == bool(words)


async def test_wrong_settings_are_not_tried(here: Settings) -> None:
    async with Upstream() as upstream:
        steps = await verify(Smtp(upstream.host, upstream.port, user="ann"), here)
        assert upstream.connections == 0
    assert states(steps) == "settings:failed resolve:skipped connect:skipped ehlo:skipped tls:skipped auth:skipped"


async def test_an_account_that_works_passes_every_step(here: Settings) -> None:
    async with Upstream(implicit=True, auth=["PLAIN"]) as upstream:
        smtp = Smtp(upstream.host, upstream.port, Tls.IMPLICIT, "ann", "secret", verify_certificate=False)
        steps = await verify(smtp, here)
        assert upstream.said("MAIL") == []
    assert states(steps) == "settings:ok resolve:ok connect:ok tls:ok ehlo:ok auth:ok"
    assert "logged in as ann" in steps[-1].detail
    assert not any("secret" in str(step) for step in steps)


async def test_what_was_not_asked_for_is_skipped(here: Settings) -> None:
    async with Upstream() as upstream:
        steps = await verify(Smtp(upstream.host, upstream.port), here)
    assert states(steps) == "settings:ok resolve:ok connect:ok ehlo:ok tls:skipped auth:skipped"
    assert "readable" in steps[4].advice


async def test_a_refused_login_says_what_to_do(here: Settings) -> None:
    async with Upstream(auth=["PLAIN"]) as upstream:
        upstream.when("AUTH").say("535 5.7.8 Username and Password not accepted")
        steps = await verify(Smtp(upstream.host, upstream.port, Tls.NONE, "ann", "wrong"), here)
    assert states(steps) == "settings:ok resolve:ok connect:ok ehlo:ok tls:skipped auth:failed"
    assert failure(steps).detail == "535 5.7.8 Username and Password not accepted"
    assert "app password" in failure(steps).advice


async def test_a_login_refused_under_tls_leaves_tls_good(here: Settings) -> None:
    async with Upstream(starttls=True, auth=["PLAIN"]) as upstream:
        smtp = Smtp(upstream.host, upstream.port, user="ann", password="wrong", verify_certificate=False)
        steps = await verify(smtp, here)
    assert states(steps) == "settings:ok resolve:ok connect:ok ehlo:ok tls:ok auth:failed"


async def test_a_certificate_nobody_trusts_is_said(here: Settings) -> None:
    async with Upstream(starttls=True) as upstream:
        steps = await verify(Smtp(upstream.host, upstream.port, Tls.STARTTLS), here)
    assert states(steps) == "settings:ok resolve:ok connect:ok ehlo:ok tls:failed auth:skipped"
    assert "certificate" in failure(steps).advice


async def test_nobody_there_is_said(here: Settings) -> None:
    async with Upstream() as upstream:
        smtp = Smtp(upstream.host, upstream.port)
    steps = await verify(smtp, here)
    assert states(steps) == "settings:ok resolve:ok connect:failed ehlo:skipped tls:skipped auth:skipped"
    assert "firewall" in failure(steps).advice


async def test_silence_is_given_up(here: Settings) -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").hang()
        steps = await verify(Smtp(upstream.host, upstream.port), here)
    assert failure(steps).name == "connect"


async def test_a_name_that_resolves_to_nothing_fails_at_resolve(here: Settings) -> None:
    steps = await verify(Smtp("mx..example.com", 25), here)
    assert failure(steps).name == "resolve"
    assert "typing" in failure(steps).advice


async def test_the_sandbox_is_an_upstream_like_others(here: Settings) -> None:
    async with Upstream() as upstream:
        steps = await verify(Smtp("sandbox", 25), replace(here, sandbox_port=upstream.port))
    assert "failed" not in states(steps)
