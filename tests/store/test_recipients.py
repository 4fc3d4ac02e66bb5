"""Recipients in every order and to the last of them; silence that is told from facts; looks in the zone's own time."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay.core import score
from relay.core.errors import Refused
from relay.core.model import Opener, Splice
from relay.store import db, opens, recipients, roster
from relay.store.opens import Open
from relay.store.roster import Filter, Mark
from relay.store.statistics import Span
from tests.store.mail import account, prepared, stored

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PIXEL = Splice(0, 0, "7bit", "utf-8")


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


async def person(conn: db.Connection, address: str, of: str = "a", **given: Any) -> None:
    """A row of `recipients`; its mail was sent ten days ago, unless said."""
    row = {"account_id": of, "address": address, "first_sent_at": ago(days=10), "last_sent_at": ago(days=10), **given}
    names = ", ".join(row)
    places = ", ".join(f"%({name})s" for name in row)
    await conn.execute(f"insert into recipients ({names}) values ({places})".encode(), row)


async def walk(conn: db.Connection, wanted: Filter, sort: str, size: int = 3) -> list[str]:
    """Every page by cursor, from the first to the last."""
    found: list[str] = []
    after: Mark | int | None = None
    for _ in range(100):
        mark, skip = (None, after) if isinstance(after, int) else (after, 0)
        page = await roster.page(conn, wanted, sort, after=mark, skip=skip, size=size, count=after is None)
        found += [one.address for one in page.items]
        after = page.more
        if after is None:
            return found
    raise AssertionError("the list does not end")


async def addresses(conn: db.Connection, sort: str = "last_sent", size: int = 20, skip: int = 0, **given: Any) -> Any:
    page = await roster.page(conn, Filter(NOW, **given), sort, after=None, skip=skip, size=size, count=True)
    return [one.address for one in page.items], page.total, page.at_least


async def several(conn: db.Connection) -> None:
    """Eleven recipients of two accounts; some were sent nothing, some at the same instant."""
    for id in ("a", "b"):
        await account(conn, id)
    for number in range(8):
        await person(conn, f"p{number}@x", last_sent_at=ago(days=number // 2), sent=number)
    await person(conn, "never@x", last_sent_at=None, first_sent_at=None, failed=1)
    await person(conn, "nor@x", last_sent_at=None, first_sent_at=None, failed=1)
    await person(conn, "p0@x", of="b", last_sent_at=ago(days=1.5))


async def test_who_was_written_to_last_comes_first_page_by_page(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await several(conn)
        mine = ["p1@x", "p0@x", "p3@x", "p2@x", "p5@x", "p4@x", "p7@x", "p6@x", "nor@x", "never@x"]
        assert await walk(conn, Filter(NOW, "a"), "last_sent") == mine
        everybodys = ["p1@x", "p0@x", "p3@x", "p2@x", "p0@x", *mine[4:]]
        assert await walk(conn, Filter(NOW), "last_sent") == everybodys
        assert (await addresses(conn, account="a", size=3, skip=3))[0] == mine[3:6]
        assert (await addresses(conn, size=3, skip=3))[0] == everybodys[3:6]


async def test_by_address_page_by_page(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await several(conn)
        mine = ["never@x", "nor@x", *(f"p{number}@x" for number in range(8))]
        assert await walk(conn, Filter(NOW, "a"), "address") == mine
        assert await walk(conn, Filter(NOW), "address") == [*mine, "p0@x"]
        assert await addresses(conn, "address", account="a", size=3, skip=9) == (["p7@x"], 10, False)


async def test_ranked_page_by_page(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await several(conn)
        ranked = await walk(conn, Filter(NOW, "a"), "sent")
        assert ranked[:8] == [f"p{number}@x" for number in (7, 6, 5, 4, 3, 2, 1, 0)]
        assert len(ranked) == 10
        assert await addresses(conn, "sent", account="a", size=2) == (["p7@x", "p6@x"], 10, False)


async def test_a_rate_of_nothing_comes_last(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await person(conn, "none@x", sent=5)
        await person(conn, "half@x", sent=4, tracked=4, opened=2)
        await person(conn, "zero@x", sent=4, tracked=4, any_opened=4)
        assert await walk(conn, Filter(NOW, "a"), "open_rate") == ["half@x", "zero@x", "none@x"]
        assert await walk(conn, Filter(NOW, "a", machine=True), "open_rate") == ["zero@x", "half@x", "none@x"]


@pytest.mark.parametrize("machine", [False, True])
async def test_the_ranking_by_engagement_is_the_scores(pool: db.Pool, machine: bool) -> None:
    """Given people of every kind, then SQL ranks them as score.engagement does."""
    rng = random.Random(7)
    async with db.connection(pool) as conn:
        await account(conn)
        for number in range(150):
            sent = rng.randrange(0, 30)
            tracked = rng.randrange(0, sent + 1)
            any_opened = rng.randrange(0, tracked + 1)
            opened = rng.randrange(0, any_opened + 1)
            await person(
                conn,
                f"p{number}@x",
                sent=sent,
                tracked=tracked,
                opened=opened,
                any_opened=any_opened,
                opens=opened * rng.randrange(1, 5),
                any_opens=any_opened * rng.randrange(1, 5),
                failed=rng.choice([0, 0, 1, 5]),
                bounced=rng.randrange(0, 2) if sent else 0,
                last_opened_at=ago(days=rng.random() * 300) if opened else None,
                any_last_opened_at=ago(days=rng.random() * 300) if any_opened else None,
            )
        wanted = Filter(NOW, "a", machine=machine)
        page = await roster.page(conn, wanted, "engagement", after=None, skip=0, size=200, count=True)
        points = [score.engagement(one.figures(machine), NOW) for one in page.items]
        assert len(set(points)) > 20
        assert points == sorted(points, key=lambda point: -1 if point is None else point, reverse=True)


async def test_words_are_found_in_addresses_and_names_whatever_their_case(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await person(conn, "ada@x", name="Ada Löve", last_sent_at=ago(days=1))
        await person(conn, "bob@lovely", last_sent_at=ago(days=2))
        await person(conn, "eve@x", name="100% _")
        assert await addresses(conn, search="LÖVE") == (["ada@x"], 1, False)
        assert await addresses(conn, search="lovel") == (["bob@lovely"], 1, False)
        assert await addresses(conn, search="% _") == (["eve@x"], 1, False)
        assert await addresses(conn, search="ada%") == ([], 0, False)


async def test_a_whole_address_is_found_wherever_it_is(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more recipients than one call looks at, when a whole address is sought, then an index finds it."""
    monkeypatch.setattr(roster, "WINDOW", 2)
    async with db.connection(pool) as conn:
        await several(conn)
        await person(conn, "deep@x", last_sent_at=ago(days=300))
        assert await addresses(conn, account="a", search="Deep@X", size=1) == (["deep@x"], 1, False)
        assert await addresses(conn, "engagement", search="p0@x") == (["p0@x", "p0@x"], 2, False)


