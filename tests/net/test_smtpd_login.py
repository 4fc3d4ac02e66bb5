"""Who may send: trusted networks, and AUTH with an account's id and a token."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.core.errors import StoreAway
from tests.fakes.ingress import MESSAGE, PLAIN, Client, House, Token, account, opened, sasl

INVALID = "535 5.7.8 Authentication credentials invalid"


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


@asynccontextmanager
async def strict(**given: Any) -> AsyncIterator[House]:
    """A house that trusts nobody's address, with tokens for every case."""
    async with opened(trusted_networks="192.0.2.0/24", **given) as house:
        house.directory.accounts["a2"] = account("a2")
        house.directory.tokens = {
            "any": Token(),
            "all": Token(("*",)),
            "one": Token(account="a1"),
            "api": Token(("api",)),
        }
        yield house


async def logged_in(house: House, user: str = "a1", password: str = "any") -> Client:
    client = await house.ready()
    assert await client.ask(f"AUTH PLAIN {sasl(user, password)}") == "235 2.7.0 Authentication successful"
    return client


@pytest.mark.parametrize(("user", "password"), [("a1", "any"), ("a2", "any"), ("a1", "all"), ("a1", "one")])
async def test_a_token_with_the_right_scope_sends_for_its_account(user: str, password: str) -> None:
    async with strict() as house:
        client = await logged_in(house, user, password)
        assert (await client.submit(PLAIN)).startswith("250 2.0.0")
        assert house.acceptor.taken[0].account.id == user


@pytest.mark.parametrize(
    ("user", "password"),
    [("a2", "one"), ("a1", "api"), ("a1", "wrong"), ("nobody", "any"), ("nobody", "wrong"), ("", ""), ("A1", "any")],
)
async def test_every_refused_login_reads_the_same(user: str, password: str) -> None:
    async with strict() as house:
        client = await house.ready()
        assert await client.ask(f"AUTH PLAIN {sasl(user, password)}") == INVALID
        assert (await client.ask("MAIL FROM:<a@one.example>")).startswith("530 5.7.0")


async def test_plain_may_be_asked_for_its_answer() -> None:
    async with strict() as house:
        client = await house.ready()
        assert await client.ask("auth plain") == "334 "
        assert (await client.ask(sasl("a1", "any", identity="a1"))).startswith("235")


async def test_nobody_acts_as_another() -> None:
    async with strict() as house:
        client = await house.ready()
        assert await client.ask(f"AUTH PLAIN {sasl('a1', 'any', identity='a2')}") == INVALID


@pytest.mark.parametrize("initial", [True, False])
async def test_login_asks_twice(initial: bool) -> None:
    async with strict() as house:
        client = await house.ready()
        if initial:
            assert await client.ask(f"AUTH LOGIN {b64('a1')}") == "334 UGFzc3dvcmQ6"
        else:
            assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
            assert await client.ask(b64("a1")) == "334 UGFzc3dvcmQ6"
        assert (await client.ask(b64("any"))).startswith("235")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["AUTH"], "504 5.5.4"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", b64("a1"), "*"], "501 5.7.0"),
        (["AUTH PLAIN not!base64"], "501 5.5.2"),
        (["AUTH PLAIN ä"], "501 5.5.2"),
        (["AUTH PLAIN ="], "501 5.5.2"),
        (["AUTH PLAIN " + b64("one\0two")], "501 5.5.2"),
        (["AUTH PLAIN " + b64encode(b"\0\xff\xfe\0x").decode()], "501 5.5.2"),
        (["AUTH LOGIN", "%%%"], "501 5.5.2"),
        (["AUTH LOGIN", "=", "="], "535 5.7.8"),
        (["AUTH PLAIN", "x" * 20_000], "500 5.5.2"),
        (["AUTH PLAIN " + sasl("a1", "any"), "AUTH PLAIN " + sasl("a1", "any")], "503 5.5.1"),
    ],
)
async def test_an_exchange_that_goes_wrong_is_answered_and_the_session_goes_on(lines: list[str], code: str) -> None:
    async with strict() as house:
        client = await house.ready()
        said = [await client.ask(line) for line in lines]
        assert said[-1].startswith(code)
        assert (await client.ask("NOOP")).startswith("250")


async def test_failed_logins_end_the_session() -> None:
    async with strict() as house:
        client = await house.ready()
        said = [await client.ask(f"AUTH PLAIN {sasl('a1', 'wrong')}") for _ in range(4)]
        assert said[:3] == [INVALID] * 3
        assert said[3].startswith("421 4.7.0")
        assert await client.closed()


async def test_failed_logins_are_slowed_ever_more(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("relay.ingress.session.asyncio.sleep", wait)
    async with strict(smtp_auth_delay=8) as house:
        client = await house.ready()
        for _ in range(4):
            await client.ask(f"AUTH PLAIN {sasl('a1', 'wrong')}")
    assert waits == [8, 16, 30, 30]


async def test_logins_that_cannot_be_checked_are_a_temporary_failure() -> None:
    async with strict() as house:
        client = await house.ready()
        house.directory.error = StoreAway("away")
        assert (await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")).startswith("454 4.7.0")
        house.directory.error = None
        assert (await client.ask(f"AUTH PLAIN {sasl('a1', 'any')}")).startswith("235")


async def test_who_is_not_trusted_must_log_in() -> None:
    async with strict() as house:
        client = await house.ready()
        assert await client.ask("MAIL FROM:<a@one.example>") == "530 5.7.0 Authentication required"


async def test_x_account_may_repeat_the_login_but_not_contradict_it() -> None:
    async with strict() as house:
        client = await logged_in(house, "a1")
        assert (await client.submit(b"X-Account: a1\r\n" + PLAIN)).startswith("250")
        assert (await client.submit(b"X-Account: a2\r\n" + PLAIN)).startswith("550 5.7.1")
        assert len(house.acceptor.taken) == 1


async def test_a_trusted_client_that_logs_in_is_held_to_its_login() -> None:
    async with opened() as house:
        house.directory.accounts["a2"] = account("a2")
        house.directory.tokens["any"] = Token()
        client = await logged_in(house, "a2")
        assert (await client.submit(MESSAGE)).startswith("550 5.7.1")


async def test_a_token_that_is_revoked_counts_no_more_in_an_open_session() -> None:
    async with strict() as house:
        client = await logged_in(house)
        del house.directory.tokens["any"]
        assert (await client.submit(PLAIN)).startswith("550 5.7.1")
