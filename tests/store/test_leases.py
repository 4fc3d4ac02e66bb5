"""Leases: granted in turn, within limits, begun once, taken back when their worker is lost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from relay.core.limits import room, share
from relay.core.model import Outcome, Priority, State
from relay.store import db, leases, outcomes, turns
from relay.store.db import Connection
from relay.store.leases import Lease
from relay.store.outcomes import Report
from tests.stack import until
from tests.store.mail import account, prepared, stored


async def granted(conn: Connection, *accounts: str, size: int = 50) -> list[Lease]:
    """What the scheduler does for these accounts in one turn."""
    async with conn.transaction():
        turn = await turns.take_turn(conn, accounts)
        usages = await turns.usage(conn, turn, size=size)
        rooms = {usage.account: room(usage) for usage in usages if room(usage)}
        return await turns.grant(conn, rooms, seconds=60) if rooms else []


async def states(conn: Connection) -> list[tuple[str, int]]:
    rows = await (await conn.execute("select state::text, attempts from deliveries order by id")).fetchall()
    return [(row[0], row[1]) for row in rows]


def sent(delivery: int, lease: int) -> Report:
    return Report(delivery, lease, State.SENT, Outcome.SENT, "dot", 0.1, code=250, counts=True)


async def test_only_accounts_with_ready_work_are_found_in_turn(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        for id in ("a", "b", "c", "d"):
            await stored(conn, *[prepared(account=id)] * 0, prepared(account=id), prepared(account=id))
        await stored(conn, prepared(account="bb", send_at=datetime.now(UTC) + timedelta(days=1)))
        assert await turns.accounts_with_work(conn, "", most=3) == ["a", "b", "c"]
        assert await turns.accounts_with_work(conn, "c", most=3) == ["d"]
        await conn.execute("update accounts set state = 'paused' where id = 'a'")
        await conn.execute("update accounts set retry_at = now() + interval '1 minute' where id = 'b'")
        assert await turns.accounts_with_work(conn, "", most=1) == ["c"]


async def test_the_turn_comes_to_all_accounts_in_their_order_however_many_there_are(pool: db.Pool) -> None:
    """Also where the planner knows how many, and would rather join than look them up."""
    async with db.connection(pool) as conn:
        await conn.execute("insert into accounts (id) select 'account-' || n from generate_series(1, 10000) n")
        names = sorted(f"account-{number}" for number in range(1, 10_000, 500))
        await stored(conn, *(prepared(account=name) for name in names))
        await conn.execute("vacuum analyze")
        found = [""]
        while accounts := await turns.accounts_with_work(conn, found[-1], most=1):
            found += accounts
    assert found[1:] == names


async def test_future_mail_is_promoted_when_its_hour_comes(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await stored(conn, prepared(send_at=datetime.now(UTC) + timedelta(hours=1)))
        assert await turns.promote(conn) == set()
        assert 3500 < (await turns.next_due(conn) or 0) <= 3600
        await conn.execute("update deliveries set due_at = now()")
        assert await turns.promote(conn) == {"a"}
        assert await turns.next_due(conn) is None


async def test_priority_goes_before_age_and_age_before_the_rest(pool: db.Pool) -> None:
    """A lease is of one class: its lane in the broker is that of all its mail."""
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("bulk@x", priority=Priority.BULK))
        await stored(conn, prepared("first@x"))
        await stored(conn, prepared("second@x"), prepared("high@x", priority=Priority.HIGH))
        found = []
        for _ in range(3):
            (lease,) = await granted(conn, "a", size=3)
            begun = await leases.start(conn, lease.id, seconds=60)
            assert begun is not None
            found.append((lease.priority, [row.recipient for row in begun.deliveries]))
    assert found == [
        (Priority.HIGH, ["high@x"]),
        (Priority.NORMAL, ["first@x", "second@x"]),
        (Priority.BULK, ["bulk@x"]),
    ]


@pytest.mark.parametrize("state", ["paused"])
async def test_a_paused_account_is_left_alone(pool: db.Pool, state: str) -> None:
    async with db.connection(pool) as conn:
        await account(conn, state=state)
        await stored(conn, prepared())
        assert await granted(conn, "a") == []


async def test_a_refused_account_is_probed_with_one_delivery_when_its_time_comes(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, state="refused")
        await stored(conn, prepared("a@x", "b@x"))
        await conn.execute("update accounts set retry_at = now() + interval '1 minute'")
        assert await granted(conn, "a") == []
        await conn.execute("update accounts set retry_at = now()")
        assert [lease.size for lease in await granted(conn, "a")] == [1]
        assert await granted(conn, "a") == [], "one probe at a time, whatever its connections"


async def test_no_more_leases_than_connections(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, connections=2)
        await stored(conn, prepared(*(f"r{n}@x" for n in range(9))))
        sizes = [[lease.size for lease in await granted(conn, "a", size=3)] for _ in range(3)]
    assert sizes == [[3], [3], []]


async def test_no_account_has_more_than_its_share_however_many_connections_it_asks_for(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, connections=1000)
        await stored(conn, prepared(*(f"r{n}@x" for n in range(9))))
        for free in (2, 1, 0):
            (usage,) = await turns.usage(conn, ["a"], size=1, share=2)
            assert usage.connections == free
            await granted(conn, "a", size=1)


async def test_the_more_leases_there_are_the_fewer_any_one_account_may_have(pool: db.Pool) -> None:
    """Several accounts whose servers hang leave room for those that have none."""
    async with db.connection(pool) as conn:
        for name in "abcdefgh":
            await account(conn, name, connections=1000)
            await stored(conn, prepared(*(f"r{n}@x" for n in range(50)), account=name))
            held, waiting = await leases.count(conn)
            assert held == waiting
            most = share(40 - held)
            while (await turns.usage(conn, [name], size=1, share=most))[0].connections > 0:
                await granted(conn, name, size=1)
        held = await (
            await conn.execute("select count(*) from leases group by account_id order by account_id")
        ).fetchall()
    assert [row[0] for row in held] == [10, 7, 5, 5, 5, 5, 5, 5]


async def test_what_is_in_flight_holds_a_slot_and_what_is_sent_keeps_it_for_the_window(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, perMinute=3)
        await stored(conn, prepared(*(f"r{n}@x" for n in range(5))))
        (first,) = await granted(conn, "a", size=2)
        (second,) = await granted(conn, "a", size=2)
        assert (first.size, second.size) == (2, 1)
        assert await granted(conn, "a") == []
        begun = await leases.start(conn, first.id, seconds=60)
        assert begun is not None
        await outcomes.commit(conn, [sent(row.delivery, first.id) for row in begun.deliveries])
        await leases.release(conn, [first.id, second.id])
        assert [lease.size for lease in await granted(conn, "a")] == [1]
        wait = await turns.slot_frees(conn, "a", 60, 1)
    assert wait is not None
    assert 58 < wait <= 60


async def test_a_slot_frees_at_its_instant(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, perMinute=2)
        await stored(conn, prepared())
        await conn.execute(
            "insert into slots values ('a', now() - interval '59.9 s', 2), ('a', now() - interval '10 s', 1)"
        )
        assert await granted(conn, "a") == []
        assert 0 <= (await turns.slot_frees(conn, "a", 60, 2) or 9) < 0.2
        assert 49 < (await turns.slot_frees(conn, "a", 60, 3) or 0) < 51
        await conn.execute("update slots set at = at - interval '1 s'")
        assert [lease.size for lease in await granted(conn, "a")] == [1]


async def test_two_schedulers_never_lease_the_same_and_never_pass_a_limit(pool: db.Pool) -> None:
    async with db.connection(pool) as one, db.connection(pool) as two:
        await account(one, perMinute=4)
        await stored(one, prepared(*(f"r{n}@x" for n in range(9))))
        async with one.transaction():
            await turns.take_turn(one, ["a"])
            assert await granted(two, "a") == []  # it is the other one's turn
            (usage,) = await turns.usage(one, ["a"], size=50)
            await turns.grant(one, {"a": room(usage)}, seconds=60)
        assert await granted(two, "a") == []
        count = await (await one.execute("select count(*) from deliveries where state = 'leased'")).fetchone()
    assert count == (4,)


async def test_a_lease_is_begun_once_however_often_the_broker_brings_it(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared())
        (lease,) = await granted(conn, "a")
        assert await leases.start(conn, lease.id, seconds=60) is not None
        assert await leases.start(conn, lease.id, seconds=60) is None
        assert await leases.start(conn, lease.id + 999, seconds=60) is None


async def test_what_is_given_back_is_a_hold_and_spends_no_attempt(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("a@x", "b@x"))
        (lease,) = await granted(conn, "a")
        assert await leases.release(conn, [lease.id]) == 2
        assert await states(conn) == [("queued", 0), ("queued", 0)]
        assert len(await granted(conn, "a")) == 1


async def test_what_a_worker_has_begun_is_not_withdrawn(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("a@x"), prepared("b@x"))
        (begun,), (waiting,) = [await granted(conn, "a", size=1) for _ in range(2)]
        await leases.start(conn, begun.id, seconds=60)
        assert await leases.withdraw(conn, [begun.id, waiting.id]) == 1
        assert await states(conn) == [("leased", 0), ("queued", 0)]
        assert await leases.renew(conn, [begun.id, waiting.id], seconds=60) == {begun.id}


async def test_a_lost_worker_leaves_one_unknown_and_the_rest_untried(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("a@x"), prepared("b@x"), prepared("c@x"))
        await conn.execute("update messages set splice = '{}'")  # every recipient has a copy of its own
        (lease,) = await granted(conn, "a")
        await conn.execute("update leases set started_at = now(), expires_at = now() - interval '1 s'")
        first = await (await conn.execute("select min(id) from deliveries")).fetchone()
        assert first is not None
        await outcomes.commit(conn, [sent(first[0], lease.id)])
        (lost,) = await leases.recover(conn)
        tries = await (await conn.execute("select outcome::text, stage from attempts order by id")).fetchall()
        assert lost.unknown == 1
        assert await states(conn) == [("sent", 1), ("queued", 1), ("queued", 0)]
        assert tries == [("sent", "dot"), ("unknown", "lease")]


async def test_identical_copies_share_a_transaction_and_so_its_doubt(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("a@x", "b@x"), prepared("c@x"))
        await granted(conn, "a")
        await conn.execute("update leases set started_at = now(), expires_at = now() - interval '1 s'")
        (lost,) = await leases.recover(conn)
        assert lost.unknown == 2
        assert await states(conn) == [("queued", 1), ("queued", 1), ("queued", 0)]


async def test_a_lease_that_was_never_begun_keeps_its_place_however_long_it_waits(pool: db.Pool) -> None:
    """Taken back it would begin at the end again, and where workers are behind, never come to the front."""
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared())
        (lease,) = await granted(conn, "a")
        ago = "created_at = now() - interval '1 hour', enqueued_at = now() - interval '61 s'"
        await conn.execute(f"update leases set expires_at = now() - interval '1 s', {ago}".encode())
        assert await leases.recover(conn) == []
        assert [one.id for one in await leases.forgotten(conn, seconds=5)] == [lease.id]
        assert await leases.start(conn, lease.id, seconds=60) is not None


async def test_an_outcome_that_is_committed_as_its_lease_is_recovered_stands(pool: db.Pool) -> None:
    """Given a worker whose commit holds the row when the recovery comes to it."""
    async with db.connection(pool) as worker, db.connection(pool) as scheduler:
        await account(worker)
        await stored(worker, prepared())
        (lease,) = await granted(worker, "a")
        begun = await leases.start(worker, lease.id, seconds=60)
        assert begun is not None
        await worker.execute("update leases set expires_at = now() - interval '1 s'")
        async with worker.transaction():
            assert await outcomes.commit(worker, [sent(begun.deliveries[0].delivery, lease.id)]) == [True]
            recovering = asyncio.create_task(leases.recover(scheduler))
            await _waits_for_a_lock(pool)
        assert [lost.unknown for lost in await recovering] == [0]
        assert await states(worker) == [("sent", 1)]


async def _waits_for_a_lock(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:

        async def so() -> bool:
            row = await (
                await conn.execute(
                    "select count(*) from pg_stat_activity"
                    " where wait_event_type = 'Lock' and datname = current_database()"
                )
            ).fetchone()
            return row is not None and row[0] > 0

        await until(so)


async def test_mail_that_loses_its_worker_at_every_attempt_becomes_a_dead_letter(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared(), attempts=2)
        for _ in range(2):
            await granted(conn, "a")
            await conn.execute("update leases set started_at = now(), expires_at = now() - interval '1 s'")
            await leases.recover(conn)
        events = await (await conn.execute("select type from events")).fetchall()
        assert await states(conn) == [("failed", 2)]
        assert events == [("messageFailed",)]


async def test_mail_that_lost_its_worker_goes_again_at_once_and_then_waits(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared(), attempts=9)
        waits = []
        for _ in range(3):
            await granted(conn, "a")
            await conn.execute("update leases set started_at = now(), expires_at = now() - interval '1 s'")
            await leases.recover(conn)
            row = await (
                await conn.execute("select ready, extract(epoch from due_at - now())::float8 from deliveries")
            ).fetchone()
            assert row is not None
            waits.append((row[0], max(0, round(row[1]))))
            await conn.execute("update deliveries set due_at = now(), ready = true")
    assert waits == [(True, 0), (False, 60), (False, 120)]


async def test_a_renewed_lease_is_not_recovered_and_a_recovered_one_not_renewed(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared())
        (lease,) = await granted(conn, "a")
        await conn.execute("update leases set started_at = now(), expires_at = now() - interval '1 s'")
        assert await leases.renew(conn, [lease.id], seconds=60) == {lease.id}
        assert await leases.recover(conn) == []
        await conn.execute("update leases set expires_at = now() - interval '1 s'")
        await leases.recover(conn)
        assert await leases.renew(conn, [lease.id], seconds=60) == set()


async def test_a_report_after_the_lease_was_lost_changes_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared())
        (lease,) = await granted(conn, "a")
        begun = await leases.start(conn, lease.id, seconds=60)
        assert begun is not None
        await conn.execute("update leases set expires_at = now() - interval '1 s'")
        await leases.recover(conn)
        late = sent(begun.deliveries[0].delivery, lease.id)
        assert await outcomes.commit(conn, [late]) == [False]
        assert (await states(conn))[0][0] == "queued"


async def test_leases_the_broker_lost_are_brought_again_less_and_less_often(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared())
        (lease,) = await granted(conn, "a")
        assert await leases.forgotten(conn, seconds=5) == []
        await conn.execute(
            "update leases set enqueued_at = now() - interval '6 s', created_at = now() - interval '6 s'"
        )
        assert [one.id for one in await leases.forgotten(conn, seconds=5)] == [lease.id]
        await conn.execute(
            "update leases set enqueued_at = now() - interval '6 s', created_at = now() - interval '30 s'"
        )
        assert await leases.forgotten(conn, seconds=5) == []


@pytest.mark.parametrize(("named", "expected"), [(["a", "b"], ["a", "b"]), (["x" * 9000], []), ([], [])])
async def test_a_wake_up_names_its_accounts_where_they_fit(
    pool: db.Pool, named: list[str], expected: list[str]
) -> None:
    async with (
        db.connection(pool) as hearer,
        db.connection(pool) as speaker,
        aclosing(turns.listen(hearer)) as wake_ups,
    ):
        heard = asyncio.ensure_future(anext(wake_ups))
        while not heard.done():  # until it listens
            await turns.wake(speaker, named)
            await asyncio.wait([heard], timeout=0.02)
        assert await heard == expected
