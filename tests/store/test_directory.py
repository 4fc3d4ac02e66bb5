"""Whom an account that logged in may not write to, as the ingress asks; and what a store away makes of the answers."""

from __future__ import annotations

import pytest

from relay.directory import Directory
from relay.settings import Settings
from relay.store import db, suppressions
from relay.store.suppressions import Suppression
from tests.store.mail import account

ADA, BOB = "Ada@there.example", "bob@there.example"


@pytest.fixture
async def tenants(pool: db.Pool) -> None:
    """`a` suppresses Ada; `b` suppresses nobody."""
    async with db.connection(pool) as conn:
        for id in "ab":
            await account(conn, id)
        await suppressions.add(conn, "a", [Suppression(ADA, "bounce")])


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize(
    ("whose", "to", "refused"),
    [("a", ADA, True), ("a", ADA.upper(), True), ("a", BOB, False), ("b", ADA, False), ("nobody", ADA, False)],
)
async def test_whose_mail_is_refused(pool: db.Pool, settings: Settings, whose: str, to: str, refused: bool) -> None:
    found = await Directory(pool).suppressed(whose, to)
    assert (found is not None) is refused
    assert found is None or found.reply().startswith(f"550 5.7.1 <{to}> is suppressed since ")


@pytest.mark.usefixtures("tenants")
async def test_an_account_that_suppresses_nobody_costs_no_query(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory(pool, seconds=60)
    await directory.account("b")
    monkeypatch.setattr(db, "connection", None)
    assert await directory.suppressed("b", ADA) is None


@pytest.mark.usefixtures("tenants")
async def test_what_is_suppressed_meanwhile_is_refused(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=0)
    assert await directory.suppressed("b", BOB) is None
    async with db.connection(pool) as conn:
        await suppressions.add(conn, "b", [Suppression(BOB, "manual")])
    assert await directory.suppressed("b", BOB) is not None


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_store_away_is_waited_for_once_and_nobody_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Whether the account itself is known still, or not any more."""
    pool = await db.open_pool(settings, most=1)
    directory = Directory(pool, seconds=seconds)
    assert await directory.suppressed("a", ADA) is not None
    await pool.close()
    assert await directory.suppressed("a", ADA) is None
    monkeypatch.setattr(db, "connection", None)
    assert await directory.suppressed("a", ADA) is None


@pytest.mark.usefixtures("tenants")
async def test_the_last_known_answer_is_kept_while_the_store_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await db.open_pool(settings, most=1)
    directory = Directory(pool, seconds=0)
    await directory.account("b")
    await pool.close()
    monkeypatch.setattr(directory._accounts, "_seconds", 60)
    assert await directory.suppressed("b", ADA) is None
    monkeypatch.setattr(db, "connection", None)
    found = await directory.account("b")
    assert found is not None
    assert found.id == "b"
