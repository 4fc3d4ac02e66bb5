"""What accept commits: all of a message or nothing, one answer each, idempotency by key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from relay.core import packing
from relay.core.errors import Conflict, Refused
from relay.store import db, messages, retention
from tests.store.mail import account, prepared, stored, unreadable


async def test_a_group_is_stored_with_one_delivery_a_recipient(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        one, two = prepared("a@x.example", "b@x.example", bcc=("c@x.example",)), prepared("d@x.example")
        answers = await stored(conn, one, two)
        rows = await (
            await conn.execute("select message_id, recipient, state::text, ready from deliveries order by id")
        ).fetchall()
        bodies = await messages.bodies(conn, [one.id, two.id])
        (bcc,) = await (await conn.execute("select bcc from messages where id = %s", (one.id,))).fetchone() or ()
    assert [answer.queue_id for answer in answers] == [one.queue_id, two.queue_id]
    assert rows == [
        (one.id, "a@x.example", "queued", True),
        (one.id, "b@x.example", "queued", True),
        (two.id, "d@x.example", "queued", True),
    ]
    assert bodies == {one.id: one.content, two.id: two.content}
    assert bcc == ["c@x.example"]


async def test_future_mail_waits_until_its_hour(pool: db.Pool) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    async with db.connection(pool) as conn:
        (answer,) = await stored(conn, prepared(send_at=later), lifetime=60)
        row = await (await conn.execute("select ready, due_at, expires_at from deliveries")).fetchone()
    assert answer.send_at == later
    assert row == (False, later, later + timedelta(seconds=60))


async def test_content_of_any_bytes_comes_back_as_it_went(pool: db.Pool) -> None:
    content = bytes(range(256)) * 5000
    item = prepared(content=content)
    async with db.connection(pool) as conn:
        await stored(conn, item)
        assert (await messages.bodies(conn, [item.id]))[item.id] == content


async def test_bodies_of_before_are_read_as_they_are_beside_packed_ones(pool: db.Pool) -> None:
    old, new = prepared(content=b"Subject: old\r\n\r\nold\r\n"), prepared(content=b"Subject: new\r\n\r\nnew\r\n")
    async with db.connection(pool) as conn:
        await stored(conn, old, new)
        await conn.execute(
            "update bodies set content = %s, packed = null where message_id = %s", (old.content, old.id), binary=True
        )
        assert await messages.bodies(conn, [old.id, new.id]) == {old.id: old.content, new.id: new.content}


async def test_a_body_takes_less_room_than_it_has(pool: db.Pool) -> None:
    """And nothing of it is where a role of before would look: it would send what it cannot read."""
    item = prepared(content=b"Subject: long\r\n\r\n" + b"The same again and again.\r\n" * 400)
    async with db.connection(pool) as conn:
        await stored(conn, item)
        row = await (await conn.execute("select content, length(packed) from bodies")).fetchone()
    assert row is not None
    assert row[0] is None
    assert row[1] < len(item.content) / 10


async def test_very_much_that_packs_to_a_little_is_unpacked_aside(
    pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, aside, to_thread = prepared(content=b"x" * 78 * 10_000), [], asyncio.to_thread

    async def noted(work: Any, given: Any) -> Any:
        aside.append(work)
        return await to_thread(work, given)

    monkeypatch.setattr("asyncio.to_thread", noted)
    async with db.connection(pool) as conn:
        await stored(conn, item)
        assert (await messages.bodies(conn, [item.id]))[item.id] == item.content
    assert aside == [packing.pack, packing.unpack]


@pytest.mark.parametrize(
    "damage",
    [
        "packed = '\\x00'",
        "packed = ''",
        "packed = substr(packed, 1, length(packed) - 1)",
        "packed = packed || 'x'",
        "packed = (select packed from bodies b where b.message_id <> bodies.message_id)",
        "packed = null",
        "packed = null, content = 'Subject: x'",
    ],
)
async def test_a_body_that_is_damaged_is_left_out_and_costs_no_other(pool: db.Pool, damage: str) -> None:
    bad, good = prepared(content=b"Subject: bad\r\n\r\nbad\r\n"), prepared()
    async with db.connection(pool) as conn:
        await stored(conn, bad, good)
        await conn.execute(f"update bodies set {damage} where message_id = %s".encode(), (bad.id,))
        assert await messages.bodies(conn, [bad.id, good.id]) == {good.id: good.content}


async def test_a_body_that_postgresql_cannot_read_costs_no_other(pool: db.Pool) -> None:
    bad, good = prepared(), prepared()
    async with db.connection(pool) as conn:
        await stored(conn, bad, good)
        await unreadable(conn, bad.id)
        assert await messages.bodies(conn, [bad.id, good.id]) == {good.id: good.content}


@pytest.mark.parametrize("subject", ["nul \x00 inside", "half a character \ud800"])
async def test_what_cannot_be_stored_costs_its_own_sender_alone(pool: db.Pool, subject: str) -> None:
    good, bad = prepared(), prepared(subject=subject)
    async with db.connection(pool) as conn:
        await account(conn)
        answers = await messages.insert(conn, [good, bad], attempts=3, lifetime=60)
        count = await (await conn.execute("select count(*) from messages")).fetchone()
    assert isinstance(answers[1], Refused)
    assert not isinstance(answers[0], Exception)
    assert count == (1,)


async def test_mail_of_an_account_that_was_removed_meanwhile_is_refused_and_others_is_stored(pool: db.Pool) -> None:
    batch = [prepared(), prepared(account="gone"), prepared(account="gone", idempotency_key="k", body_hash=b"1")]
    async with db.connection(pool) as conn:
        await account(conn)
        answers = await messages.insert(conn, batch, attempts=3, lifetime=60)
        count = await (
            await conn.execute("select (select count(*) from messages), count(*) from idempotency")
        ).fetchone()
    assert [getattr(answer, "code", None) for answer in answers] == [None, *["AccountNotFound"] * 2]
    assert count == (1, 0)


async def test_a_group_given_again_of_which_something_cannot_be_stored(pool: db.Pool) -> None:
    one, bad, two = prepared(), prepared(subject="nul \x00 inside"), prepared()
    async with db.connection(pool) as conn:
        (first,) = await stored(conn, one)
        answers = await messages.insert(conn, [one, bad, two], attempts=3, lifetime=60)
    assert answers[0] == first
    assert isinstance(answers[1], Refused)
    assert not isinstance(answers[2], Exception)


async def test_a_keyed_message_whose_answer_was_lost_is_no_duplicate_of_itself(pool: db.Pool) -> None:
    keyed = prepared(idempotency_key="k", body_hash=b"1")
    async with db.connection(pool) as conn:
        await stored(conn, keyed)
        (again,) = await stored(conn, keyed)
        (other,) = await stored(conn, prepared(idempotency_key="k", body_hash=b"1"))
    assert (again.duplicate, other.duplicate) == (False, True)


async def test_a_group_given_again_is_stored_once_and_answered_the_same(pool: db.Pool) -> None:
    one, two, keyed = prepared(), prepared(), prepared(idempotency_key="k", body_hash=b"1")
    async with db.connection(pool) as conn:
        (first,) = await stored(conn, one)
        again = await stored(conn, one, two, keyed)
        once_more = await stored(conn, keyed)
        count = await (await conn.execute("select count(*), count(distinct message_id) from deliveries")).fetchone()
    assert again[0] == first
    assert once_more[0].queue_id == keyed.queue_id
    assert count == (3, 3)


async def test_the_same_key_and_body_give_the_first_answer(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        (first,) = await stored(conn, prepared(idempotency_key="k", body_hash=b"1"))
        (again,) = await stored(conn, prepared(idempotency_key="k", body_hash=b"1"))
        count = await (await conn.execute("select count(*) from messages")).fetchone()
    assert (again.queue_id, again.duplicate, count) == (first.queue_id, True, (1,))


async def test_the_same_key_and_another_body_is_a_conflict_beside_others_that_are_stored(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await stored(conn, prepared(idempotency_key="k", body_hash=b"1"))
        other = prepared()
        answers = await messages.insert(
            conn, [prepared(idempotency_key="k", body_hash=b"2"), other], attempts=3, lifetime=60
        )
    assert isinstance(answers[0], Conflict)
    assert not isinstance(answers[1], Exception)


async def test_keys_of_two_accounts_are_strangers(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await stored(conn, prepared(account="a", idempotency_key="k", body_hash=b"1"))
        (answer,) = await stored(conn, prepared(account="b", idempotency_key="k", body_hash=b"2"))
    assert not answer.duplicate


async def test_a_key_may_be_used_anew_after_a_day(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await stored(conn, prepared(idempotency_key="k", body_hash=b"1"))
        await conn.execute("update idempotency set stored_at = now() - interval '25 hours'")
        (answer,) = await stored(conn, prepared(idempotency_key="k", body_hash=b"2"))
    assert not answer.duplicate


async def test_old_mail_leaves_whole_and_young_or_unfinished_mail_stays(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        done, young, waiting = prepared(), prepared(), prepared()
        await stored(conn, done, young, waiting)
        await conn.execute(
            "update deliveries set state = 'sent', finished_at = now() where message_id = %s", (young.id,)
        )
        await conn.execute(
            "update deliveries set state = 'sent', finished_at = now() - interval '9 days' where message_id = %s",
            (done.id,),
        )
        # Ids carry their time, so a message is made old by giving it an old one.
        for item in (done, young, waiting):
            old = psycopg.sql.Literal(str(item.id).replace(str(item.id)[:8], "00000000"))
            for table, column in (("messages", "id"), ("bodies", "message_id"), ("deliveries", "message_id")):
                await conn.execute(
                    psycopg.sql.SQL("update {} set {} = {} where {} = {}").format(
                        psycopg.sql.Identifier(table),
                        psycopg.sql.Identifier(column),
                        old,
                        psycopg.sql.Identifier(column),
                        psycopg.sql.Literal(item.id),
                    )
                )
        gone = await retention.purge(conn, 7)
        left = await (await conn.execute("select count(*) from bodies")).fetchone()
    assert (gone.messages, gone.more, left) == (1, False, (2,))
