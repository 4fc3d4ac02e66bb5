"""Grants in the store: one claim at a time, sealed, with the refresh token that replaces another; authorisations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from relay import enrol
from relay.core.vault import Vault, new_key
from relay.settings import Settings
from relay.store import accounts, db, grants
from relay.store.db import Connection
from relay.store.grants import Fresh

OAUTH2 = {
    "provider": "custom",
    "authorizeUrl": "https://id.example.com/a",
    "tokenUrl": "https://id.example.com/t",
    "clientId": "c",
    "refreshToken": "first",
}


class Bench:
    """An account `a` with a refresh token."""

    def __init__(self, pool: db.Pool, settings: Settings) -> None:
        self.pool, self.settings, self.vault = pool, settings, Vault(settings.secret_keys)

    async def save(self, **given: Any) -> None:
        await enrol.save(self.pool, self.vault, self.settings, "a", given)

    async def seen(self, conn: Connection) -> datetime | None:
        row = await accounts.find(conn, "a")
        return row.updated_at if row else None

    async def refresh(self, conn: Connection) -> str:
        row = await accounts.find(conn, "a")
        assert row is not None
        return str(row.fields(self.vault)["oauth2.refreshToken"])

    async def kept(self, conn: Connection, claim: datetime | None, rotated: str = "second", **more: Any) -> bool:
        assert claim is not None
        seen = more.get("seen", await self.seen(conn))
        fresh = Fresh("access-1", more.get("seconds", 3600), more.get("used", "first"), rotated)
        return await grants.keep(conn, self.vault, "a", seen, claim, fresh)

    async def token(self, conn: Connection) -> str | None:
        grant = await grants.look(conn, "a", await self.seen(conn))
        assert grant is not None
        return self.vault.open("a", grants.TOKEN, grant.token) if grant.token else None


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings) -> Bench:
    bench = Bench(pool, settings)
    await bench.save(email="ann@example.com", smtp={"host": "mx.example.com"}, oauth2=OAUTH2)
    return bench


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[Connection]:
    async with db.connection(pool) as conn:
        yield conn


async def test_one_process_alone_has_the_claim(bench: Bench) -> None:
    async def one() -> datetime | None:
        async with db.connection(bench.pool) as conn:
            return await grants.claim(conn, "a", 60)

    found = await asyncio.gather(*(one() for _ in range(8)))
    assert len([claim for claim in found if claim]) == 1


async def test_a_claim_ends_by_itself(bench: Bench, conn: Connection) -> None:
    first = await grants.claim(conn, "a", 0)
    second = await grants.claim(conn, "a", 60)
    assert first is not None
    assert second is not None
    assert not await bench.kept(conn, first, rotated="")  # whoever had it before has it no more
    assert await bench.token(conn) is None
    assert await bench.kept(conn, second)


async def test_both_tokens_are_kept_together_and_sealed(bench: Bench, conn: Connection) -> None:
    assert await bench.kept(conn, await grants.claim(conn, "a", 60))
    assert (await bench.token(conn), await bench.refresh(conn)) == ("access-1", "second")
    rows = await (await conn.execute("select g::text, a::text from grants g, accounts a")).fetchone()
    assert not any(secret in text for text in rows or () for secret in ("access-1", "first", "second"))


async def test_what_fails_in_the_middle_leaves_both_as_they_were(bench: Bench, conn: Connection) -> None:
    """The replaced refresh token and the access token are one database transaction."""
    claim = await grants.claim(conn, "a", 60)
    await conn.execute("alter table grants add constraint never check (token is null)")
    with pytest.raises(Exception, match="never"):
        await bench.kept(conn, claim)
    assert (await bench.token(conn), await bench.refresh(conn)) == (None, "first")


async def test_a_rotation_is_no_change_of_settings(bench: Bench, conn: Connection) -> None:
    before = await bench.seen(conn)
    await bench.kept(conn, await grants.claim(conn, "a", 60))
    assert await bench.seen(conn) == before


async def test_a_token_of_settings_gone_by_is_not_kept(bench: Bench, conn: Connection) -> None:
    seen, claim = await bench.seen(conn), await grants.claim(conn, "a", 60)
    await bench.save(oauth2={"refreshToken": "of-a-person"})
    assert not await bench.kept(conn, claim, seen=seen)
    assert (await bench.token(conn), await bench.refresh(conn)) == (None, "of-a-person")


async def test_a_rotation_survives_a_change_of_other_settings(bench: Bench, conn: Connection) -> None:
    """What the issuer gave once is kept, although the access token is not."""
    seen, claim = await bench.seen(conn), await grants.claim(conn, "a", 60)
    await bench.save(oauth2={"scopes": ["mail"]})
    assert not await bench.kept(conn, claim, seen=seen)
    assert (await bench.token(conn), await bench.refresh(conn)) == (None, "second")


@pytest.mark.parametrize("turned", [{"oauth2": {"clientId": "d"}}, {"imap": {"host": "mx.example.com"}}])
async def test_other_settings_forget_the_token(bench: Bench, conn: Connection, turned: dict[str, Any]) -> None:
    await bench.kept(conn, await grants.claim(conn, "a", 60))
    await bench.save(name="another")
    assert await bench.token(conn) == "access-1"
    await bench.save(**turned)
    assert await bench.token(conn) is None


async def test_a_refusal_ends_the_token(bench: Bench, conn: Connection) -> None:
    await bench.kept(conn, await grants.claim(conn, "a", 60))
    claim = await grants.claim(conn, "a", 60)
    assert claim is not None
    await grants.refuse(conn, "a", claim, "withdrawn", "hash")
    grant = await grants.look(conn, "a", await bench.seen(conn))
    assert grant is not None
    assert (grant.token, grant.refused, grant.error, grant.claimed) == (None, "hash", "withdrawn", False)


async def test_an_issuer_rests_for_all(bench: Bench, conn: Connection) -> None:
    claim = await grants.claim(conn, "a", 60)
    assert claim is not None
    await grants.rest(conn, "a", claim, "is away", 60)
    grant = await grants.look(conn, "a", await bench.seen(conn))
    assert grant is not None
    assert (grant.claimed, grant.error) == (True, "is away")
    assert await grants.claim(conn, "a", 60) is None


async def test_a_new_key_seals_tokens_too(bench: Bench, conn: Connection) -> None:
    await bench.kept(conn, await grants.claim(conn, "a", 60))
    newest = new_key()
    await accounts.reseal(conn, Vault([newest, *bench.settings.secret_keys]))
    bench.vault = Vault([newest])
    assert (await bench.token(conn), await bench.refresh(conn)) == ("access-1", "second")


async def test_nobody_elses_account_is_looked_at(conn: Connection) -> None:
    assert await grants.look(conn, "not-there", None) is None
    assert await grants.claim(conn, "not-there", 60) is None


async def test_an_authorisation_is_taken_once(bench: Bench, conn: Connection) -> None:
    await grants.begin(conn, b"state", "a", "sealed", "hash", 600)
    found = await grants.take(conn, b"state")
    assert found is not None
    assert (found.account, found.verifier, found.settings, found.live) == ("a", "sealed", "hash", True)
    assert await grants.take(conn, b"state") is None


async def test_an_authorisation_ends(bench: Bench, conn: Connection) -> None:
    await grants.begin(conn, b"state", "a", "sealed", "hash", 0)
    found = await grants.take(conn, b"state")
    assert found is not None
    assert not found.live


async def test_an_account_has_so_many_authorisations(bench: Bench, conn: Connection) -> None:
    for number in range(grants.MOST_BEGUN + 5):
        await grants.begin(conn, b"%d" % number, "a", "sealed", "hash", 600 + number)
    rows = await (await conn.execute("select count(*) from authorisations")).fetchone()
    assert rows == (grants.MOST_BEGUN,)
    assert await grants.take(conn, b"4") is None
    assert await grants.take(conn, b"5") is not None
