"""Outcomes: state, attempt, slot and event in one commit."""

from __future__ import annotations

import pytest

from relay.core.model import EventType, Outcome, State
from relay.store import db, leases, outcomes, turns
from relay.store.outcomes import Report
from tests.store.mail import account, prepared, stored
from tests.store.test_leases import granted, states


async def begun(conn: db.Connection, *recipients: str, **limits: int) -> tuple[int, list[int]]:
    """A lease that is begun: its id and its deliveries'."""
    await account(conn, **limits)
    await stored(conn, prepared(*recipients))
    (lease,) = await granted(conn, "a")
    started = await leases.start(conn, lease.id, seconds=60)
    assert started is not None
    return lease.id, [row.delivery for row in started.deliveries]


async def test_each_outcome_is_recorded_with_its_attempt_and_event(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        lease, (one, two, three) = await begun(conn, "a@x", "b@x", "c@x")
        kept = await outcomes.commit(
            conn,
            [
                Report(
                    three,
                    lease,
                    State.FAILED,
                    Outcome.FAILED,
                    "rcpt",
                    0.1,
                    code=550,
                    event=EventType.MESSAGE_FAILED,
                    data={},
                ),
                Report(
                    one,
                    lease,
                    State.SENT,
                    Outcome.SENT,
                    "dot",
                    0.1,
                    code=250,
                    event=EventType.MESSAGE_SENT,
                    data={"n": 1},
                ),
                Report(two, lease, State.DEFERRED, Outcome.UNKNOWN, "dot", 0.1, wait=60),
            ],
        )
        tries = await (
            await conn.execute("select delivery_id, number, outcome::text from attempts order by delivery_id")
        ).fetchall()
        events = await (await conn.execute("select type, delivery_id from events order by delivery_id")).fetchall()
        due = await (
            await conn.execute("select extract(epoch from due_at - now()) from deliveries where id = %s", (two,))
        ).fetchone()
        assert kept == [True, True, True]
        assert await states(conn) == [("sent", 1), ("deferred", 1), ("failed", 1)]
        assert tries == [(one, 1, "sent"), (two, 1, "unknown"), (three, 1, "failed")]
        assert events == [("messageSent", one), ("messageFailed", three)]
        assert due is not None
        assert 59 < due[0] <= 60


async def test_a_limit_that_is_set_while_mail_is_in_hand_counts_it(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        lease, (one, two) = await begun(conn, "a@x", "b@x")
        await outcomes.commit(conn, [Report(one, lease, State.SENT, Outcome.SENT, "dot", 0.1, counts=True)])
        await conn.execute("update accounts set config = jsonb_set(config, '{limits}', '{\"perDay\": 9}')")
        await outcomes.commit(conn, [Report(two, lease, State.SENT, Outcome.SENT, "dot", 0.1, counts=True)])
        assert await (await conn.execute("select account_id, n from slots")).fetchall() == [("a", 1)]


async def test_what_counts_takes_a_slot(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        lease, (one, two) = await begun(conn, "a@x", "b@x", perDay=9)
        await outcomes.commit(
            conn,
            [
                Report(one, lease, State.SENT, Outcome.SENT, "dot", 0.1, counts=True),
                Report(two, lease, State.DEFERRED, Outcome.DEFERRED, "connect", 0.1, wait=1),
            ],
        )
        assert await (await conn.execute("select account_id, n from slots")).fetchall() == [("a", 1)]


@pytest.mark.parametrize("said", ["nul \x00", "half a character \ud800"])
async def test_an_outcome_is_never_lost_to_what_upstream_said(pool: db.Pool, said: str) -> None:
    async with db.connection(pool) as conn:
        lease, (one, two) = await begun(conn, "a@x", "b@x")
        reports = [
            Report(one, lease, State.SENT, Outcome.SENT, "dot", 0.1, reply=said),
            Report(two, lease, State.SENT, Outcome.SENT, "dot", 0.1, reply="fine"),
        ]
        assert await outcomes.commit(conn, reports) == [True, True]
        replies = await (await conn.execute("select reply from deliveries order by id")).fetchall()
        assert replies == [("(unreadable)",), ("fine",)]


async def test_the_same_report_twice_is_recorded_once(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        lease, (one,) = await begun(conn, "a@x")
        report = Report(one, lease, State.SENT, Outcome.SENT, "dot", 0.1)
        assert await outcomes.commit(conn, [report]) == [True]
        assert await outcomes.commit(conn, [report]) == [False]
        assert await (await conn.execute("select count(*) from attempts")).fetchone() == (1,)


async def test_slots_of_a_minute_become_one_that_frees_with_the_last(pool: db.Pool) -> None:
    """Where the window of a day alone counts them; what the account has used is the same before and after."""
    async with db.connection(pool) as conn:
        await account(conn, "a", perHour=100, perDay=100)
        async with conn.transaction():  # it is one and the same moment
            await conn.execute(
                "insert into slots select 'a', date_bin('1 minute', now(), 'epoch') - ago::interval, n from (values"
                " ('2 h', 1), ('2 h -30 s', 2), ('2 h -59 s', 4), ('3 h', 8), ('61 min', 16), ('60 min 30 s', 16),"
                " ('1 s', 32), ('2 s', 32)) s(ago, n)"
            )
            before = await turns.usage(conn, ["a"], size=1)
            for _ in range(2):
                await outcomes.fold_slots(conn)
            cursor = await conn.execute(
                "select (date_bin('1 minute', now(), 'epoch') - at)::text, n from slots order by at"
            )
            assert (await cursor.fetchall())[:4] == [
                ("03:00:00", 8),
                ("01:59:01", 7),
                ("01:01:00", 16),
                ("01:00:30", 16),
            ]
            assert await turns.usage(conn, ["a"], size=1) == before
