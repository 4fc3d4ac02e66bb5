"""Sent copies in the store: owed with the outcome, claimed fairly, fenced, given up with an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from relay.core.model import Outcome, State
from relay.core.splice import find
from relay.store import db, deadletters, leases, outcomes, retention, sentcopies
from relay.store.deadletters import Filter
from relay.store.outcomes import Report
from relay.store.sentcopies import Owed, Settled
from tests.store.mail import prepared, stored
from tests.store.test_leases import granted

HTML = b"Subject: x\r\nContent-Type: text/html\r\n\r\n<html><body>x</body></html>\r\n"


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[db.Connection]:
    async with db.connection(pool) as conn:
        yield conn


async def account(conn: db.Connection, id: str = "a", mailbox: bool = True) -> None:
    config: dict[str, Any] = {"smtp": {"host": "127.0.0.1", "port": 25}}
    if mailbox:
        config["imap"] = {"host": "127.0.0.1"}
        await conn.execute("insert into accounts (id, config) values (%s, %s)", (id, Jsonb(config)))
        await conn.execute("insert into mailboxes (account_id) values (%s)", (id,))
    else:
        await conn.execute("insert into accounts (id, config) values (%s, %s)", (id, Jsonb(config)))


async def owed(conn: db.Connection, account: str = "a", number: int = 1, **more: Any) -> list[UUID]:
    """Messages whose only delivery was sent."""
    made = [prepared(account=account, **more) for _ in range(number)]
    await stored(conn, *made)
    ids = [one.id for one in made]
    await conn.execute("update deliveries set state = 'sent', ready = false, finished_at = now()")
    await conn.execute("insert into sent_copies (message_id, account_id) select unnest(%s), %s", (ids, account))
    return ids


async def claimed(conn: db.Connection, *busy: str, accounts: int = 10, each: int = 10) -> list[Owed]:
    return await sentcopies.claim(conn, busy, accounts=accounts, each=each, seconds=60)


async def row(conn: db.Connection, columns: str) -> tuple[Any, ...]:
    found = await (await conn.execute(f"select {columns} from sent_copies".encode())).fetchone()
    assert found is not None
    return tuple(found)


async def events(conn: db.Connection) -> list[Any]:
    return [
        data
        for (data,) in await (
            await conn.execute("select data from events where type = 'sentCopyFailed' order by id")
        ).fetchall()
    ]


# -- Owed -------------------------------------------------------------------------------------------------------------


async def begun(conn: db.Connection, *recipients: str) -> tuple[int, list[int]]:
    await stored(conn, prepared(*recipients))
    (lease,) = await granted(conn, "a")
    started = await leases.start(conn, lease.id, seconds=60)
    assert started is not None
    return lease.id, [one.delivery for one in started.deliveries]


async def commit(conn: db.Connection, lease: int, **states: list[int]) -> None:
    reports = [
        Report(delivery, lease, State(state), Outcome(state), "dot", 0.1)
        for state, deliveries in states.items()
        for delivery in deliveries
    ]
    assert all(await outcomes.commit(conn, reports))


async def test_the_first_that_is_sent_owes_a_copy_and_the_next_owe_no_other(conn: db.Connection) -> None:
    await account(conn)
    lease, (one, two, three) = await begun(conn, "a@x", "b@x", "c@x")
    await commit(conn, lease, failed=[one])
    assert await claimed(conn) == []
    await commit(conn, lease, sent=[two])
    await commit(conn, lease, sent=[three])
    (copy,) = await claimed(conn)
    assert (copy.account, copy.state, copy.taken, copy.unfinished) == ("a", "owed", 2, False)


async def test_an_account_without_a_mailbox_owes_none(conn: db.Connection) -> None:
    await account(conn, mailbox=False)
    await conn.execute(
        "insert into accounts (id, config) values ('off', %s)", (Jsonb({"imap": {"host": "h", "disabled": True}}),)
    )
    lease, (one,) = await begun(conn, "a@x")
    await commit(conn, lease, sent=[one])
    assert await (await conn.execute("select count(*) from sent_copies")).fetchone() == (0,)


async def test_owing_looks_accounts_up_in_their_index(settings: Any) -> None:
    """With the plan that workers keep, made while there is nothing: it must do for any number of accounts."""
    pool = await db.open_pool(settings, most=1, generic=True)
    async with db.connection(pool) as conn:
        columns = 16
        await conn.execute(outcomes.COMMIT.encode(), tuple([] for _ in range(columns)))
        cursor = await conn.execute(f"explain {outcomes.COMMIT}".encode(), tuple([] for _ in range(columns)))
        plan = "\n".join(line[0] for line in await cursor.fetchall())
    await pool.close()
    assert "accounts_pkey on accounts" in plan
    assert "Seq Scan on accounts" not in plan


async def test_a_replay_asks_for_the_copy_again(conn: db.Connection) -> None:
    await account(conn)
    lease, (one, two) = await begun(conn, "a@x", "b@x")
    await commit(conn, lease, sent=[one], failed=[two])
    (copy,) = await claimed(conn)
    await sentcopies.settle(conn, copy, Settled(looks=3, place={"path": "Sent"}))
    assert await claimed(conn) == []
    await deadletters.replay(conn, Filter(account="a"), lifetime=60, most=10)
    (again,) = await claimed(conn)
    assert (again.unfinished, again.looks, again.place, again.state) == (True, 0, {"path": "Sent"}, "owed")


async def test_it_goes_with_its_message(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    await retention.forget_mail(conn, "a", 10)
    assert await (await conn.execute("select count(*) from sent_copies")).fetchone() == (0,)


# -- Claimed ----------------------------------------------------------------------------------------------------------


async def test_what_is_claimed_tells_all_that_is_needed(conn: db.Connection) -> None:
    await account(conn)
    (id,) = await owed(conn, content=HTML, splice=find(HTML), bcc=("e@x",), sent_mail_path="Mine")
    (copy,) = await claimed(conn)
    assert (copy.message, copy.message_id, copy.bcc, copy.options) == (
        id,
        "<x@example.com>",
        ["e@x"],
        {"sentMailPath": "Mine"},
    )
    assert (copy.tracked, copy.size, copy.looks, copy.place) == (True, len(HTML), 0, None)
    assert copy.replies == []


async def test_replies_that_may_name_the_message_are_told_once(conn: db.Connection) -> None:
    await account(conn)
    lease, (one, other, third) = await begun(conn, "a@x", "b@x", "c@x")
    await commit(conn, lease, sent=[one, other, third])
    for delivery, reply in ((one, "OK <1@mx> [Hostname=mx]"), (other, "OK <1@mx> [Hostname=mx]"), (third, "ok")):
        await conn.execute("update deliveries set reply = %s where id = %s", (reply, delivery))
    (copy,) = await claimed(conn)
    assert copy.replies == ["OK <1@mx> [Hostname=mx]"]


async def test_a_claim_is_one_s_until_it_ends(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (first,) = await claimed(conn)
    assert await claimed(conn) == []
    await conn.execute("update sent_copies set claimed_until = now() - interval '1 second'")
    (second,) = await claimed(conn)
    assert not await sentcopies.settle(conn, first, Settled())
    assert not await sentcopies.record(conn, first, {}, filed=False, seconds=60)
    assert not await sentcopies.fail(conn, first, "no", None)
    await sentcopies.release(conn, [first])
    assert await claimed(conn) == []
    assert await sentcopies.settle(conn, second, Settled())
    assert await row(conn, "state::text, due_at, finished_at is not null") == ("done", None, True)


async def test_claims_in_hand_are_renewed(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (copy,) = await claimed(conn)
    await conn.execute("update sent_copies set claimed_until = now() + interval '1 second'")
    await sentcopies.renew(conn, [copy, replace(copy, claim=9)], 60)
    assert await row(conn, "claimed_until > now() + interval '50 seconds'") == (True,)


async def test_one_account_s_queue_hides_no_other(conn: db.Connection) -> None:
    for id in ("a", "b", "c"):
        await account(conn, id)
    await owed(conn, "a", 30)
    await owed(conn, "b")
    await owed(conn, "c")
    found = await claimed(conn, "c", each=5)
    assert sorted(copy.account for copy in found) == ["a"] * 5 + ["b"]


async def test_accounts_take_turns_the_longest_waiting_first(conn: db.Connection) -> None:
    for id in ("a", "b"):
        await account(conn, id)
        await owed(conn, id)
    await conn.execute("update sent_copies set due_at = now() - interval '1 minute' where account_id = 'b'")
    assert [copy.account for copy in await claimed(conn, accounts=1)] == ["b"]


async def test_what_has_deliveries_without_outcome_waits_ever_longer(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    await conn.execute("update deliveries set state = 'deferred', finished_at = null")
    await conn.execute("update sent_copies set created_at = now() - interval '400 seconds'")
    (copy,) = await claimed(conn)
    assert copy.unfinished
    await sentcopies.postpone(conn, [copy])
    (seconds, held) = await row(conn, "extract(epoch from due_at - now())::float8, claimed_until")
    assert 99 < seconds <= 101
    assert held is None


# -- Settled ----------------------------------------------------------------------------------------------------------


async def test_one_that_is_looked_at_again_is_done_meanwhile(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (copy,) = await claimed(conn)
    await sentcopies.settle(conn, copy, Settled(again=60, looks=1, place={"path": "Sent"}, filed=True))
    assert await row(conn, "state::text, looks, filed, place, finished_at, due_at > now()") == (
        *("done", 1, True, {"path": "Sent"}, None, True),
    )


async def test_one_that_is_waited_for_is_owed(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (copy,) = await claimed(conn)
    await sentcopies.settle(conn, copy, Settled(again=60, there=False))
    assert (await row(conn, "state::text"))[0] == "owed"


async def test_a_failure_waits_and_the_last_tells(conn: db.Connection) -> None:
    await account(conn)
    (id,) = await owed(conn)
    (copy,) = await claimed(conn)
    assert await sentcopies.fail(conn, copy, "full", 0)
    assert await events(conn) == []
    (copy,) = await claimed(conn)
    assert copy.tries == 1
    assert await sentcopies.fail(conn, copy, "still full", None)
    assert await row(conn, "state::text, due_at, error, tries") == ("failed", None, "still full", 2)
    assert await events(conn) == [
        {"messageId": "<x@example.com>", "queueId": id.hex, "error": "still full", "attempts": 2}
    ]


async def test_a_copy_that_is_there_fails_silently(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (copy,) = await claimed(conn)
    await sentcopies.fail(conn, copy, "not flagged", None, tell=False)
    assert (await row(conn, "state::text, due_at"), await events(conn)) == (("done", None), [])


# -- The mailbox is away ----------------------------------------------------------------------------------------------


async def test_all_copies_wait_for_a_mailbox_that_is_away_and_those_that_come_later(conn: db.Connection) -> None:
    await account(conn)
    await account(conn, "b")
    await owed(conn, number=3)
    await claimed(conn, each=1)
    await conn.execute("update sent_copies set claimed_until = null")
    await sentcopies.rest(conn, "a", "away", 60)
    await owed(conn)
    await owed(conn, "b")
    assert [copy.account for copy in await claimed(conn)] == ["b"]
    soon = "select count(*) from sent_copies where due_at <= now() and account_id = 'a'"
    assert await (await conn.execute(soon.encode())).fetchone() == (0,)
    assert await sentcopies.failures(conn, "a") == 1


async def test_what_waits_is_due_when_the_mailbox_is_back(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn, number=2)
    await sentcopies.rest(conn, "a", "away", 3600)
    assert [await sentcopies.recovered(conn, "a") for _ in range(2)] == [True, False]
    assert len(await claimed(conn)) == 2
    assert await sentcopies.failures(conn, "a") == 0


async def test_what_failed_by_itself_keeps_its_own_time_when_the_mailbox_is_back(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    (copy,) = await claimed(conn)
    await sentcopies.fail(conn, copy, "full", 3600)
    await sentcopies.rest(conn, "a", "away", 60)
    await sentcopies.recovered(conn, "a")
    assert await claimed(conn) == []


async def test_changed_settings_forget_what_was_learned_and_try_at_once(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn)
    await sentcopies.rest(conn, "a", "away", 3600)
    await conn.execute("update mailboxes set files = true")
    await sentcopies.changed(conn, "a")
    assert len(await claimed(conn)) == 1
    assert await (await conn.execute("select files from mailboxes")).fetchone() == (None,)


async def test_what_waited_for_too_long_is_given_up_but_what_is_there_stays(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn, number=3)
    await conn.execute("update sent_copies set created_at = now() - interval '2 days'")
    first, *_ = await claimed(conn)
    await sentcopies.settle(conn, first, Settled(again=0))
    await conn.execute("update sent_copies set claimed_until = null")
    await owed(conn)
    assert await sentcopies.abandon(conn, "a", "away", 86400, most=2) == 2
    assert await sentcopies.abandon(conn, "a", "away", 86400, most=2) == 1
    assert await sentcopies.abandon(conn, "a", "away", 86400, most=2) == 0
    found = await (await conn.execute("select state::text, due_at is null from sent_copies order by 1, 2")).fetchall()
    assert found == [("done", True), ("failed", True), ("failed", True), ("owed", False)]
    assert [event["error"] for event in await events(conn)] == ["away", "away"]


async def test_what_waits_is_counted(conn: db.Connection) -> None:
    await account(conn)
    await owed(conn, number=2)
    await conn.execute("update sent_copies set due_at = now() - interval '100 seconds'")
    waiting, overdue = await sentcopies.waiting(conn)
    assert waiting == 2
    assert 100 <= overdue < 110
    assert (await sentcopies.waiting(conn, most=1))[0] == 1


async def test_a_claim_looks_things_up_in_indexes(conn: db.Connection) -> None:
    given = {"busy": ["b"], "accounts": 10, "each": 10, "seconds": 60, "rests": ""}
    for way in ("seqscan", "hashjoin", "mergejoin"):
        await conn.execute(f"set enable_{way} = off".encode())
    cursor = await conn.execute(f"explain {sentcopies.CLAIM}".encode(), given)
    plan = "\n".join(line[0] for line in await cursor.fetchall())
    assert "Seq Scan" not in plan
    for index in ("sent_copies_any", "sent_copies_due", "deliveries_message", "attempts_delivery"):
        assert index in plan
