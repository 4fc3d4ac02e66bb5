"""A host that vanishes in the middle of a database transaction, and what it had locked."""

from __future__ import annotations

import pytest

from relay.core.errors import StoreAway
from relay.settings import Settings
from relay.store import db, turns
from tests.stack import until
from tests.store.mail import account


@pytest.fixture
async def vanishing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> db.Pool:
    """The pool of a host that will fall silent."""
    monkeypatch.setitem(db.VANISHED, "idle_in_transaction_session_timeout", "200ms")
    return await db.open_pool(settings, most=1)


async def test_the_accounts_that_a_vanished_scheduler_had_locked_are_served_by_the_others(
    pool: db.Pool, vanishing: db.Pool
) -> None:
    async with db.connection(pool) as conn:
        await account(conn)

        async def served() -> bool:
            return await turns.take_turn(conn, ["a"]) == ["a"]

        held, limit = await vanishing.getconn(), "idle_in_transaction_session_timeout"
        silence = await db.scalar(held, f"show {limit}")
        await held.execute(f"begin; set local {limit} = 0".encode())  # it falls silent when we have looked
        assert await turns.take_turn(held, ["a"]) == ["a"]
        assert not await served()
        await held.execute(f"set local {limit} = '{silence}'".encode())
        await until(served)
    await vanishing.putconn(held)
    await vanishing.close()


async def test_who_comes_back_too_late_is_told_that_the_store_was_away(vanishing: db.Pool, pool: db.Pool) -> None:
    async with db.connection(pool) as other:

        async def gone() -> bool:
            query = "select from pg_stat_activity where state = 'idle in transaction' and datname = current_database()"
            return await (await other.execute(query)).fetchone() is None

        async def late() -> None:
            async with db.connection(vanishing) as conn, conn.transaction():
                await conn.execute("select 1")
                await until(gone)
                await conn.execute("select 1")

        with pytest.raises(StoreAway):
            await late()
    async with db.connection(vanishing) as conn:
        await conn.execute("select 1")
    await vanishing.close()


async def test_sessions_of_the_vanished_are_ended_by_the_server(pool: db.Pool) -> None:
    """Over TCP, that is; on a socket of this machine the settings are taken and have no meaning."""
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select name from pg_settings where source = 'session'")
        assert {row[0] for row in await cursor.fetchall()} >= set(db.VANISHED)
