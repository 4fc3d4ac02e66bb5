"""Tokens in the store, and the directory that the doors ask."""

from __future__ import annotations

import asyncio

import pytest

from relay.core.errors import StoreAway
from relay.directory import Directory
from relay.settings import Settings
from relay.store import db, tokens
from tests.store.mail import account


async def test_a_token_is_found_until_it_is_revoked(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        plaintext = await tokens.create(conn, ["api"], None, "x")
        found = await tokens.find(conn, plaintext)
        assert found is not None
        assert (found.scopes, found.account) == (("api",), None)
        assert await tokens.revoke(conn, found.id)
        assert not await tokens.revoke(conn, found.id)
        assert await tokens.find(conn, plaintext) is None


async def test_only_a_hash_is_kept(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        plaintext = await tokens.create(conn, ["*"])
        row = await (await conn.execute("select hash from tokens")).fetchone()
        assert row == (tokens.digest(plaintext),)
        assert len(plaintext) == tokens.LENGTH


async def test_a_token_for_an_unknown_account_is_not_made(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        with pytest.raises(LookupError):
            await tokens.create(conn, ["api"], "none")


@pytest.mark.parametrize(("has", "allows"), [(("api",), False), (("smtp",), True), (("*",), True), ((), False)])
def test_scopes(has: tuple[str, ...], allows: bool) -> None:
    assert tokens.Token(1, has, None).allows("smtp") is allows


async def test_the_directory_answers_from_memory(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=60)
    async with db.connection(pool) as conn:
        await account(conn, "a")
        first = await directory.account("a")
        await conn.execute("delete from accounts")
    assert await directory.account("a") is first is not None


async def test_what_was_just_made_is_found(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=60)
    assert await directory.account("a") is None
    async with db.connection(pool) as conn:
        await account(conn, "a")
    assert await directory.account("a") is not None


async def test_a_change_shows_after_its_time(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=0)
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await directory.account("a")
        await conn.execute("update accounts set name = 'New'")
    found = await directory.account("a")
    assert found is not None
    assert found.name == "New"


async def test_a_sender_that_two_share_belongs_to_nobody(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=0)
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await conn.execute("update accounts set email = 's@example.com'")
        found = await directory.account_for_sender("S@Example.com")
        assert found is not None
        await account(conn, "b")
        await conn.execute("update accounts set email = 's@example.com'")
    assert await directory.account_for_sender("s@example.com") is None
    assert await directory.account_for_sender("") is None


async def test_the_last_known_answer_serves_while_the_store_is_away(pool: db.Pool, settings: Settings) -> None:
    directory = Directory(pool, seconds=0)
    async with db.connection(pool) as conn:
        await account(conn, "a")
    await directory.account("a")
    await pool.close()
    assert await directory.account("a") is not None
    with pytest.raises(StoreAway):
        await directory.account("b")


async def test_many_who_ask_at_once_share_a_look_up(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    find = tokens.find_digest

    async def counted(conn: db.Connection, digest: bytes) -> tokens.Token | None:
        nonlocal asked
        asked += 1
        return await find(conn, digest)

    async with db.connection(pool) as conn:
        plaintext = await tokens.create(conn, ["api"])
    monkeypatch.setattr("relay.store.tokens.find_digest", counted)
    directory = Directory(pool)
    found = await asyncio.gather(*(directory.token(plaintext) for _ in range(50)))
    assert asked == 1
    assert all(found)
    assert directory.knows(plaintext)
