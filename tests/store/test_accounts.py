"""Accounts in the store: sealed, changed one at a time, moved between states with their events."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from typing import Any

import pytest

from relay.core.tenant import AccountState
from relay.core.vault import Vault, VaultError
from relay.store import accounts, db
from relay.store.db import Connection

OLD_KEY, NEW_KEY = (base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
VAULT = Vault([OLD_KEY])
FIELDS = {"name": "Shop", "email": "s@example.com", "smtp.host": "mx.example.com", "smtp.auth.pass": "secret"}


async def saved(conn: Connection, id: str = "a", **fields: Any) -> None:
    await accounts.save(conn, VAULT, id, lambda old: {**FIELDS, **fields})


async def password(conn: Connection, vault: Vault) -> str:
    found = await accounts.get(conn, vault, "a")
    assert found is not None
    assert found.smtp is not None
    return found.smtp.password


async def events(conn: Connection) -> Sequence[str]:
    return [row[0] for row in await (await conn.execute("select type from events order by id")).fetchall()]


async def test_what_is_saved_is_found(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        assert await password(conn, VAULT) == "secret"
        assert [one.id for one in await accounts.by_email(conn, VAULT, "S@EXAMPLE.COM")] == ["a"]
        assert await accounts.by_email(conn, VAULT, "") == []


async def test_without_the_vault_secrets_are_masked(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        row = await accounts.find(conn, "a")
        assert row is not None
        assert row.fields(None)["smtp.auth.pass"] == "******"


async def test_a_secret_copied_to_another_account_does_not_open(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        await conn.execute("insert into accounts (id, config, secrets) select 'b', config, secrets from accounts")
        with pytest.raises(VaultError):
            await accounts.get(conn, VAULT, "b")


async def test_a_change_that_raises_changes_nothing(pool: db.Pool) -> None:
    def broken(old: dict[str, Any]) -> dict[str, Any]:
        raise LookupError

    async with db.connection(pool) as conn:
        with pytest.raises(LookupError):
            await accounts.save(conn, VAULT, "a", broken)
        assert await accounts.find(conn, "a") is None


async def test_changes_at_once_lose_nothing(pool: db.Pool) -> None:
    async def change(key: str) -> bool:
        async with db.connection(pool) as conn:
            return await accounts.save(conn, VAULT, "a", lambda old: {**old, key: 5})

    keys = ("limits.perMinute", "limits.perHour", "limits.perDay", "limits.connections")
    assert sorted(await asyncio.gather(*map(change, keys))) == [False, False, False, True]
    async with db.connection(pool) as conn:
        row = await accounts.find(conn, "a")
    assert row is not None
    assert {key: row.fields(None).get(key) for key in keys} == dict.fromkeys(keys, 5)


async def test_keys_are_rotated(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        assert await accounts.reseal(conn, Vault([NEW_KEY, OLD_KEY])) == 1
        assert await password(conn, Vault([NEW_KEY])) == "secret"


async def test_a_secret_whose_key_is_lost_can_be_given_anew(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        vault = Vault([NEW_KEY])
        await accounts.save(conn, vault, "a", lambda old: {**old, "smtp.auth.pass": "another"})
        assert await password(conn, vault) == "another"


async def test_a_secret_whose_key_is_lost_stays_sealed_through_another_change(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        await accounts.save(conn, Vault([NEW_KEY]), "a", lambda old: {**old, "name": "New"})
        assert await password(conn, VAULT) == "secret"


async def test_a_state_changes_with_one_event(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        for _ in range(2):
            assert await accounts.set_state(conn, "a", AccountState.PAUSED, "for lunch")
        assert await accounts.set_state(conn, "a", AccountState.ACTIVE, "")
        assert await events(conn) == ["accountPaused", "accountResumed"]
        assert not await accounts.set_state(conn, "none", AccountState.PAUSED, "")


async def test_a_refused_login_does_not_undo_a_pause(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        await accounts.set_state(conn, "a", AccountState.PAUSED, "")
        assert not await accounts.set_state(conn, "a", AccountState.REFUSED, "535")


async def test_a_new_upstream_is_tried_at_once(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        await accounts.set_state(conn, "a", AccountState.REFUSED, "535")
        await conn.execute("update accounts set failures = 7, retry_at = now() + interval '1 hour'")
        await saved(conn, name="Other")
        assert (await (await conn.execute("select state::text, failures from accounts")).fetchone()) == ("refused", 7)
        await saved(conn, **{"smtp.auth.pass": "better"})
        row = await (await conn.execute("select state::text, failures, retry_at, reason from accounts")).fetchone()
        assert row == ("active", 0, None, "")


async def test_a_new_upstream_does_not_undo_a_pause(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await saved(conn)
        await accounts.set_state(conn, "a", AccountState.PAUSED, "for lunch")
        await saved(conn, **{"smtp.auth.pass": "better"})
        row = await accounts.find(conn, "a")
        assert row is not None
        assert (row.state, row.reason) == (AccountState.PAUSED, "for lunch")


async def test_an_upstream_that_was_taken_away_is_told_from_one_that_never_was(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await accounts.save(conn, VAULT, "bare", lambda _: {"name": "Bare"})
        await saved(conn)
        await accounts.save(conn, VAULT, "a", lambda _: {"name": "Shop"})
        never, once = await accounts.get(conn, VAULT, "bare"), await accounts.get(conn, VAULT, "a")
    assert never is not None
    assert once is not None
    assert (never.never_configured, once.never_configured, once.smtp) == (True, False, None)
