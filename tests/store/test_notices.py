"""Notices are claimed once and survive who claimed them; unopened mail is told of once, whatever happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay import enrol
from relay.core.model import Opener, Splice
from relay.core.notice import OPENED, UNOPENED
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, notices
from tests.store.mail import account, prepared, stored

PIXEL = Splice(0, 0, "7bit", "utf-8")


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[db.Connection]:
    async with db.connection(pool) as conn:
        yield conn


async def rows(conn: db.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), values)).fetchall()


async def asking(conn: db.Connection, id: str = "a", *, days: int = 3, mail: bool = True, since: int = 30) -> str:
    """An account that has asked for reminders for `since` days."""
    await account(conn, id)
    alerts = {"unopened": True, "unopenedMail": mail, "unopenedDays": days}
    await conn.execute(
        "update accounts set config = config || %s, reminded_until = now() - make_interval(days => %s) where id = %s",
        (Jsonb({"tracking": {"alerts": alerts}}), since, id),
    )
    return id


async def sent(
    conn: db.Connection, *recipients: str, days: float, account: str = "a", state: str = "sent", **given: Any
) -> list[int]:
    """Deliveries that ended so many days ago, with a pixel."""
    (answer,) = await stored(conn, prepared(*recipients, account=account, **{"splice": PIXEL} | given))
    found = await rows(
        conn,
        "update deliveries set state = %s, finished_at = now() - %s * interval '1 day' where message_id = %s::uuid"
        " returning id",
        *(state, days, answer.queue_id),
    )
    return sorted(row[0] for row in found)


async def opened(conn: db.Connection, delivery: int, opener: Opener = Opener.PERSON, account: str = "a") -> None:
    """An open as it is recorded, with what it was opened with, and where."""
    ((fetch,),) = await rows(
        conn,
        "insert into fetches (delivery_id, account_id, method, user_agent, opener, client, country, city)"
        " values (%s, %s, 'GET', '', %s, 'Outlook', 'AT', 'Vienna') returning id",
        *(delivery, account, opener),
    )
    counts = int(opener.counts)
    await conn.execute(
        "insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, first_at, first_fetch)"
        " values (%s, %s, 1, '{}', %s, 1, case when %s = 1 then now() end, case when %s = 1 then %s::bigint end)",
        (delivery, account, counts, counts, counts, fetch),
    )


async def noticed(conn: db.Connection, delivery: int, kind: str = OPENED) -> None:
    await conn.execute("insert into notices (delivery_id, kind, account_id) values (%s, %s, 'a')", (delivery, kind))


async def remind(conn: db.Connection, *, accounts: int = 100, most: int = 500) -> int:
    """Until everything is told; how much that was."""
    told, unfinished = 0, 1
    while unfinished:
        after: str | None = ""
        unfinished = 0
        while after is not None:
            step = await notices.remind(conn, after, accounts=accounts, most=most)
            assert step is not None
            told, unfinished, after = told + step.told, unfinished + step.unfinished, step.after
    return told


async def told(conn: db.Connection, account: str = "a") -> list[int]:
    """Deliveries that an event tells of, in the order of the events."""
    found = await rows(
        conn, "select delivery_id from events where account_id = %s and type = 'messageUnopened' order by id", account
    )
    return [row[0] for row in found]


# -- Notices -----------------------------------------------------------------------------------------------------


async def test_a_notice_comes_with_what_it_tells(conn: db.Connection) -> None:
    await account(conn)
    (delivery,) = await sent(conn, "ann@there.example", days=1, subject="Offer")
    await opened(conn, delivery)
    await noticed(conn, delivery)
    (due,) = await notices.claim(conn, 10, (60.0,))
    assert due.notice is not None
    assert (due.account, due.attempts, due.notice.recipient, due.notice.subject) == (
        "a",
        1,
        "ann@there.example",
        "Offer",
    )
    assert (due.notice.opener, due.notice.client, due.notice.country, due.notice.city) == (
        *(Opener.PERSON, "Outlook"),
        *("AT", "Vienna"),
    )


async def test_a_claimed_notice_is_nobody_elses(conn: db.Connection) -> None:
    await account(conn)
    for delivery in await sent(conn, *(f"p{n}@there.example" for n in range(5)), days=1):
        await noticed(conn, delivery)
    first, second = await notices.claim(conn, 3, (60.0,)), await notices.claim(conn, 3, (60.0,))
    assert (len(first), len(second)) == (3, 2)
    assert not {one.delivery for one in first} & {one.delivery for one in second}


async def test_accounts_share_what_is_claimed(conn: db.Connection) -> None:
    """One has a great many, and had them first."""
    for name in "abc":
        await account(conn, name)
    await conn.execute(
        "insert into notices (delivery_id, kind, account_id, due_at)"
        " select n, 'opened', 'a', now() - interval '1 day' from generate_series(1, 1000) n"
    )
    await conn.execute(
        "insert into notices (delivery_id, kind, account_id) values (2001, 'opened', 'b'), (2002, 'opened', 'c')"
    )
    found = await notices.claim(conn, 10, (60.0,))
    assert Counter(one.account for one in found) == {"a": 3, "b": 1, "c": 1}
    assert len(await notices.claim(conn, 2, (60.0,))) == 2  # fewer than there are accounts


async def test_a_notice_whose_process_died_is_due_again_after_its_wait(conn: db.Connection) -> None:
    await account(conn)
    (delivery,) = await sent(conn, days=1)
    await noticed(conn, delivery)
    waits = []
    for _ in range(3):
        await notices.claim(conn, 10, (60.0, 300.0))
        ((wait,),) = await rows(conn, "select extract(epoch from due_at - now())::int from notices")
        waits.append(wait)
        await conn.execute("update notices set due_at = now()")
    assert waits == [60, 300, 300]
    assert (await notices.claim(conn, 10, (60.0,)))[0].attempts == 4


async def test_what_is_settled_is_gone(conn: db.Connection) -> None:
    await account(conn)
    (delivery,) = await sent(conn, days=1)
    await noticed(conn, delivery, OPENED)
    await noticed(conn, delivery, UNOPENED)
    await notices.settle(conn, [(delivery, OPENED)])
    assert await rows(conn, "select kind from notices") == [(UNOPENED,)]


async def test_of_mail_that_is_gone_nothing_is_told(conn: db.Connection) -> None:
    await account(conn)
    await noticed(conn, 999_999)
    (due,) = await notices.claim(conn, 10, (60.0,))
    assert due.notice is None


async def test_what_was_opened_meanwhile_is_not_told_as_unopened(conn: db.Connection) -> None:
    await account(conn)
    (delivery,) = await sent(conn, days=1)
    await noticed(conn, delivery, UNOPENED)
    await opened(conn, delivery)
    (due,) = await notices.claim(conn, 10, (60.0,))
    assert due.notice is None


@pytest.mark.parametrize(("kind", "told"), [(UNOPENED, False), (OPENED, True)])
@pytest.mark.parametrize("state", ["bounced", "complained"])
async def test_what_came_back_meanwhile_is_not_told_as_unopened(
    conn: db.Connection, state: str, kind: str, told: bool
) -> None:
    await account(conn)
    (delivery,) = await sent(conn, days=1, state=state)
    if kind == OPENED:
        await opened(conn, delivery)
    await noticed(conn, delivery, kind)
    (due,) = await notices.claim(conn, 10, (60.0,))
    assert (due.notice is not None) is told


# -- The reminder ------------------------------------------------------------------------------------------------


async def test_unopened_mail_is_told_with_an_event(conn: db.Connection) -> None:
    await asking(conn)
    (delivery,) = await sent(conn, "ann@there.example", days=3.5)
    assert await remind(conn) == 1
    ((data, message, sent_at),) = await rows(
        conn,
        "select e.data, e.message_id, d.finished_at from events e join deliveries d on d.id = e.delivery_id"
        " where e.type = 'messageUnopened'",
    )
    moment = sent_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert data == {
        "messageId": "<x@example.com>",
        "recipient": "ann@there.example",
        "trackingId": str(delivery),
        "queueId": message.hex,
        "sentAt": moment,
        "days": 3,
    }


async def test_a_notice_stands_beside_the_event_where_mail_is_asked_for(conn: db.Connection) -> None:
    await asking(conn, "a", mail=True)
    await asking(conn, "b", mail=False)
    (with_mail,) = await sent(conn, days=4)
    await sent(conn, days=4, account="b")
    assert await remind(conn) == 2
    assert await rows(conn, "select delivery_id, kind, account_id from notices") == [(with_mail, UNOPENED, "a")]


async def test_it_is_told_once(conn: db.Connection) -> None:
    await asking(conn)
    first = await sent(conn, days=4)
    assert [await remind(conn), await remind(conn)] == [1, 0]
    await conn.execute("update accounts set reminded_until = now() - interval '3.8 days'")  # some time ago
    second = await sent(conn, days=3.5)
    assert [await remind(conn), await remind(conn)] == [1, 0]
    assert await told(conn) == first + second


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"days": 2.9}, "its days are not over"),
        ({"days": 4, "splice": None}, "it has no pixel"),
        ({"days": 4, "state": "failed"}, "it was not sent"),
        ({"days": 4, "state": "bounced"}, "it came back"),
        ({"days": 4, "state": "complained"}, "its recipient wants none of it"),
        ({"days": 31}, "it was there before the account asked"),
    ],
)
async def test_what_is_not_told(conn: db.Connection, given: Any, why: str) -> None:
    await asking(conn)
    await sent(conn, **given)
    assert await remind(conn) == 0, why


@pytest.mark.parametrize(
    ("opener", "expected"),
    [(Opener.PERSON, 0), (Opener.PROXY, 0), (Opener.PREFETCH, 1), (Opener.SCANNER, 1), (Opener.SELF, 1)],
)
async def test_only_somebody_who_looked_has_opened_it(conn: db.Connection, opener: Opener, expected: int) -> None:
    await asking(conn)
    (delivery,) = await sent(conn, days=4)
    await opened(conn, delivery, opener)
    assert await remind(conn) == expected


async def test_an_account_that_does_not_ask_is_told_nothing(conn: db.Connection) -> None:
    await account(conn)
    await conn.execute("update accounts set reminded_until = now() - interval '30 days'")
    await sent(conn, days=4)
    assert await remind(conn) == 0


async def test_many_are_told_in_small_steps(conn: db.Connection) -> None:
    for id in ("a", "b", "c"):
        await asking(conn, id)
        for days in range(4, 14):
            await sent(conn, f"p{days}@there.example", days=days, account=id)
    assert await remind(conn, accounts=2, most=3) == 30
    assert [len(set(await told(conn, id))) for id in ("a", "b", "c")] == [10, 10, 10]


async def test_those_of_one_instant_are_told_together(conn: db.Connection) -> None:
    await asking(conn)
    deliveries = await sent(conn, *(f"p{n}@there.example" for n in range(10)), days=4)
    assert await remind(conn, most=3) == 10
    assert sorted(await told(conn)) == deliveries


async def test_two_at_once_tell_once(pool: db.Pool, conn: db.Connection) -> None:
    await asking(conn)
    deliveries = await sent(conn, *(f"p{n}@there.example" for n in range(50)), days=4)

    async def one() -> None:
        async with db.connection(pool) as other:
            await notices.remind(other, "", accounts=100, most=500)

    await asyncio.gather(*(one() for _ in range(3)))
    assert sorted(await told(conn)) == deliveries


async def test_while_another_is_at_it_nothing_is_done(pool: db.Pool, conn: db.Connection) -> None:
    await asking(conn)
    await sent(conn, days=4)
    async with db.connection(pool) as other, other.transaction():
        await other.execute("select pg_advisory_xact_lock(%s)", (notices.REMINDER_LOCK,))
        assert await notices.remind(conn, "", accounts=100, most=500) is None
    assert await remind(conn) == 1


async def test_quiet_accounts_cost_no_write(conn: db.Connection) -> None:
    await asking(conn, since=3)
    await conn.execute("update accounts set reminded_until = reminded_until - interval '10 minutes'")
    before = await rows(conn, "select xmin::text, reminded_until from accounts")
    await remind(conn)
    assert await rows(conn, "select xmin::text, reminded_until from accounts") == before


async def test_the_mark_of_a_quiet_account_does_not_stay_behind_for_ever(conn: db.Connection) -> None:
    await asking(conn)
    await remind(conn)
    ((behind,),) = await rows(conn, "select now() - interval '3 days' - reminded_until < '1 minute' from accounts")
    assert behind


# -- An account that begins to ask, stops, and asks again ---------------------------------------------------------


@pytest.fixture
def change(pool: db.Pool, settings: Settings) -> Any:
    """Changes settings of account `a` as the API does."""

    async def change(**alerts: Any) -> None:
        vault = Vault(settings.secret_keys)
        await enrol.save(pool, vault, settings, "a", {"tracking": {"alerts": alerts}})

    return change


async def test_who_begins_to_ask_gets_no_past(conn: db.Connection, change: Any) -> None:
    await account(conn)
    await sent(conn, days=3.01)
    (soon,) = await sent(conn, days=2.99)
    await change(unopened=True)
    assert await remind(conn) == 0
    await conn.execute(
        "update accounts set reminded_until = reminded_until - interval '1 hour';"
        "update deliveries set finished_at = finished_at - interval '1 hour'"
    )
    assert await remind(conn) == 1
    assert await told(conn) == [soon]


async def test_who_asks_with_the_first_settings_is_marked_too(conn: db.Connection, change: Any) -> None:
    await change(unopened=True, unopenedDays=5)
    ((right,),) = await rows(
        conn, "select abs(extract(epoch from now() - interval '5 days' - reminded_until)) < 60 from accounts"
    )
    assert right


async def test_off_and_on_tells_nothing_twice_and_nothing_of_the_time_between(conn: db.Connection, change: Any) -> None:
    await asking(conn, since=30)
    first = await sent(conn, days=4)
    assert await remind(conn) == 1
    await change(unopened=False)
    await sent(conn, days=3.5)
    assert await remind(conn) == 0
    await change(unopened=True)
    assert await remind(conn) == 0
    assert await told(conn) == first


async def test_other_days_tell_nothing_twice(conn: db.Connection, change: Any) -> None:
    await asking(conn, days=1)
    both = await sent(conn, days=4) + await sent(conn, days=2)
    assert await remind(conn) == 2
    await change(unopened=False)
    await change(unopened=True, unopenedDays=3)
    assert await remind(conn) == 0
    await change(unopenedDays=1)
    assert await remind(conn) == 0
    assert await told(conn) == both


async def test_an_account_without_a_mark_is_given_one(conn: db.Connection) -> None:
    await asking(conn)
    await conn.execute("update accounts set reminded_until = null")
    await sent(conn, days=4)
    assert await remind(conn) == 0
    assert await rows(conn, "select reminded_until is null from accounts") == [(False,)]


async def test_the_statement_looks_along_indexes(conn: db.Connection) -> None:
    """As it is run; with nothing analysed, and a table to read through would be as quick."""
    given = {"after": "", "accounts": 100, "most": 500}
    async with conn.transaction():
        await conn.execute(notices.ALONG_INDEXES.encode())
        found = await (await conn.execute(f"explain {notices.REMIND}".encode(), given)).fetchall()
    plan = "\n".join(row[0] for row in found)
    assert [name for name in ("accounts_reminded", "deliveries_done", "messages_pkey") if name not in plan] == []
    assert "Seq Scan" not in plan


async def test_several_accounts(conn: db.Connection) -> None:
    await asking(conn, "a")
    await account(conn, "b")
    found = await accounts.several(conn, ["a", "b", "c"])
    assert {id: one.alerts.unopened for id, one in found.items()} == {"a": True, "b": False}
    assert await accounts.several(conn, []) == {}
