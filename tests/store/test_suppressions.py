"""Suppressions in the store: whose, why, since when, and which reason goes before another."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from relay.core.model import Accepted, Prepared, Reason, Suppressed
from relay.core.suppression import AllSuppressed
from relay.store import accounts, db, messages, suppressions
from relay.store.suppressions import Filter, Suppression
from tests.store.mail import account, prepared, stored
from tests.store.test_rollups import differences

BOUNCE = Suppression("Ada@Example.com", "bounce", "550 5.1.1 No such user", delivery_id=7)


async def reasons(conn: db.Connection, whose: str = "a") -> dict[str, str]:
    _, found = await suppressions.page(conn, Filter(whose), after=None, skip=0, size=1000)
    return {one.address: one.reason for one in found}


async def test_an_address_is_suppressed_whatever_its_spelling(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        assert await suppressions.add(conn, "a", [BOUNCE]) == 1
        found = await suppressions.among(conn, [("a", "ADA@example.COM"), ("a", "bob@example.com")])
    assert list(found) == [("a", "ADA@example.COM")]
    one = found["a", "ADA@example.COM"]
    assert (one.address, one.reason, one.detail, one.delivery_id) == (
        *("ada@example.com", "bounce", "550 5.1.1 No such user"),
        7,
    )


async def test_a_domain_is_suppressed_in_both_of_its_forms(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await suppressions.add(conn, "a", [Suppression("Ada@BÜCHER.example", "manual")])
        assert await suppressions.among(conn, [("a", "ada@xn--bcher-kva.example")])
        for search in ("ada@bücher.example", "ADA@Bücher.example", "ada@xn--bch", "ada@"):
            assert await suppressions.page(conn, Filter(search=search), after=None, skip=0, size=0) == (1, [])
        assert await suppressions.lift(conn, "a", "ada@bücher.example")


async def test_an_address_is_suppressed_for_one_account_alone(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await account(conn, "b")
        await suppressions.add(conn, "a", [BOUNCE])
        assert await suppressions.among(conn, [("b", "ada@example.com")]) == {}
        assert not await suppressions.lift(conn, "b", "ada@example.com")
        assert await reasons(conn, "b") == {}


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        ("bounce", "complaint", "complaint"),
        ("bounce", "unsubscribe", "unsubscribe"),
        ("bounce", "manual", "bounce"),
        ("complaint", "bounce", "complaint"),
        ("complaint", "unsubscribe", "complaint"),
        ("manual", "complaint", "manual"),
        ("unsubscribe", "complaint", "unsubscribe"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_which_reason_stays(pool: db.Pool, first: Reason, second: Reason, stays: Reason, together: bool) -> None:
    items = [Suppression("ada@example.com", first), Suppression("ADA@example.com", second)]
    async with db.connection(pool) as conn:
        await account(conn, "a")
        for group in [items] if together else [[item] for item in items]:
            await suppressions.add(conn, "a", group)
        assert await reasons(conn) == {"ada@example.com": stays}


async def test_what_was_suppressed_before_is_not_counted_again_and_keeps_its_time(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await suppressions.add(conn, "a", [BOUNCE])
        before = await suppressions.among(conn, [("a", "ada@example.com")])
        assert await suppressions.add(conn, "a", [Suppression("ada@example.com", "complaint")]) == 0
        after = await suppressions.among(conn, [("a", "ada@example.com")])
    assert [one.created_at for one in before.values()] == [one.created_at for one in after.values()]


async def test_the_account_is_told_to_ask_from_the_first_one_on(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await account(conn, "b")
        await suppressions.add(conn, "a", [])
        assert not (await accounts.several(conn, ["a"]))["a"].suppresses
        await suppressions.add(conn, "a", [BOUNCE])
        found = await accounts.several(conn, ["a", "b"])
    assert (found["a"].suppresses, found["b"].suppresses) == (True, False)


async def test_an_account_that_is_not_there_suppresses_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        with pytest.raises(LookupError):
            await suppressions.add(conn, "none", [BOUNCE])


async def test_what_others_wrote_is_kept_harmless(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        detail = "550\r\n\x00\x1b[31m5.1.1 \ud800 no\u2028such user " + "x" * 10_000
        await suppressions.add(conn, "a", [Suppression("ada@example.com", "bounce", detail)])
        (one,) = (await suppressions.among(conn, [("a", "ada@example.com")])).values()
    assert one.detail.startswith("550 [31m5.1.1 ? no such user x")
    assert len(one.detail) == suppressions.LONGEST_DETAIL


async def test_lifting(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await suppressions.add(conn, "a", [BOUNCE])
        assert await suppressions.lift(conn, "a", "ADA@example.com")
        assert not await suppressions.lift(conn, "a", "ada@example.com")
        assert await suppressions.among(conn, [("a", "ada@example.com")]) == {}


async def listed(conn: db.Connection, wanted: Filter, size: int) -> list[tuple[str, str]]:
    """The whole list, page by page behind the one before."""
    found: list[tuple[str, str]] = []
    after: suppressions.Mark | None = None
    while True:
        _, items = await suppressions.page(conn, wanted, after=after, skip=0, size=size, count=False)
        found += [(one.account, one.address) for one in items]
        if len(items) < size:
            return found
        assert items[-1].created_at is not None
        after = (items[-1].account, items[-1].created_at, items[-1].address)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), ["a:e", "a:c", "a:d", "a:b1", "a:b2", "b:a", "b:b3"]),
        (Filter("a"), ["a:e", "a:c", "a:d", "a:b1", "a:b2"]),
        (Filter("a", "manual"), ["a:c", "a:b2"]),
        (Filter(reason="bounce"), ["a:e", "a:d", "a:b1", "b:a", "b:b3"]),
        (Filter(search="B"), ["a:b1", "a:b2", "b:b3"]),
        (Filter("a", "bounce", "b"), ["a:b1"]),
        (Filter(search="%"), []),
        (Filter("none"), []),
    ],
)
async def test_the_list_by_pages(pool: db.Pool, wanted: Filter, expected: list[str], size: int) -> None:
    async with db.connection(pool) as conn:
        for whose in "ab":
            await account(conn, whose)
        rows = [
            *(("a", "b1", "bounce", 1), ("a", "b2", "manual", 1), ("a", "c", "manual", 2), ("a", "d", "bounce", 2)),
            *(("a", "e", "bounce", 9), ("b", "a", "bounce", 9), ("b", "b3", "bounce", 1)),
        ]
        for whose, address, reason, hour in rows:
            at = datetime.fromisoformat(f"2026-11-20T{hour:02}:00:00Z")
            await conn.execute(
                "insert into suppressions (account_id, address, reason, created_at) values (%s, %s, %s, %s)",
                (whose, address, reason, at),
            )
        total, _ = await suppressions.page(conn, wanted, after=None, skip=0, size=1)
        found = await listed(conn, wanted, size)
    assert [f"{whose}:{address}" for whose, address in found] == expected
    assert total == len(expected)


# ---- what accept stores of them

SINCE = datetime(2026, 11, 20, tzinfo=UTC)


def skipping(*recipients: str, skipped: int = 1, **given: str) -> Prepared:
    """A message whose first `skipped` recipients are suppressed."""
    them = tuple(Suppressed(one, "bounce", SINCE, "550 no") for one in recipients[:skipped])
    return replace(prepared(*recipients, **given), suppressed=them)


async def states(conn: db.Connection) -> dict[str, str]:
    return dict(await (await conn.execute("select recipient, state::text from deliveries")).fetchall())


async def test_the_sums_hold_what_was_skipped(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, skipping("ada@e.example", "bob@e.example"), prepared("ada@e.example"))
        assert await differences(conn) == []
        cursor = await conn.execute("select sum(failed)::int from tallies where account_id = 'a'")
        assert await cursor.fetchone() == (1,)


async def test_a_group_holds_messages_of_every_kind(pool: db.Pool) -> None:
    """Given one to nobody, one to some, one with a key and one that is plain, each gets its own answer."""
    batch = [
        skipping("ada@e.example"),
        skipping("ada@e.example", "bob@e.example"),
        skipping("ada@e.example", "kim@e.example", idempotency_key="k"),
        prepared("eve@e.example"),
    ]
    async with db.connection(pool) as conn:
        await account(conn)
        answers = await messages.insert(conn, batch, attempts=3, lifetime=60)
        assert isinstance(answers[0], AllSuppressed)
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        assert [answer.queue_id for answer in accepted] == [item.queue_id for item in batch[1:]]
        assert [len(answer.suppressed) for answer in accepted] == [1, 1, 0]
        cursor = await conn.execute("select message_id, count(*) from deliveries group by 1")
        counts = dict(await cursor.fetchall())
    assert counts == {item.id: len(item.recipients) for item in batch[1:]}


async def test_a_group_whose_answer_was_lost_is_stored_once(pool: db.Pool) -> None:
    batch = [skipping("ada@e.example", "bob@e.example"), skipping("ada@e.example", "eve@e.example")]
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, batch[0])
        answers = await messages.insert(conn, batch, attempts=3, lifetime=60)
        assert [isinstance(answer, Accepted) and len(answer.suppressed) for answer in answers] == [1, 1]
        cursor = await conn.execute("select count(*), count(*) filter (where state = 'failed') from deliveries")
        assert await cursor.fetchone() == (4, 2)


async def test_what_cannot_be_stored_leaves_nothing_of_those_it_skipped(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (bad,) = await messages.insert(
            conn, [skipping("ada@e.example", "bob@e.example", subject="\x00")], attempts=3, lifetime=60
        )
        assert isinstance(bad, Exception)
        assert await states(conn) == {}
