"""Who guesses learns nothing: an unknown account, a wrong token and one of another scope go the same way, as slowly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from relay import metrics
from relay.ingress import session
from tests.fakes.ingress import House, Token, account, opened, sasl

GUESSES = {
    "wrong token": ("a1", "wrong"),
    "unknown account": ("nobody", "wrong"),
    "no account": ("", "wrong"),
    "another's token": ("a2", "one"),
    "another's token, for nobody": ("nobody", "one"),
    "another scope": ("a1", "api"),
    "another scope, for nobody": ("nobody", "api"),
    "no token": ("a1", ""),
}


@dataclass
class Watched:
    """What a refused login does."""

    asked: list[str] = field(default_factory=list)  # of the directory
    waits: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with opened(trusted_networks="192.0.2.0/24", smtp_auth_delay=0.5) as house:
        house.directory.accounts["a2"] = account("a2")
        house.directory.tokens = {"one": Token(account="a1"), "api": Token(("api",)), "any": Token()}
        yield house


async def guessed(house: House, monkeypatch: pytest.MonkeyPatch, user: str, token: str) -> Watched:
    """Three guesses, one after the other, in a session of their own."""
    found = Watched()
    for name in ("token", "account"):
        real = getattr(house.directory, name)

        async def asked(what: str, name: str = name, real: object = real) -> object:
            found.asked.append(name)
            return await real(what)  # type: ignore[operator]

        monkeypatch.setattr(house.directory, name, asked)

    async def wait(seconds: float) -> None:
        found.waits.append(seconds)

    with monkeypatch.context() as patched:
        patched.setattr(session.asyncio, "sleep", wait)
        client = await house.ready()
        for _ in range(3):
            found.said.append(await client.ask(f"AUTH PLAIN {sasl(user, token)}"))
    return found


@pytest.mark.parametrize("guess", GUESSES)
async def test_every_guess_makes_the_same_calls_and_waits_as_long(
    house: House, monkeypatch: pytest.MonkeyPatch, guess: str
) -> None:
    found = await guessed(house, monkeypatch, *GUESSES[guess])
    first = house.door.settings.smtp_auth_delay
    assert found == Watched(
        asked=["token"] * 3,
        waits=[first, 2 * first, 4 * first],
        said=["535 5.7.8 Authentication credentials invalid"] * 3,
    )


async def test_only_who_has_a_token_for_all_accounts_learns_that_one_is_not_there(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... which it may list anyway."""
    found = await guessed(house, monkeypatch, "nobody", "any")
    assert found.asked == ["token", "account"] * 3
    assert len(set(found.waits)) == 3


async def test_guesses_are_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = metrics.AUTH_FAILURES.labels("smtp")._value.get()
    await guessed(house, monkeypatch, "a1", "wrong")
    assert metrics.AUTH_FAILURES.labels("smtp")._value.get() == before + 3
