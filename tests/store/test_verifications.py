"""Whose servers are to be looked at: after a change, by one at a time; what is found is of the settings that stand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay import enrol
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, verifications
from relay.store.db import Connection
from relay.store.verifications import Due
from tests.store.test_parting import blocked

GOOD, BAD = {"success": True, "steps": []}, {"success": False, "error": "no", "steps": []}
SMTP = {"host": "127.0.0.1", "port": 2525}


class Bench:
    """An account `a`, and a connection."""

    def __init__(self, pool: db.Pool, conn: Connection, settings: Settings) -> None:
        self.pool, self.conn, self.settings = pool, conn, settings

    async def save(self, account: str = "a", **given: Any) -> None:
        await enrol.save(self.pool, Vault(self.settings.secret_keys), self.settings, account, given)

    async def claim(self, most: int = 10, seconds: float = 60) -> list[Due]:
        return await verifications.claim(self.conn, most, seconds)

    async def one(self) -> Due:
        [due] = await self.claim()
        return due

    async def later(self) -> None:
        """All waits are over."""
        await self.conn.execute(
            "update verifications set due_at = case when due_at is not null then now() end, at = at - interval '1 day',"
            " claimed_until = claimed_until - interval '1 day'"
        )


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings) -> Any:
    async with db.connection(pool) as conn:
        yield Bench(pool, conn, settings)


async def test_a_new_account_is_to_be_looked_at_once(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    due = await bench.one()
    assert (due.account, due.fresh, due.smtp, due.imap) == ("a", True, None, None)
    assert await bench.claim() == []
    assert await verifications.settle(bench.conn, due, GOOD, None, None)
    assert await bench.claim() == []


@pytest.mark.parametrize(
    "change",
    [
        {"smtp": {"port": 2526}},
        {"smtp": {"auth": {"user": "u", "pass": "p"}}},
        {"imap": {"host": "127.0.0.1", "auth": {"user": "u", "pass": "p"}}},
    ],
)
async def test_a_change_of_its_servers_is_looked_at(bench: Bench, change: dict[str, Any]) -> None:
    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), GOOD, None, None)
    await bench.save(**change)
    await bench.later()
    assert (await bench.one()).fresh


@pytest.mark.parametrize("change", [{"name": "X"}, {"smtp": SMTP}, {"limits": {"perHour": 5}}])
async def test_another_change_is_not(bench: Bench, change: dict[str, Any]) -> None:
    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), GOOD, None, None)
    await bench.save(**change)
    await bench.later()
    assert await bench.claim() == []


async def test_an_account_without_servers_is_not_looked_at(bench: Bench) -> None:
    await bench.save(name="X")
    assert await bench.claim() == []
    assert await verifications.find(bench.conn, "a") is None


async def test_a_change_that_is_not_made_is_not_looked_at(bench: Bench) -> None:
    def refuse(old: Any) -> Any:
        raise ValueError

    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), GOOD, None, None)
    with pytest.raises(ValueError):  # noqa: PT011
        await accounts.save(bench.conn, Vault(bench.settings.secret_keys), "a", refuse)
    await bench.later()
    assert await bench.claim() == []


async def test_what_was_found_of_earlier_settings_is_not_kept(bench: Bench) -> None:
    # Given a change while the servers are looked at
    await bench.save(smtp=SMTP)
    due = await bench.one()
    await bench.save(smtp={"port": 2526})
    # Then nobody else looks meanwhile, and what is found does not count
    assert await bench.claim() == []
    assert not await verifications.settle(bench.conn, due, GOOD, None, None)
    found = await verifications.find(bench.conn, "a")
    assert found is not None
    assert (found.pending, found.smtp, found.at) == (True, None, None)
    # And the next look is at the new ones
    await bench.later()
    assert (await bench.one()).wanted > due.wanted


async def test_a_claim_that_was_never_settled_ends(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    first = await bench.one()
    await bench.later()
    assert await bench.one() == first


async def test_what_was_found_is_shown_until_the_next_change(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), BAD, GOOD, 300)
    found = await verifications.find(bench.conn, "a")
    assert found is not None
    assert (found.pending, found.smtp, found.imap) == (False, BAD, GOOD)
    assert found.at is not None
    await bench.save(smtp={"port": 2526})
    found = await verifications.find(bench.conn, "a")
    assert found is not None
    assert (found.pending, found.smtp, found.imap, found.at) == (True, None, None, None)


async def test_a_fault_is_looked_at_again_when_its_wait_is_over(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), BAD, None, 300)
    assert await bench.claim() == []
    await bench.later()
    due = await bench.one()
    assert (due.fresh, due.tries, due.smtp) == (False, 1, BAD)


async def test_however_often_an_account_is_saved_it_is_looked_at_now_and_then(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    await verifications.settle(bench.conn, await bench.one(), BAD, None, None)
    await bench.save(smtp={"port": 2526})
    assert await bench.claim() == []


async def test_the_longest_waiting_are_first(bench: Bench) -> None:
    for account in ("c", "a", "b"):
        await bench.save(account, smtp=SMTP)
    assert [due.account for due in await bench.claim(most=2)] == ["c", "a"]
    assert [due.account for due in await bench.claim(most=2)] == ["b"]


async def test_one_account_may_be_claimed_by_name_unless_it_is_already(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    due = await verifications.claim_one(bench.conn, "a", 60)
    assert due is not None
    assert await bench.claim() == []
    assert await verifications.claim_one(bench.conn, "a", 60) is None
    assert await verifications.settle(bench.conn, due, GOOD, None, None)
    assert await verifications.claim_one(bench.conn, "a", 60) is not None


async def test_there_is_nothing_to_claim_of_an_account_that_is_not_there(bench: Bench) -> None:
    assert await verifications.claim_one(bench.conn, "nobody", 60) is None


async def test_it_goes_with_its_account(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    await enrol.delete(bench.pool, "a")
    assert await bench.claim() == []


async def test_what_was_found_of_an_account_that_was_removed_is_not_kept_for_the_next_of_its_id(bench: Bench) -> None:
    await bench.save(smtp=SMTP)
    due = await bench.one()
    await enrol.delete(bench.pool, "a")
    await bench.save(smtp=SMTP)
    assert not await verifications.settle(bench.conn, due, GOOD, None, None)
    found = await verifications.find(bench.conn, "a")
    assert found is not None
    assert (found.pending, found.smtp) == (True, None)


async def test_nor_is_what_was_found_for_whoever_asked(bench: Bench) -> None:
    await bench.save()
    due = await verifications.claim_one(bench.conn, "a", 60)
    assert due is not None
    await enrol.delete(bench.pool, "a")
    await bench.save()
    assert await verifications.claim_one(bench.conn, "a", 60) is not None
    assert not await verifications.settle(bench.conn, due, GOOD, None, None)


async def test_who_asks_for_one_waits_for_who_changes_the_account(bench: Bench) -> None:
    """Each had what the other wanted, and PostgreSQL ended one of them: "the store is away"."""
    await bench.save()
    async with db.connection(bench.pool) as changing:
        async with changing.transaction():
            await changing.execute("select from accounts where id = 'a' for update")
            asked = asyncio.create_task(verifications.claim_one(bench.conn, "a", 60))
            await blocked(changing)
            await verifications.want(changing, "a")
        due = await asked
    assert due is not None
    assert due.account == "a"
