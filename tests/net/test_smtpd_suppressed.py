"""Suppressed recipients in an SMTP session: refused one by one where the account is known, and nothing else of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relay.core import suppression
from relay.core.model import Reason, Suppressed
from relay.core.suppression import AllSuppressed
from tests.fakes.ingress import MESSAGE, PLAIN, House, Token, opened, sasl

SINCE = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
KEYED = MESSAGE.replace(b"X-Account", b"X-Idempotency-Key: k\r\nX-Account")


def one(recipient: str, reason: Reason = "bounce", detail: str = "550 no") -> Suppressed:
    return Suppressed(recipient, reason, SINCE, detail)


def suppress(house: House, recipient: str = "b@two.example", detail: str = "550 no") -> None:
    house.directory.suppressions["a1", recipient] = suppression.refused("a1", one(recipient, detail=detail))


async def test_the_recipient_alone_is_refused() -> None:
    async with opened() as house:
        suppress(house)
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
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
    async with opened() as house:
        suppress(house)
        client = await house.ready()
        assert await client.begin("b@two.example") == "554 5.5.1 No valid recipients"


async def test_who_logged_in_is_asked_for_whatever_the_sender_is() -> None:
    async with opened(trusted_networks="192.0.2.0/24") as house:
        suppress(house)
        house.directory.tokens["any"] = Token()
        client = await house.ready()
        await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")
        await client.ask("MAIL FROM:<any@else.example>")
        assert (await client.ask("RCPT TO:<b@two.example>")).startswith("550 5.7.1")


async def test_who_is_not_known_yet_is_not_asked_for() -> None:
    async with opened() as house:
        suppress(house)
        client = await house.ready()
        assert (await client.submit(MESSAGE, sender="any@else.example")).startswith("250")


async def test_the_same_submission_is_known_by_its_key_whoever_was_left_out() -> None:
    """Given a client that repeats itself since it did not hear our answer, when a recipient is suppressed meanwhile."""
    async with opened() as house:
        client = await house.ready()
        for _ in range(2):
            await client.begin("b@two.example", "c@two.example")
            assert (await client.ask(KEYED + b".")).startswith("250")
            suppress(house)
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


async def test_of_very_many_the_first_are_named() -> None:
    reply = AllSuppressed("a1", [one(f"u{n}@two.example") for n in range(1000)]).reply().split("\n")
    assert len(reply) == suppression.MOST_NAMED + 2
    assert reply[-2] == "550-5.7.1 and so are 950 more"


@pytest.mark.parametrize("detail", ["550 no\r\n250 2.0.0 OK", "550 no\n250 OK\x00\x1b[2J", "x" * 5000, "\u2028\ud800"])
async def test_what_a_provider_said_makes_no_reply_of_its_own(detail: str) -> None:
    async with opened() as house:
        suppress(house, detail=detail)
        house.acceptor.error = AllSuppressed("a1", [one("c@two.example", detail=detail)])
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
        replies = [await client.ask("RCPT TO:<b@two.example>")]
        await client.ask("RCPT TO:<c@two.example>")
        await client.ask("DATA")
        replies.append(await client.ask(PLAIN + b"."))
        assert await client.ask("NOOP") == "250 2.0.0 OK"
        lines = [line for reply in replies for line in reply.splitlines()]
        assert [line[:4] for line in lines] == ["550 ", "550-", "550 "]
        assert all(line.isascii() and line.isprintable() and len(line) < 510 for line in lines)
