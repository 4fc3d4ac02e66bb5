"""Which mailboxes are looked at, by whom, and when: each by one at a time, none forgotten, mended settings at once."""

from __future__ import annotations

from typing import Any

import pytest

from relay import enrol
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db, mailboxes
from relay.store.db import Connection
from relay.store.mailboxes import Due, Standing
from tests.store import mail

IMAP = {"host": "127.0.0.1", "port": 1143, "secure": False, "auth": {"user": "ann", "pass": "secret"}}
SEEN = {"INBOX": {"uidvalidity": 1, "uidnext": 7}}


class Bench:
    """Accounts with mailboxes, and a connection."""

    def __init__(self, pool: db.Pool, conn: Connection, settings: Settings) -> None:
        self.pool, self.conn, self.settings = pool, conn, settings

    async def save(self, account: str = "a", **given: Any) -> None:
        await enrol.save(self.pool, Vault(self.settings.secret_keys), self.settings, account, given)

    async def claim(self, most: int = 10, seconds: float = 60) -> list[Due]:
        return await mailboxes.claim(self.conn, most, seconds)

    async def one(self) -> Due:
        [due] = await self.claim()
        return due

    async def settled(self, due: Due, wait: float | None = 60, **more: Any) -> bool:
        return await mailboxes.settle(self.conn, due, wait, SEEN, **{"ago": 0.0, **more})

    async def looked_at(self, account: str = "a", wait: float = 60, ago: float = 0.0) -> None:
        """A look has gone well."""
        [due] = [due for due in await self.claim() if due.account == account]
        assert await self.settled(due, wait, ago=ago)

    async def pass_time(self, seconds: float = 86400 * 2) -> None:
        await self.conn.execute(
            "update mailboxes set due_at = due_at - %(s)s * interval '1 second', listed_at = listed_at"
            " - %(s)s * interval '1 second', claimed_until = claimed_until - %(s)s * interval '1 second'",
            {"s": seconds},
        )

    async def sent(self, account: str, seconds: float, state: str = "sent") -> None:
        """Mail left so many seconds ago."""
        await mail.stored(self.conn, mail.prepared(account=account))
        await self.conn.execute(
            "update deliveries set state = %s, finished_at = now() - %s * interval '1 second'"
            " where account_id = %s and finished_at is null",
            (state, seconds, account),
        )

    async def standing(self) -> Standing:
        found = await mailboxes.find(self.conn, "a")
        assert found is not None
        return found


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings) -> Any:
    async with db.connection(pool) as conn:
        yield Bench(pool, conn, settings)


