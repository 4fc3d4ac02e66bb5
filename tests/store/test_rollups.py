"""The sums follow every fact, in whatever order facts come; what is wrong with them is found and mended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay import bounces
from relay.core.bounce import Reported, judge
from relay.core.model import Opener, Outcome, Splice, State
from relay.core.prose import Told
from relay.core.report import Kind
from relay.store import audit, db, deadletters, expiry, leases, opens, outcomes, parting, retention, rollups
from relay.store.audit import Difference
from relay.store.opens import Open
from relay.store.outcomes import Report
from tests.store.mail import account, prepared, stored

KEEP = 7  # days of mail
ADDRESSES = ("ann@x.example", "Ann@X.example", "bob@x.example", "cid@y.example", "dan@y.example")
PIXEL = Splice(7, 7, "7bit", "us-ascii")
WORKED = {State.SENT: Outcome.SENT, State.DEFERRED: Outcome.DEFERRED, State.FAILED: Outcome.FAILED}


async def rows(conn: db.Connection, query: str, *given: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), given)).fetchall()


async def differences(conn: db.Connection) -> list[Difference]:
    found = []
    for one in await audit.accounts(conn):
        for table in audit.TABLES:
            found += await audit.differences(conn, table, one)
    for table in rollups.KEYS:
        found += await audit.differences(conn, table, "")
    return found


async def mend(conn: db.Connection) -> None:
    for one in [*await audit.accounts(conn), ""]:
        for table in audit.TABLES if one else rollups.KEYS:
            if wrong := await audit.differences(conn, table, one):
                await audit.mend(conn, table, one, wrong)


async def send(conn: db.Connection, *recipients: str, account: str = "a", **options: Any) -> list[int]:
    """Deliveries that wait to be worked on."""
    (answer,) = await stored(conn, prepared(*recipients, account=account, **options))
    query = "select id from deliveries where message_id = %s::uuid order by id"
    return [row[0] for row in await rows(conn, query, answer.queue_id)]


async def work(conn: db.Connection, ends: dict[int, State]) -> None:
    """Leases deliveries and commits how they end."""
    await conn.execute(
        "update deliveries set state = 'leased', lease_id = 1, ready = false where id = any(%s)"
        " and state in ('queued', 'deferred')",
        (list(ends),),
    )
    reports = [Report(id, 1, end, WORKED[end], "dot", 0.1, wait=60.0) for id, end in ends.items()]
    assert await outcomes.commit(conn, reports) == [True] * len(reports)


async def look(conn: db.Connection, *deliveries: int, opener: Opener = Opener.PERSON, times: int = 1) -> None:
    """Their pixels are fetched."""
    ((now,),) = await rows(conn, "select clock_timestamp()")
    await opens.record(
        conn,
        [
            Open(id, place, now, "GET", "192.0.2.7", "Reader/1", opener, "Reader", "It reads", "DE", "Berlin", False)
            for id in deliveries
            for place in range(1, times + 1)
        ],
    )


class Life:
    """Random facts of two accounts, one after the other, on a clock that is moved by hand."""

    def __init__(self, conn: db.Connection, seed: int) -> None:
        self.conn, self.random, self.now = conn, random.Random(seed), datetime.now(UTC)

    async def begin(self) -> None:
        """Statements that ask for the time are told ours."""
        await self.conn.execute("create schema fake")
        for name in ("now", "clock_timestamp"):
            await self.conn.execute(
                f"create function fake.{name}() returns timestamptz language sql stable"
                " as $$ select current_setting('fake.now')::timestamptz $$".encode()
            )
        await self.conn.execute("set search_path = fake, pg_catalog, public")
        await self._pass(timedelta())
        for one in ("a", "b"):
            await account(self.conn, one)

    async def step(self) -> None:
        await self._pass(self.random.choice([timedelta(seconds=1), timedelta(minutes=9), timedelta(days=2)]))
        acts = [self.send, self.send, self.work, self.work, self.look, self.look, self.look]
        acts += [
            self.report,
            self.report,
            self.lose,
            self.replay,
            self.purge,
            self.fold,
            self.early,
            self.leave,
            self.forget,
        ]
        await self.random.choice(acts)()

    async def _pass(self, time: timedelta) -> None:
        self.now += time
        await self.conn.execute("select set_config('fake.now', %s, false)", (self.now.isoformat(),))

    async def _some(self, condition: str, most: int) -> list[int]:
        ids = [row[0] for row in await rows(self.conn, f"select id from deliveries where {condition} order by id")]
        return self.random.sample(ids, min(len(ids), self.random.randint(1, most)))

    async def send(self) -> None:
        recipients = self.random.sample(ADDRESSES, self.random.randint(1, 4))
        kind, pixel = self.random.choice([None, "news", "receipt"]), self.random.choice([PIXEL, PIXEL, None])
        await send(self.conn, *recipients, account=self.random.choice("ab"), email_type=kind, splice=pixel)

    async def work(self) -> None:
        chosen = await self._some("state in ('queued', 'deferred')", 8)
        states = [State.SENT, State.SENT, State.SENT, State.FAILED, State.DEFERRED]
        await work(self.conn, {id: self.random.choice(states) for id in chosen})

    async def report(self) -> None:
        """Some of what was sent comes back, or is complained about; of the rest nothing that is known is changed."""
        for id in await self._some("true", 3):
            ((account, name, who),) = await rows(
                self.conn,
                "select d.account_id, m.message_id, d.recipient from deliveries d"
                " join messages m on m.id = d.message_id where d.id = %s",
                id,
            )
            kind = self.random.choice([Kind.BOUNCE, Kind.BOUNCE, Kind.COMPLAINT])
            said = judge(Told(who, self.random.choice(["failed", "failed", "delayed"]), "5.1.1", "no such user"))
            key, name = self.random.randbytes(8).hex(), self.random.choice([name, ""])
            await bounces.record(self.conn, account, Reported(kind, "imap", key, name, (said,), at=self.now))

    async def lose(self) -> None:
        """A worker dies at the last attempt."""
        for id in await self._some("state in ('queued', 'deferred')", 2):
            await self.conn.execute(
                "with lease as (insert into leases (account_id, priority, size, started_at, expires_at)"
                " select account_id, 1, 1, fake.now(), fake.now() - interval '1 second' from deliveries where id = %s"
                " returning id) update deliveries set state = 'leased', lease_id = lease.id, ready = false,"
                " max_attempts = attempts + 1 from lease where deliveries.id = %s",
                (id, id),
            )
        await leases.recover(self.conn)

    async def look(self) -> None:
        times = self.random.choice([1, 1, 2, 3, 250])
        await look(self.conn, *await self._some("true", 3), opener=self.random.choice(list(Opener)), times=times)

    async def replay(self) -> None:
        await deadletters.replay(self.conn, deadletters.Filter(), lifetime=3600, most=2)

    async def purge(self) -> None:
        await retention.purge(self.conn, KEEP, most=self.random.randint(1, 5))

    async def fold(self) -> None:
        for table in rollups.FOLDED:
            await rollups.fold(self.conn, table, most=self.random.randint(1, 20))

    async def early(self) -> None:
        await rollups.count_early(self.conn, most=self.random.randint(1, 5))

    async def forget(self) -> None:
        await expiry.rowless(self.conn)
        await expiry.recipients(self.conn, 3)

    async def leave(self) -> None:
        """An account is deleted, and taken on again."""
        if self.random.random() < 0.3:
            while await retention.forget_mail(self.conn, "b", 3):
                pass
            while await retention.forget_recipients(self.conn, "b", 3):
                pass
            await parting.delete(self.conn, "b")
            await account(self.conn, "b")


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_the_sums_are_what_the_rows_say(pool: db.Pool, seed: int) -> None:
    async with db.connection(pool) as conn:
        life = Life(conn, seed)
        await life.begin()
        for _ in range(25):
            for _ in range(6):
                await life.step()
            assert await differences(conn) == []
        kept = await rows(
            conn, "select account_id = '' as everybody, sum(sent), sum(opens), sum(bounced) from tallies group by 1"
        )
        assert len(kept) == 2
        assert kept[0][3] > 0
        assert kept[0][1:] == kept[1][1:]
        await conn.execute("reset search_path")


def bounced(address: str) -> Reported:
    """What was sent to this address last came back."""
    return Reported(Kind.BOUNCE, "imap", address, "", (judge(Told(address, "failed", "5.1.1")),))


async def everything(conn: db.Connection) -> None:
    """Mail of every fate, folded and not, opened once and often."""
    for one in ("a", "b"):
        await account(conn, one)
        sent = await send(conn, *ADDRESSES[1:], account=one, splice=PIXEL, email_type="news")
        await work(conn, dict(zip(sent, [State.SENT, State.SENT, State.FAILED, State.DEFERRED], strict=True)))
        await look(conn, sent[0], times=3)
        await look(conn, sent[0], opener=Opener.PREFETCH)
        await look(conn, sent[1], opener=Opener.SELF)
        await bounces.record(conn, one, bounced("bob@x.example"))
        for table in rollups.KEYS:
            await rollups.fold(conn, table)
    await work(conn, dict.fromkeys(await send(conn, "eve@z.example"), State.SENT))


WRONG = {
    "a tally": ("update tallies set sent = sent + 1 where account_id = 'a' and folded", "tallies", "sent"),
    "a tally of all": ("update tallies set opened = 0 where account_id = '' and folded", "tallies", "opened"),
    "a tally of bounces": (
        "insert into tallies (account_id, quarter, email_type, bounced) select account_id, quarter, email_type, -1"
        " from tallies where bounced > 0",
        "tallies",
        "bounced",
    ),
    "a recipient's bounces": ("update recipients set bounced = 7 where bounced > 0", "recipients", "bounced"),
    "a lost tally": ("delete from tallies where account_id = 'a' and not folded", "tallies", "sent"),
    "an invented tally": (
        "insert into tallies (account_id, quarter, email_type, failed) values ('b', now() - interval '2 days', 'x', 7)",
        "tallies",
        "failed",
    ),
    "an open tally": ("update open_tallies set opens = opens - 1 where account_id = 'a'", "open_tallies", "opens"),
    "a lost open tally": ("delete from open_tallies where account_id = 'b'", "open_tallies", "firsts"),
    "a recipient": ("update recipients set opened = 5 where address = 'ann@x.example'", "recipients", "opened"),
    "a recipient's time": ("update recipients set last_sent_at = now() - interval '9 h'", "recipients", "last_sent_at"),
    "a lost recipient": ("delete from recipients where account_id = 'b'", "recipients", "sent"),
    "an invented recipient": (
        "insert into recipients (account_id, address, sent) values ('gone', 'x@y', 1)",
        "recipients",
        "sent",
    ),
    "an open": ("update opens set any_opens = any_opens + 1", "opens", "any_opens"),
    "a judgement": ("update opens set judged = '{\"person\": 9}' where opens > 0", "opens", "judged"),
    "a lost open": ("delete from opens where account_id = 'a'", "opens", "fetches"),
    "an open's time": ("update opens set first_at = first_at - interval '1 day'", "opens", "first_at"),
    "an open elsewhere": ("update opens set sent_at = sent_at - interval '1 day'", "opens", "sent_at"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_was_changed_by_hand_is_found_and_mended(pool: db.Pool, what: str) -> None:
    change, table, column = WRONG[what]
    async with db.connection(pool) as conn:
        await everything(conn)
        assert await differences(conn) == []
        changed = await conn.execute(change.encode())
        found = await differences(conn)
        await mend(conn)
        left = await differences(conn)
    assert changed.rowcount > 0
    assert (table, column) in {(one.table, one.column) for one in found}
    assert left == []


async def test_a_difference_tells_account_row_column_and_both_values(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await everything(conn)
        await conn.execute("update recipients set failed = 4 where account_id = 'a' and address = 'cid@y.example'")
        assert await differences(conn) == [Difference("recipients", "a", ("cid@y.example",), "failed", 4, 1)]


async def test_sums_older_than_the_mail_that_is_kept_are_left_as_they_are(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await everything(conn)
        await conn.execute(
            "insert into tallies (account_id, quarter, email_type, sent) values ('a', '2020-01-01', '', 9)"
        )
        await conn.execute("update books set purged_until = '2021-01-01'")
        await conn.execute("update tallies set failed = failed + 1 where account_id = 'a' and folded")
        await mend(conn)
        kept = await rows(conn, "select sum(sent) from tallies where quarter < '2021-01-01'")
    assert kept == [(9,)]


async def test_an_open_that_came_before_the_outcome_counts_once_it_is_known(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (early,) = await send(conn, "r@x.example", splice=PIXEL)
        await look(conn, early, times=2)
        before = await opened_of_a(conn)
        await work(conn, {early: State.SENT})
        counted = [await rollups.count_early(conn), await rollups.count_early(conn)]
        await look(conn, early)
        people = await rows(conn, "select sent, opened, opens from recipients")
        after = await opened_of_a(conn)
    assert (before, counted) == ((0, 0), [1, 0])
    assert after == (1, 3)
    assert people == [(1, 1, 3)]


async def opened_of_a(conn: db.Connection) -> tuple[int, int]:
    ((opened, all_opens),) = await rows(
        conn, "select coalesce(sum(opened), 0), coalesce(sum(opens), 0) from tallies where account_id = 'a'"
    )
    return opened, all_opens


async def test_opens_without_rows_are_folded_as_well(pool: db.Pool) -> None:
    """Whoever knows one picture may fetch it all day long: each fetch is counted, and none leaves a row for ever."""
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("ann@there.example"))
        ((delivery,),) = await rows(conn, "select id from deliveries")
        for _ in range(5):
            await look(conn, delivery, times=opens.KEPT)
        assert await rollups.fold(conn, "rowless_opens") == 4
        assert await rows(conn, "select sum(opens), count(*) from rowless_opens") == [(4 * opens.KEPT, 1)]


async def test_folding_leaves_one_row_of_a_key_and_its_sum(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        for _ in range(3):
            await work(conn, dict.fromkeys(await send(conn, "r@x.example"), State.SENT))
            await rollups.fold(conn, "tallies", most=1)
        while await rollups.fold(conn, "tallies", most=1):
            pass
        kept = await rows(
            conn,
            "select account_id, email_type, sum(sent), count(*) / count(distinct quarter) from tallies group by 1, 2",
        )
    assert sorted(kept) == [("", "", 3, 1), ("a", "", 3, 1)]


async def test_an_account_takes_its_figures_along(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await everything(conn)
        while await retention.forget_mail(conn, "b", 2):
            pass
        while await retention.forget_recipients(conn, "b", 2):
            pass
        await parting.delete(conn, "b")
        everybody = await rows(conn, "select sum(sent), sum(opens), sum(failed) from tallies where account_id = ''")
        left = await rows(conn, "select distinct account_id from tallies order by 1")
        assert await differences(conn) == []
    assert everybody == [(3, 3, 1)]
    assert left == [("",), ("a",)]


async def test_what_retention_took_is_remembered(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await everything(conn)
        late = await rows(conn, "select id from deliveries where state = 'deferred'")
        await work(conn, {id: State.SENT for (id,) in late})
        await conn.execute("update messages set id = ('00000000' || right(id::text, 28))::uuid")
        await conn.execute("update deliveries set message_id = ('00000000' || right(message_id::text, 28))::uuid")
        await conn.execute("update deliveries set finished_at = finished_at - interval '9 days'")
        await conn.execute("delete from tallies")
        await mend(conn)
        assert (await retention.purge(conn, KEEP))[:2] == (3, False)
        gone = await rows(conn, "select gone - 'at' from recipients where address = 'eve@z.example'")
        assert await differences(conn) == []
    assert gone == [
        (
            {
                "sent": 1,
                "tracked": 0,
                "failed": 0,
                "bounced": 0,
                "opened": 0,
                "any_opened": 0,
                "opens": 0,
                "any_opens": 0,
            },
        )
    ]


@asynccontextmanager
async def two(pool: db.Pool) -> AsyncIterator[tuple[db.Connection, db.Connection]]:
    async with db.connection(pool) as one, db.connection(pool) as other:
        yield one, other


async def test_commits_of_the_same_recipients_in_any_order_never_wait_in_a_circle(pool: db.Pool) -> None:
    people = [f"r{number}@x.example" for number in range(40)]
    async with two(pool) as (one, other):
        await account(one)
        for _ in range(12):
            there, back = await send(one, *people), await send(one, *reversed(people))
            await asyncio.gather(
                work(one, dict.fromkeys(there, State.SENT)), work(other, dict.fromkeys(back, State.SENT))
            )
        assert await rows(one, "select distinct sent from recipients") == [(24,)]


async def test_facts_are_neither_lost_nor_counted_twice_while_sums_are_folded_and_made_anew(pool: db.Pool) -> None:
    async with two(pool) as (one, other):
        await everything(one)
        busy = True

        async def facts() -> None:
            nonlocal busy
            for _ in range(40):
                sent = await send(one, *ADDRESSES[1:], splice=PIXEL)
                await work(one, dict.fromkeys(sent, State.SENT))
                await look(one, *sent[:2])
            busy = False

        async def chores() -> None:
            while busy:
                wrong = [Difference("", "a", (address.lower(),), "", 0, 0) for address in ADDRESSES]
                seen = [
                    Difference("", "a", (id,), "", 0, 0) for (id,) in await rows(other, "select delivery_id from opens")
                ]
                for table in rollups.KEYS:
                    await audit.mend(other, table, "a", [])
                    await audit.mend(other, table, "", [])
                    await rollups.fold(other, table)
                await audit.mend(other, "recipients", "a", wrong)
                await audit.mend(other, "opens", "a", seen)
                assert await differences(other) == []

        await asyncio.gather(facts(), chores())
        assert await differences(one) == []
        assert await rows(one, "select sum(sent) from tallies where account_id = 'a'") == [(163,)]


async def until_waiting(conn: db.Connection) -> None:
    """Until somebody waits for a lock of this database."""
    query = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    for _ in range(2000):
        if await rows(conn, query):
            return
        await conn.execute("select pg_sleep(0.002)")
    raise AssertionError("nobody waited")


async def test_making_sums_anew_waits_for_whoever_takes_rows_from_them(pool: db.Pool) -> None:
    async with two(pool) as (one, other):
        await everything(one)
        async with one.transaction():
            await rollups.alone(one)
            mending = asyncio.create_task(audit.mend(other, "tallies", "a", []))
            await until_waiting(one)
            assert await rows(one, "select sum(sent) from tallies where account_id = 'a'") == [(3,)]
        await mending


@pytest.mark.parametrize("table", ["recipients", "opens"])
async def test_rows_made_anew_know_of_the_fact_that_they_waited_for(pool: db.Pool, table: str) -> None:
    async with two(pool) as (one, other), db.connection(pool) as third:
        await everything(one)
        ((seen, who),) = await rows(
            one,
            "select d.id, lower(d.recipient) from deliveries d join opens o on o.delivery_id = d.id"
            " where o.account_id = 'a' and o.opens > 0",
        )
        key = {"recipients": who, "opens": seen}[table]
        async with one.transaction():
            await look(one, seen)
            mending = asyncio.create_task(audit.mend(other, table, "a", [Difference(table, "a", (key,), "", 0, 0)]))
            await until_waiting(third)
        await mending
        assert await differences(one) == []


async def test_an_open_that_is_recorded_while_its_mail_leaves_leaves_nothing_behind(pool: db.Pool) -> None:
    async with two(pool) as (one, other):
        await account(one)
        sent = await send(one, *ADDRESSES[1:], splice=PIXEL)
        await work(one, dict.fromkeys(sent, State.SENT))
        async with one.transaction():
            await one.execute("delete from deliveries where id = %s", (sent[0],))
            recording = asyncio.create_task(look(other, *sent))
            await until_waiting(one)
        await recording
        assert await rows(one, "select delivery_id from opens order by 1") == [(id,) for id in sent[1:]]
