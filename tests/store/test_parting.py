"""An account's end: whoever is given its id later finds nothing of it, whatever was going on when it went."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay import enrol
from relay.core.tenant import AccountState
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, leases, outcomes, parting, suppressions
from relay.store.db import Connection
from relay.store.leases import Lease
from relay.store.suppressions import Suppression
from tests.stack import until
from tests.store.mail import account, prepared, stored
from tests.store.test_leases import granted, sent

SMTP = {"host": "127.0.0.1", "port": 2525}


async def busy(conn: Connection) -> Lease:
    """An account with mail that was sent, mail in a worker's hands, a key that was used, and something to tell."""
    await account(conn, "a", perHour=100)
    mail = prepared("x@a.example", "y@a.example", idempotency_key="order-1", body_hash=b"x")
    await stored(conn, mail, prepared("z@a.example"))
    await accounts.set_state(conn, "a", AccountState.PAUSED, "a secret of the first")
    await accounts.set_state(conn, "a", AccountState.ACTIVE, "")
    (lease,) = await granted(conn, "a")
    started = await leases.start(conn, lease.id, seconds=60)
    assert started is not None
    assert await outcomes.commit(conn, [sent(started.deliveries[0].delivery, lease.id)]) == [True]
    return lease


async def left(conn: Connection) -> dict[str, int]:
    """Rows that name the account, by table; of all tables that there are."""
    cursor = await conn.execute("select table_name from information_schema.columns where column_name = 'account_id'")
    found = {}
    for (table,) in await cursor.fetchall():
        (count,) = await _one(conn, f"select count(*) from {table} where account_id = 'a'")
        found[table] = count
    return {table: count for table, count in found.items() if count}


async def _one(conn: Connection, query: str) -> Any:
    return await (await conn.execute(query.encode())).fetchone()


async def test_nothing_is_left_of_an_account_that_was_busy_when_it_went(pool: db.Pool) -> None:
    """Given mail that was leased after the pieces were cleared away, then the worker has lost it, and tells nothing."""
    async with db.connection(pool) as conn:
        lease = await busy(conn)
        assert await parting.delete(conn, "a")
        assert await left(conn) == {}
        assert await leases.renew(conn, [lease.id], seconds=60) == set()
        assert await outcomes.commit(conn, [sent(delivery, lease.id) for delivery in range(1, 4)]) == [False] * 3
        assert await left(conn) == {}


async def test_an_account_of_the_same_id_begins_with_nothing(pool: db.Pool, settings: Settings) -> None:
    """Given what came in at the very moment when the first of them went."""
    async with db.connection(pool) as conn:
        await busy(conn)
        await conn.execute("delete from accounts")
        assert {"messages", "events", "idempotency", "leases", "recipients", "slots", "tallies"} <= set(
            await left(conn)
        )
        await enrol.save(pool, Vault(settings.secret_keys), settings, "a", {"smtp": SMTP})
        assert await left(conn) == {"verifications": 1}
        assert (await _one(conn, "select coalesce(sum(sent), 0) from tallies where account_id = ''"))[0] == 0


async def test_an_account_that_goes_is_granted_no_more_leases(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given its end has begun: mail that is leased then would be nobody's."""
    forget, found = parting.forget, []
    async with db.connection(pool) as ending, db.connection(pool) as conn:
        await stored(conn, prepared())

        async def meanwhile(ending: Connection, id: str) -> None:
            found.append(await granted(conn, id))
            await forget(ending, id)

        monkeypatch.setattr(parting, "forget", meanwhile)
        assert await parting.delete(ending, "a")
        assert (found, await left(conn)) == ([[]], {})


async def test_what_is_saved_while_its_account_goes_waits_and_begins_with_nothing(
    pool: db.Pool, settings: Settings
) -> None:
    vault = Vault(settings.secret_keys)
    async with db.connection(pool) as ending, db.connection(pool) as conn:
        await busy(conn)
        async with ending.transaction():
            await ending.execute("select from accounts for no key update")
            saving = asyncio.create_task(accounts.save(conn, vault, "a", lambda old: {"name": "New"} | old))
            await blocked(ending)
            await parting.delete(ending, "a")
        assert await saving
        row = await accounts.find(conn, "a")
        assert row is not None
        assert (row.name, row.email, await left(conn)) == ("New", "", {})


async def test_what_changes_an_account_that_goes_makes_none_of_its_id(pool: db.Pool, settings: Settings) -> None:
    async with db.connection(pool) as ending, db.connection(pool) as conn:
        await busy(conn)
        async with ending.transaction():
            await parting.delete(ending, "a")
            changed = accounts.save(conn, Vault(settings.secret_keys), "a", dict, make=False)
            saving = asyncio.create_task(changed)
            await blocked(ending)
        with pytest.raises(LookupError):
            await saving
        assert await accounts.find(conn, "a") is None


async def test_what_is_suppressed_while_its_account_goes_is_told_that_it_is_gone(pool: db.Pool) -> None:
    async with db.connection(pool) as ending, db.connection(pool) as conn:
        await busy(conn)
        async with ending.transaction():
            await parting.delete(ending, "a")
            adding = asyncio.create_task(suppressions.add(conn, "a", [Suppression("x@a.example", "manual")]))
            await blocked(ending)
        with pytest.raises(LookupError):
            await adding


async def blocked(conn: Connection) -> None:
    """Until somebody waits for what this connection has locked."""
    query = "select exists (select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid)))"

    async def waits() -> bool:
        return bool((await _one(conn, query))[0])

    await until(waits)