@pytest.mark.parametrize("sort", ["last_sent", "address", "engagement"])
async def test_a_whole_address_that_many_accounts_wrote_to_is_found_to_the_last(pool: db.Pool, sort: str) -> None:
    async with db.connection(pool) as conn:
        for number in range(7):
            await account(conn, f"a{number}")
            await person(conn, "ada@x", of=f"a{number}", last_sent_at=ago(days=number))
            await person(conn, "nada@x", of=f"a{number}")
        assert await walk(conn, Filter(NOW, search="Ada@x"), sort) == ["ada@x"] * 7


@pytest.mark.parametrize("sort", ["last_sent", "address"])
async def test_a_search_goes_on_where_its_window_ended(
    pool: db.Pool, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setattr(roster, "WINDOW", 2)
    async with db.connection(pool) as conn:
        await several(conn)
        first = await roster.page(conn, Filter(NOW, "a", "p6"), sort, after=None, skip=0, size=1, count=True)
        assert (first.items, first.total, first.at_least) == ([], 0, True)
        assert await walk(conn, Filter(NOW, "a", "p6"), sort, size=1) == ["p6@x"]


async def test_a_ranking_says_that_there_are_more_than_it_ranks(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten, those two are ranked that were written to last."""
    monkeypatch.setattr(roster, "WINDOW", 2)
    async with db.connection(pool) as conn:
        await several(conn)
        assert await addresses(conn, "sent", account="a", size=1) == (["p1@x"], 2, True)
        assert await walk(conn, Filter(NOW, "a"), "sent", size=1) == ["p1@x", "p0@x"]


async def test_recipients_are_counted_so_far_and_no_further(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "COUNTED", 9)
    async with db.connection(pool) as conn:
        await several(conn)
        assert (await addresses(conn, account="a"))[1:] == (9, True)
        assert (await addresses(conn, account="b"))[1:] == (1, False)


async def test_a_page_number_leads_only_so_far(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await several(conn)
        with pytest.raises(Refused, match="50000 recipients"):
            await addresses(conn, skip=60_000)
        assert (await addresses(conn, account="a", skip=60_000))[0] == []


TRACKED = {"sent": 2, "tracked": 2}


@pytest.mark.parametrize(
    ("given", "silent", "machine"),
    [
        (TRACKED, True, True),
        (TRACKED | {"opened": 1, "any_opened": 1}, False, False),
        (TRACKED | {"any_opened": 1}, True, False),  # a machine's open is none, unless asked for
        (TRACKED | {"first_sent_at": ago(hours=23)}, False, False),
        (TRACKED | {"last_sent_at": ago(hours=1)}, True, True),  # some is young, the first is not
        ({"sent": 2}, False, False),  # nothing to see an open by
        ({"failed": 2, "first_sent_at": None, "last_sent_at": None}, False, False),
        (TRACKED | {"sent": 3}, True, True),  # other mail besides, and all of it old
        (TRACKED | {"sent": 3, "last_sent_at": ago(hours=1)}, False, False),  # the tracked mail may be the young
        (TRACKED | {"sent": 3, "last_sent_at": ago(hours=1), "gone": Jsonb({"tracked": 1})}, True, True),  # it is not
    ],
)
async def test_silence_is_tracked_mail_unopened_for_a_day(
    pool: db.Pool, given: dict[str, Any], silent: bool, machine: bool
) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await person(conn, "p@x", **given)
        for looked, expected in ((False, silent), (True, machine)):
            (one,) = await recipients.named(conn, [("a", "P@x")], NOW, machine=looked)
            assert one.silent is expected
            found = (await addresses(conn, silent=True, machine=looked))[0]
            others = (await addresses(conn, silent=False, machine=looked))[0]
            assert (found, others) == ((["p@x"], []) if expected else ([], ["p@x"]))


async def sent(conn: db.Connection, *times: datetime, to: str = "P@x", splice: Splice | None = PIXEL) -> list[int]:
    """Deliveries to one recipient, sent at these times."""
    made = []
    for time in times:
        (answer,) = await stored(conn, prepared(to, splice=splice))
        cursor = await conn.execute(
            "update deliveries set state = 'sent', finished_at = %s where message_id = %s::uuid returning id",
            (time, answer.queue_id),
        )
        made += [row[0] for row in await cursor.fetchall()]
    return made


@pytest.mark.parametrize(("age", "silent"), [({"hours": 23}, False), ({"hours": 25}, True)])
async def test_the_age_of_tracked_mail_among_other_mail_is_looked_up(
    pool: db.Pool, age: dict[str, float], silent: bool
) -> None:
    """Given old mail without a pixel, and young mail, then it is the mail with a pixel whose age counts."""
    async with db.connection(pool) as conn:
        await account(conn)
        await person(conn, "p@x", sent=2, tracked=1, last_sent_at=ago(hours=1))
        await sent(conn, ago(days=10), splice=None)
        await sent(conn, ago(**age))
        (one,) = await recipients.named(conn, [("a", "p@x")], NOW)
        assert one.silent is silent


def opened(delivery: int, at: datetime, opener: Opener = Opener.PERSON, place: int = 1) -> Open:
    return Open(delivery, place, at, "GET", "192.0.2.7", "Reader", opener, "Reader", "It reads.", "", "", False)


Looks = Callable[..., Any]


async def test_looks_are_first_opens_of_persons_in_the_zones_time(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        one, two, three = await sent(conn, ago(hours=3), ago(hours=2), ago(days=100))
        await sent(conn, ago(hours=1), to="q@x")
        await sent(conn, ago(hours=1), splice=None)
        later = [opened(one, ago(hours=1), place=2), opened(two, ago(hours=1), Opener.PREFETCH), opened(three, NOW)]
        await opens.record(conn, [opened(one, ago(hours=2.5)), *later])
        found = await recipients.looks(conn, Span("a", NOW, ago(days=90), zone="Asia/Kathmandu"), "p@X")
        assert found == [
            (datetime(2026, 11, 20, 15, 45), None),
            (datetime(2026, 11, 20, 14, 45), datetime(2026, 11, 20, 15, 15)),
        ]


async def test_looks_may_be_at_one_type_alone(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, ago(hours=1))
        (answer,) = await stored(conn, prepared("p@x", splice=PIXEL, email_type="invoice"))
        await conn.execute(
            "update deliveries set state = 'sent', finished_at = %s where message_id = %s::uuid",
            (ago(hours=5), answer.queue_id),
        )
        assert len(await recipients.looks(conn, Span("a", NOW), "p@x")) == 2
        found = await recipients.looks(conn, Span("a", NOW, email_type="invoice"), "p@x")
        assert found == [(datetime(2026, 11, 20, 7), None)]


async def test_named_come_in_the_order_asked_for(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await several(conn)
        found = await recipients.named(conn, [("a", "p3@x"), ("b", "p3@x"), ("b", "p0@x"), ("a", "p1@x")], NOW)
        assert [(one.account, one.address) for one in found] == [("a", "p3@x"), ("b", "p0@x"), ("a", "p1@x")]
