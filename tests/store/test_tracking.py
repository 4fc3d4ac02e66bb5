"""Records are found in order, page by page, within bounds that the answer tells of; and only those of the account."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.core.errors import Refused
from relay.core.model import Opener
from relay.store import db, opens, search, tracking
from relay.store.opens import Open
from relay.store.search import Filter, Found, find
from tests.store.mail import account, prepared, stored

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
FETCH = Open(0, 1, BEGAN, "GET", "192.0.2.7", "Reader/1", Opener.PERSON, "Reader", "It reads.", "DE", "Berlin", False)


async def done(conn: db.Connection, *recipients: str, state: str = "sent", **options: Any) -> list[int]:
    """Deliveries with an outcome, each a minute after the one before it."""
    (answer,) = await stored(conn, prepared(*recipients, **options))
    cursor = await conn.execute(
        "update deliveries d set state = %s, code = 250, reply = 'Ok: queued as 4F2D41A0B3',"
        " finished_at = %s + id * interval '1 minute' where message_id = %s::uuid returning id",
        (state, BEGAN, answer.queue_id),
    )
    return sorted([row[0] for row in await cursor.fetchall()])


async def ids(conn: db.Connection, size: int = 100, **wanted: Any) -> list[int]:
    return list((await find(conn, Filter("a", **wanted), size=size)).ids)


async def pages(conn: db.Connection, wanted: Filter, size: int) -> list[Found]:
    """The whole list, by cursor."""
    found = [await find(conn, wanted, size=size)]
    while found[-1].more:
        found.append(await find(conn, wanted, after=found[-1].more, size=size, count=False))
    return found


@pytest.fixture
async def conn(pool: db.Pool) -> Any:
    async with db.connection(pool) as conn:
        await account(conn)
        yield conn


async def test_a_list_goes_on_by_cursor_to_its_end(conn: db.Connection) -> None:
    made = await done(conn, *(f"r{number}@example.com" for number in range(7)))
    found = await pages(conn, Filter("a"), 3)
    assert [list(page.ids) for page in found] == [made[:3:-1], made[3:0:-1], made[:1]]
    assert (found[0].total, found[0].at_least, found[1].total) == (7, False, None)


async def test_a_page_number_skips(conn: db.Connection) -> None:
    made = await done(conn, *(f"r{number}@example.com" for number in range(7)))
    assert list((await find(conn, Filter("a"), skip=4, size=2)).ids) == [made[2], made[1]]


async def test_of_one_instant_the_later_id_comes_first(conn: db.Connection) -> None:
    made = await done(conn, *(f"r{number}@example.com" for number in range(5)))
    await conn.execute("update deliveries set finished_at = %s", (BEGAN,))
    assert [id for page in await pages(conn, Filter("a"), 2) for id in page.ids] == made[::-1]


async def test_what_waits_and_what_is_anothers_is_not_there(conn: db.Connection) -> None:
    await account(conn, "b")
    await stored(conn, prepared())
    await done(conn, account="b")
    mine = await done(conn)
    assert await ids(conn) == mine
    assert await tracking.records(conn, "b", mine, machine=False) == []


async def test_each_filter_narrows(conn: db.Connection) -> None:
    """Given a record that each filter finds among others, when it is asked for, then it alone comes."""
    (plain,) = await done(conn, "plain@example.com", subject="Nothing")
    (failed,) = await done(conn, "failed@example.com", state="failed")
    (typed,) = await done(conn, "Typed@Example.com", email_type="invoice")
    (ticket,) = await done(conn, "ticket@example.com", reference_type="ticket", reference_id="17")
    assert await ids(conn, status="failed") == [failed]
    assert await ids(conn, status="sent") == [ticket, typed, plain]
    assert await ids(conn, email_type="invoice") == [typed]
    assert await ids(conn, recipient="tYPED@example.com") == [typed]
    assert await ids(conn, reference_id="17") == [ticket]
    assert await ids(conn, reference_type="ticket") == [ticket]
    assert await ids(conn, reference_id="17", reference_type="order") == []
    assert await ids(conn, words=("nothing",)) == [plain]


async def test_days_count_back_from_now(conn: db.Connection) -> None:
    old, new = await done(conn, "old@example.com", "new@example.com")
    await conn.execute("update deliveries set finished_at = now() - interval '25 hours' where id = %s", (old,))
    await conn.execute("update deliveries set finished_at = now() - interval '23 hours' where id = %s", (new,))
    assert await ids(conn, days=1) == [new]
    assert await ids(conn, days=2) == [new, old]


async def test_machines_open_only_where_they_are_asked_for(conn: db.Connection) -> None:
    read, fetched, looked, untouched = await done(conn, *(f"r{number}@example.com" for number in range(4)))
    batch = [(read, Opener.PERSON), (fetched, Opener.PREFETCH), (looked, Opener.SELF)]
    await opens.record(conn, [replace(FETCH, delivery=delivery, opener=opener) for delivery, opener in batch])
    assert await ids(conn, opened=True) == [read]
    assert await ids(conn, opened=True, machine=True) == [fetched, read]
    assert await ids(conn, opened=False) == [untouched, looked, fetched]
    assert await ids(conn, opened=False, machine=True) == [untouched, looked]
    (person, machine) = [
        (await tracking.records(conn, "a", [fetched], machine=machine))[0] for machine in (False, True)
    ]
    assert (person.opens, person.first_opener) == (0, None)
    assert (machine.opens, machine.first_opener) == (1, "prefetch")


async def test_pins_narrow_both_ways(conn: db.Connection) -> None:
    first, second, third = await done(conn, *(f"r{number}@example.com" for number in range(3)))
    await tracking.annotate(conn, "a", first, pinned=True, notes=None)
    await tracking.annotate(conn, "a", second, pinned=None, notes="only a note")
    assert await ids(conn, pinned=True) == [first]
    assert await ids(conn, pinned=False) == [third, second]


async def test_notes_and_pins_are_written_apart(conn: db.Connection) -> None:
    (one,) = await done(conn)
    assert await tracking.annotate(conn, "a", one, pinned=True, notes=None)
    assert await tracking.annotate(conn, "a", one, pinned=None, notes="called them")
    (record,) = await tracking.records(conn, "a", [one], machine=False)
    assert (record.pinned, record.notes) == (True, "called them")
    assert await tracking.annotate(conn, "a", one, pinned=False, notes="")
    (record,) = await tracking.records(conn, "a", [one], machine=False)
    assert (record.pinned, record.notes) == (False, "")


async def test_nothing_is_noted_about_what_is_anothers(conn: db.Connection) -> None:
    (one,) = await done(conn)
    assert not await tracking.annotate(conn, "b", one, pinned=True, notes=None)
    cursor = await conn.execute("select * from notes")
    assert await cursor.fetchall() == []


# -- search ----------------------------------------------------------------------------------------------------------


async def test_all_words_must_be_found_as_they_are(conn: db.Connection) -> None:
    subject = "Invoice 4711 for Jörg MÜLLER, 50% off a_b back\\slash"
    made = await done(conn, "someone@reader.example", subject=subject, email_type="reminder", reference_id="Case-17")
    for words in ("müller", "INVOICE 4711", "50%", "a_b", "back\\slash", "reminder", "case-17", "someone@reader"):
        assert await ids(conn, words=tuple(words.split())) == made, words
    for words in ("<x@example.com>", "x@example.com"):  # the whole Message-ID
        assert await ids(conn, words=(words,)) == made, words
    for words in ("invoice order", "5%0", "a.b", "back/slash", "x@example.co"):
        assert await ids(conn, words=tuple(words.split())) == [], words


async def test_a_search_looks_at_a_bounded_number_and_tells(
    conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one match behind twelve others, when five are looked at a call, then the third call finds it."""
    monkeypatch.setattr(search, "WINDOW", 5)
    monkeypatch.setattr(search, "DENSE", 0)
    (hidden,) = await done(conn, "needle@example.com")
    others = await done(conn, *(f"r{number}@example.com" for number in range(12)))
    found = await pages(conn, Filter("a", words=("needle",)), 2)
    assert [list(page.ids) for page in found] == [[], [], [hidden]]
    edge = [BEGAN + timedelta(minutes=minute) for minute in (others[-5], others[-10])]
    assert [page.back_to for page in found] == [*edge, None]
    assert (found[0].total, found[0].at_least) == (0, True)


