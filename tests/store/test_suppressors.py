"""Who is refused at RCPT TO: the list of accounts that suppress somebody, and what a store away makes of it."""

from __future__ import annotations

import asyncio

import pytest

from relay import suppressors
from relay.settings import Settings
from relay.store import db, suppressions
from relay.store.suppressions import Suppression
from relay.suppressors import Suppressors
from tests.store.mail import account

ADA, BOB = "Ada@there.example", "bob@there.example"


@pytest.fixture
async def tenants(pool: db.Pool) -> None:
    """`a` suppresses Ada; `b` and `c` share an email, and `b` suppresses Ada too; `d` suppresses nobody."""
    async with db.connection(pool) as conn:
        for id, email in (("a", "a@here.example"), ("b", "bc@here.example"), ("c", "bc@here.example"), ("d", "d@e.e")):
            await account(conn, id)
            await conn.execute("update accounts set email = %s where id = %s", (email, id))
        for id in "ab":
            await suppressions.add(conn, id, [Suppression(ADA, "bounce")])


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize(
    ("whose", "sender", "to", "refused"),
    [
        ("a", "", ADA, True),
        ("a", "", ADA.upper(), True),
        ("a", "", BOB, False),
        ("b", "", ADA, True),
        ("d", "a@here.example", ADA, False),
        (None, "A@Here.example", ADA, True),
        (None, "a@here.example", BOB, False),
        (None, "bc@here.example", ADA, False),
        (None, "d@e.e", ADA, False),
        (None, "", ADA, False),
        (None, "a", ADA, False),
    ],
)
async def test_whose_mail_is_refused(pool: db.Pool, whose: str | None, sender: str, to: str, refused: bool) -> None:
    found = await Suppressors(pool).refusal(whose, sender, to)
    assert (found is not None) is refused
    assert found is None or found.reply().startswith(f"550 5.7.1 <{to}> is suppressed since ")


@pytest.mark.usefixtures("tenants")
async def test_accounts_that_suppress_nobody_cost_no_query(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Suppressors(pool)
    await known.refusal("d", "", ADA)
    monkeypatch.setattr(db, "connection", None)
    assert await known.refusal("d", "", ADA) is None
    assert await known.refusal(None, "d@e.e", ADA) is None


@pytest.mark.usefixtures("tenants")
async def test_a_store_away_is_asked_once_and_nobody_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await db.open_pool(settings, most=1)
    known = Suppressors(pool)
    assert await known.refusal("a", "", ADA) is not None
    await pool.close()
    assert await known.refusal("a", "", ADA) is None
    monkeypatch.setattr(db, "connection", None)
    assert await known.refusal("a", "", ADA) is None


@pytest.mark.usefixtures("tenants")
async def test_the_list_is_looked_at_again(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressors, "SECONDS", 0.0)
    known = Suppressors(pool)
    assert await known.refusal("d", "", BOB) is None
    async with db.connection(pool) as conn:
        await suppressions.add(conn, "d", [Suppression(BOB, "manual")])
    found = await asyncio.gather(*(known.refusal("d", "", BOB) for _ in range(5)))
    assert all(found)
