"""Suppressed recipients in an SMTP session: refused one by one where it logged in, and nothing else of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from relay import metrics
from relay.core import suppression
from relay.core.model import Reason, Suppressed
from relay.core.suppression import AllSuppressed
from tests.fakes.ingress import MESSAGE, PLAIN, Client, House, Token, opened, sasl

SINCE = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
KEYED = MESSAGE.replace(b"X-Account", b"X-Idempotency-Key: k\r\nX-Account")


def one(recipient: str, reason: Reason = "bounce", detail: str = "550 no") -> Suppressed:
    return Suppressed(recipient, reason, SINCE, detail)


def suppress(house: House, recipient: str = "b@two.example", detail: str = "550 no") -> None:
    house.directory.suppressions["a1", recipient] = suppression.refused("a1", one(recipient, detail=detail))


@asynccontextmanager
async def logged_in() -> AsyncIterator[tuple[House, Client]]:
    """A session of `a1`, which suppresses Ben."""
    async with opened() as house:
        suppress(house)
        house.directory.tokens["any"] = Token()
        client = await house.ready()
        await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")
        yield house, client


async def test_the_recipient_alone_is_refused() -> None:
    async with logged_in() as (house, client):
        await client.ask("MAIL FROM:<any@else.example>")
        assert (await client.ask("RCPT TO:<c@two.example>")).startswith("250")
        assert await client.ask("RCPT TO:<b@two.example>") == (
            "550 5.7.1 <b@two.example> is suppressed since 2026-11-20T09:30:00.000Z: mail to it bounced (550 no);"
            " DELETE /v1/suppressions/a1/b@two.example lifts it"
        )
        assert (await client.ask("RCPT TO:<b@two.example>")).startswith("550 5.7.1")
        await client.ask("DATA")
        assert (await client.ask(MESSAGE + b".")).startswith("250")
        assert house.acceptor.taken[0].recipients == ("c@two.example",)


async def test_where_nobody_is_left_there_is_no_data() -> None:
    async with logged_in() as (_, client):
        assert await client.begin("b@two.example") == "554 5.5.1 No valid recipients"


@pytest.mark.parametrize("sender", ["any@else.example", "a@one.example"])
async def test_without_a_login_nobody_is_refused_before_the_message_says_whose_it_is(sender: str) -> None:
    """Given a sender who is the email of an account, and a message that may name another one."""
    async with opened() as house:
        suppress(house)
        client = await house.ready()
        assert (await client.submit(MESSAGE, sender=sender)).startswith("250")
        assert house.acceptor.taken[0].recipients == ("b@two.example",)


async def test_the_same_submission_is_known_by_its_key_whoever_was_left_out() -> None:
    """Given a client that repeats itself since it did not hear our answer, when a recipient is suppressed meanwhile."""
    async with logged_in() as (house, client):
        refusal = house.directory.suppressions.pop(("a1", "b@two.example"))
        for _ in range(2):
            await client.begin("b@two.example", "c@two.example")
            assert (await client.ask(KEYED + b".")).startswith("250")
            house.directory.suppressions["a1", "b@two.example"] = refusal
        first, second = house.acceptor.taken
        assert (len(first.recipients), len(second.recipients)) == (2, 1)
        assert first.body_hash == second.body_hash


async def test_all_of_them_are_told_in_one_reply() -> None:
    async with opened() as house:
        house.acceptor.error = AllSuppressed("a1", [one("b@two.example"), one("c@two.example", "complaint", "")])
        client = await house.ready()
        assert (await client.submit()).splitlines() == [
            "550-5.7.1 <b@two.example> is suppressed since 2026-11-20T09:30:00.000Z: mail to it bounced (550 no)",
            "550-5.7.1 <c@two.example> is suppressed since 2026-11-20T09:30:00.000Z:"
            " its owner complained of mail from here",
            "550 5.7.1 Nobody is left to send to; DELETE /v1/suppressions/a1/b@two.example lifts it",
        ]
        assert await client.ask("NOOP") == "250 2.0.0 OK"


async def test_what_is_counted_names_nobody() -> None:
    async with opened() as house:
        house.acceptor.error = AllSuppressed("a1", [one("b@two.example"), one("c@two.example")])
        client = await house.ready()
        counted = metrics.REFUSED.labels("smtp", "5.7.1")._value.get()
        assert (await client.submit()).startswith("550-5.7.1 <b@two.example>")
        assert metrics.REFUSED.labels("smtp", "5.7.1")._value.get() == counted + 1


async def test_of_very_many_the_first_are_named() -> None:
    reply = AllSuppressed("a1", [one(f"u{n}@two.example") for n in range(1000)]).reply().split("\n")
    assert len(reply) == suppression.MOST_NAMED + 2
    assert reply[-2] == "550-5.7.1 and so are 950 more"


@pytest.mark.parametrize("detail", ["550 no\r\n250 2.0.0 OK", "550 no\n250 OK\x00\x1b[2J", "x" * 5000, "\u2028\ud800"])
async def test_what_a_provider_said_makes_no_reply_of_its_own(detail: str) -> None:
    async with logged_in() as (house, client):
        suppress(house, detail=detail)
        house.acceptor.error = AllSuppressed("a1", [one("c@two.example", detail=detail)])
        await client.ask("MAIL FROM:<a@one.example>")
        replies = [await client.ask("RCPT TO:<b@two.example>")]
        await client.ask("RCPT TO:<c@two.example>")
        await client.ask("DATA")
        replies.append(await client.ask(PLAIN + b"."))
        assert await client.ask("NOOP") == "250 2.0.0 OK"
        lines = [line for reply in replies for line in reply.splitlines()]
        assert [line[:4] for line in lines] == ["550 ", "550-", "550 "]
        assert all(line.isascii() and line.isprintable() and len(line) < 510 for line in lines)