async def test_a_page_number_reaches_over_the_edge_of_the_window(
    conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given matches that the window does not hold, when a page skips them all, then the cursor skips the rest."""
    monkeypatch.setattr(search, "WINDOW", 4)
    monkeypatch.setattr(search, "DENSE", 0)
    made = await done(conn, *(f"r{number}@example.com" for number in range(10)), subject="word")
    first = await find(conn, Filter("a", words=("word",)), skip=6, size=2)
    assert list(first.ids) == []
    assert first.more
    second = await find(conn, Filter("a", words=("word",)), after=first.more, size=2, count=False)
    assert list(second.ids) == [made[3], made[2]]


async def test_a_page_number_widens_the_window(conn: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "WINDOW", 4)
    made = await done(conn, *(f"r{number}@example.com" for number in range(10)), subject="word")
    assert list((await find(conn, Filter("a", words=("word",)), skip=6, size=2)).ids) == [made[3], made[2]]


async def test_references_are_found_however_far_back(conn: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a window that holds three rows, when one of a reference lies behind ten, then it is found at once."""
    monkeypatch.setattr(search, "WINDOW", 3)
    hidden = await done(conn, "needle@example.com", reference_id="17")
    await done(conn, *(f"r{number}@example.com" for number in range(10)))
    found = await find(conn, Filter("a", reference_id="17"), size=2)
    assert (list(found.ids), found.total, found.at_least, found.back_to) == (hidden, 1, False, None)


async def test_what_is_slow_is_refused_and_not_waited_for(
    pool: db.Pool, conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given messages that cannot be read now, when they are searched, then the caller is told, as of a busy store."""
    await done(conn)
    async with db.connection(pool) as other, other.transaction():
        await other.execute("lock table messages in access exclusive mode")
        with monkeypatch.context() as hasty:
            hasty.setattr(search, "SECONDS", 0.05)
            with pytest.raises(Refused) as refused:
                await find(conn, Filter("a", words=("word",)), size=2)
        assert (refused.value.status, refused.value.code) == (503, "TooSlow")
        assert len((await find(conn, Filter("a"), size=2)).ids) == 1  # what an index knows is there all the same
    assert (await (await conn.execute("show statement_timeout")).fetchone()) == ("0",)


async def test_a_page_too_far_down_is_refused(conn: db.Connection) -> None:
    with pytest.raises(Refused, match="cursor"):
        await find(conn, Filter("a"), skip=search.DEEPEST + 1, size=20)


# -- totals ----------------------------------------------------------------------------------------------------------


async def tally(conn: db.Connection, day: int, email_type: str, sent: int, failed: int = 0) -> None:
    await conn.execute(
        "insert into tallies (account_id, quarter, email_type, sent, failed) values ('a', %s, %s, %s, %s)",
        (BEGAN + timedelta(days=day), email_type, sent, failed),
    )


async def test_many_are_told_by_the_sums_of_what_is_left(conn: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more than are counted, when the list is begun, then the sums tell, but for mail that retention took."""
    monkeypatch.setattr(search, "COUNTED", 2)
    await done(conn, *(f"r{number}@example.com" for number in range(3)), email_type="invoice")
    await tally(conn, -1, "invoice", 1000)
    await tally(conn, 0, "invoice", 40, 2)
    await tally(conn, 1, "", 58)
    totals = [await find(conn, Filter("a", **wanted), size=1) for wanted in ({}, {"status": "sent"}, {"days": 3650})]
    assert [(found.total, found.at_least) for found in totals] == [(100, False), (98, False), (100, False)]


async def test_a_type_that_the_window_does_not_hold_is_told_by_the_sums(
    conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", 2)
    monkeypatch.setattr(search, "DENSE", 0)
    await done(conn, *(f"r{number}@example.com" for number in range(3)), email_type="invoice")
    await tally(conn, 0, "invoice", 40, 2)
    await tally(conn, 0, "order", 7)
    found = await find(conn, Filter("a", email_type="invoice"), size=1)
    assert (found.total, found.at_least) == (42, False)


async def test_what_the_sums_do_not_know_is_counted_up_to_a_bound(
    conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "COUNTED", 2)
    await done(conn, *(f"r{number}@example.com" for number in range(3)), subject="word")
    assert [
        ((found := await find(conn, Filter("a", **wanted), size=1)).total, found.at_least)
        for wanted in ({"words": ("word",)}, {"opened": False}, {"words": ("r1@",)})
    ] == [(2, True), (2, True), (1, False)]


# -- recent opens ----------------------------------------------------------------------------------------------------


async def test_recent_opens_go_on_by_cursor_and_within_bounds(
    conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a person's fetch behind six of machines, when four are looked at a call, then the second call finds it."""
    monkeypatch.setattr(tracking, "WINDOW", 4)
    (one,) = await done(conn)
    openers = [Opener.PERSON, *[Opener.PREFETCH] * 6]
    await opens.record(
        conn,
        [
            replace(FETCH, delivery=one, place=place, opener=opener, at=BEGAN + timedelta(minutes=place))
            for place, opener in enumerate(openers, 1)
        ],
    )
    found, more, back_to = await tracking.recent(conn, "a", [Opener.PERSON], after=None, size=5)
    assert (found, back_to) == ([], BEGAN + timedelta(minutes=4))
    found, more, back_to = await tracking.recent(conn, "a", [Opener.PERSON], after=more, size=5)
    assert ([(each.delivery, each.opener) for each in found], more, back_to) == ([(one, "person")], None, None)


async def test_recent_opens_of_another_are_not_there(conn: db.Connection) -> None:
    (one,) = await done(conn)
    await opens.record(conn, [replace(FETCH, delivery=one)])
    assert await tracking.recent(conn, "b", [Opener.PERSON], after=None, size=5) == ([], None, None)
    assert len((await tracking.recent(conn, None, [Opener.PERSON], after=None, size=5))[0]) == 1