async def test_a_new_mailbox_is_due_at_once_and_claimed_once(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    assert (due.account, due.failures, due.error, due.folders, due.listed, due.sent) == ("a", 0, "", {}, False, None)
    assert await bench.claim() == []
    assert await bench.settled(due)
    assert await bench.claim() == []


async def test_it_is_due_again_when_its_wait_is_over(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    assert await bench.settled(await bench.one(), 60, listed=True)
    await bench.pass_time(61)
    due = await bench.one()
    assert due.folders == SEEN
    assert due.listed
    assert 0.9 < due.late < 30


async def test_folders_are_to_be_asked_for_again_after_a_day(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    await bench.settled(await bench.one(), 60, listed=True)
    await bench.pass_time()
    assert not (await bench.one()).listed


@pytest.mark.parametrize("imap", [None, {**IMAP, "disabled": True}, {**IMAP, "watch": False}])
async def test_a_mailbox_that_is_not_to_be_watched_is_not(bench: Bench, imap: Any) -> None:
    await bench.save(imap=imap)
    assert await bench.claim() == []


@pytest.mark.parametrize("imap", [None, {"disabled": True}, {"watch": False}])
async def test_one_that_is_watched_no_more_is_due_no_more_and_taken_from_who_has_it(bench: Bench, imap: Any) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    await bench.save(imap=imap)
    assert await mailboxes.renew(bench.conn, [due], 60) == set()
    assert not await bench.settled(due)
    await bench.pass_time()
    assert await bench.claim() == []
    assert (await bench.standing()).next_at is None


async def test_an_account_without_a_mailbox_has_no_row(bench: Bench) -> None:
    await bench.save(smtp={"host": "127.0.0.1"})
    assert await mailboxes.find(bench.conn, "a") is None


@pytest.mark.parametrize("change", [{"auth": {"pass": "other"}}, {"port": 1144}, {"idle": True}])
async def test_changed_settings_are_looked_with_at_once_from_where_it_was(bench: Bench, change: Any) -> None:
    # Given a mailbox that has failed for long
    await bench.save(imap=IMAP)
    await bench.looked_at(wait=0)
    await mailboxes.fail(bench.conn, await bench.one(), 3600, SEEN, "it says no")
    # When its settings are mended
    await bench.save(imap=change)
    # Then it is looked at now, waits little if it fails again, and what was seen stays seen
    due = await bench.one()
    assert (due.failures, due.error, due.folders, due.listed) == (0, "it says no", SEEN, False)


@pytest.mark.parametrize("change", [{"host": "127.0.0.2", "auth": IMAP["auth"]}, {"auth": {"user": "bob"}}])
async def test_of_another_mailbox_nothing_is_known(bench: Bench, change: Any) -> None:
    await bench.save(imap=IMAP)
    await bench.looked_at()
    await mailboxes.learn(bench.conn, "a", True)
    await bench.save(imap=change)
    assert (await bench.one()).folders == {}
    assert await mailboxes.files(bench.conn, "a") is None


@pytest.mark.parametrize("change", [{"name": "X"}, {"imap": IMAP}, {"limits": {"perHour": 5}}])
async def test_another_change_changes_nothing(bench: Bench, change: dict[str, Any]) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    await bench.save(**change)
    assert await bench.claim() == []
    assert await bench.settled(due)


async def test_a_claim_that_is_not_renewed_ends_and_its_holder_can_store_nothing(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    first = await bench.one()
    await bench.pass_time(61)
    second = await bench.one()
    assert await mailboxes.mark(bench.conn, first, SEEN, ago=0) is None
    assert not await bench.settled(first)
    assert not await mailboxes.fail(bench.conn, first, 60, SEEN, "no")
    assert await bench.settled(second)


async def test_a_claim_that_is_renewed_stays(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    await bench.pass_time(50)
    assert await mailboxes.renew(bench.conn, [due], 60) == {("a", due.claim)}
    await bench.pass_time(50)
    assert await bench.claim() == []


async def test_a_renewal_that_comes_after_the_end_of_a_look_changes_nothing(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    await bench.settled(due, 0)
    assert await mailboxes.renew(bench.conn, [due], 60) == set()
    assert len(await bench.claim()) == 1


async def test_a_claim_that_is_given_back_is_taken_by_another(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    await mailboxes.release(bench.conn, [await bench.one()])
    assert len(await bench.claim()) == 1


async def test_what_was_marked_is_there_after_a_crash(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    assert await mailboxes.mark(bench.conn, await bench.one(), SEEN, ago=0, listed=True) is not None
    await bench.pass_time(61)
    due = await bench.one()
    assert due.folders == SEEN
    assert due.listed


async def test_failures_are_counted_and_shown_until_a_look_goes_well(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    await bench.looked_at(wait=0)
    for number in range(2):
        due = await bench.one()
        assert due.failures == number
        assert await mailboxes.fail(bench.conn, due, 0, SEEN, "it says no")
    standing = await bench.standing()
    assert (standing.error, standing.failures) == ("it says no", 2)
    assert standing.looked_at is not None
    due = await bench.one()
    assert (due.error, due.folders) == ("it says no", SEEN)
    await bench.settled(due)
    assert ((await bench.standing()).error, (await bench.standing()).failures) == ("", 0)


async def test_the_longest_waiting_are_first(bench: Bench) -> None:
    for account in ("c", "a", "b"):
        await bench.save(account, imap=IMAP)
    assert {due.account for due in await bench.claim(most=2)} == {"c", "a"}
    assert [due.account for due in await bench.claim(most=2)] == ["b"]


async def test_two_that_claim_at_once_are_given_different_ones(bench: Bench) -> None:
    for account in ("a", "b"):
        await bench.save(account, imap=IMAP)
    async with db.connection(bench.pool) as other, other.transaction():
        mine = await mailboxes.claim(other, 1, 60)
        theirs = await bench.claim(1)
    assert {due.account for due in (*mine, *theirs)} == {"a", "b"}


@pytest.mark.parametrize("state", ["sent", "failed", "bounced", "complained"])
async def test_it_is_told_how_long_ago_the_account_last_sent(bench: Bench, state: str) -> None:
    await bench.save(smtp={"host": "127.0.0.1"}, imap=IMAP)
    await bench.sent("a", 5000)
    await bench.sent("a", 1000, state)
    due = await bench.one()
    assert due.sent is not None
    assert 1000 <= due.sent < 1100


async def test_who_has_sent_since_the_last_look_is_looked_at_soon(bench: Bench) -> None:
    for account in ("sends", "silent", "before", "fails"):
        await bench.save(account, smtp={"host": "127.0.0.1"}, imap=IMAP)
        [due] = await bench.claim()
        await bench.settled(due, 900, ago=50)
    await bench.conn.execute("update mailboxes set failures = 1 where account_id = 'fails'")
    await bench.sent("before", 100)
    await bench.sent("sends", 10)
    await bench.sent("fails", 10)
    assert await mailboxes.hurry(bench.conn, 60) == 1
    assert await mailboxes.hurry(bench.conn, 60) == 0
    await bench.pass_time(61)
    assert [due.account for due in await bench.claim()] == ["sends"]


async def test_who_is_being_looked_at_is_not_hurried(bench: Bench) -> None:
    await bench.save(smtp={"host": "127.0.0.1"}, imap=IMAP)
    await bench.looked_at(wait=0, ago=50)
    await bench.claim(seconds=900)
    await bench.sent("a", 10)
    assert await mailboxes.hurry(bench.conn, 60) == 0


async def test_how_late_it_is_is_told(bench: Bench) -> None:
    for account in ("a", "b", "off"):
        await bench.save(account, imap={**IMAP, "watch": account != "off"})
    await bench.looked_at()
    await bench.pass_time(100)
    due = next(due for due in await bench.claim() if due.account == "a")
    await mailboxes.fail(bench.conn, due, 3600, {}, "no")
    watched, failing, overdue = await mailboxes.counts(bench.conn)
    assert (watched, failing) == (2, 1)
    assert overdue == 0
    await mailboxes.release(bench.conn, [Due("b", 1, 0, "", {}, False, 0, None)])
    await bench.conn.execute("update mailboxes set due_at = now() - interval '1 hour' where account_id = 'b'")
    assert (await mailboxes.counts(bench.conn))[2] >= 3600


async def test_what_is_learned_of_the_provider_is_known(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    assert await mailboxes.files(bench.conn, "a") is None
    await mailboxes.learn(bench.conn, "a", True)
    assert await mailboxes.files(bench.conn, "a") is True
    assert await mailboxes.files(bench.conn, "nobody") is None


async def test_it_goes_with_its_account(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    await enrol.delete(bench.pool, "a")
    assert await bench.claim() == []
    assert await mailboxes.find(bench.conn, "a") is None


async def test_who_has_the_mailbox_of_an_account_that_was_removed_has_not_the_next_of_its_id(bench: Bench) -> None:
    await bench.save(imap=IMAP)
    due = await bench.one()
    await enrol.delete(bench.pool, "a")
    await bench.save(imap=IMAP)
    another = await bench.one()
    assert await mailboxes.renew(bench.conn, [due], 60) == set()
    assert await mailboxes.mark(bench.conn, due, SEEN, ago=0) is None
    assert not await bench.settled(due)
    assert await bench.settled(another)


async def test_claims_and_hurries_look_things_up_in_indexes(bench: Bench) -> None:
    """However many deliveries there are, the account's last is one step."""
    await bench.conn.execute("set enable_seqscan = off")
    cursor = await bench.conn.execute(
        f"explain select {mailboxes.SENT} from mailboxes m where account_id = 'a'".encode()
    )
    plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "deliveries_done" in plan
    assert "Sort" not in plan
