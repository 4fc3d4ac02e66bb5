"""Claims are fair, bounded and fenced; a group of tries is settled in one commit, with how its endpoints fare."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from relay.store import db, postings
from relay.store.postings import Claim, Fared, Posting, Tried
from tests.store.mail import account
from tests.store.posting import endpoint, event, events

FAILING = 432_000.0
URL = "http://127.0.0.1:9/"  # of an endpoint, where a test says no other
OVER = "nothing but failures for 5 days, the last of them: it answered 500"


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[db.Connection]:
    async with db.connection(pool) as conn:
        await account(conn)
        yield conn


async def claim(conn: db.Connection, **given: Any) -> Claim:
    return await postings.claim(
        conn, **{"after": 0, "most": 100, "each": 16, "share": 16, "busy": {}, "seconds": 30.0} | given
    )


async def claimed(conn: db.Connection, **given: Any) -> list[Posting]:
    return (await claim(conn, **given)).postings


def well(posting: Posting) -> Tried:
    return Tried(posting, URL, 0.1, 200, "", "fine")


def ill(posting: Posting, wait: float | None = 60.0, **given: Any) -> Tried:
    return replace(Tried(posting, URL, 0.1, 500, "it answered 500", "oops", wait=wait), **given)


async def settle(conn: db.Connection, *batch: Tried, failing: float = FAILING) -> list[Fared]:
    return await postings.settle(conn, batch, failing=failing)


async def rows(conn: db.Connection, query: str) -> list[Any]:
    return await (await conn.execute(query.encode())).fetchall()


async def due_again(conn: db.Connection) -> None:
    await conn.execute("update postings set due_at = now() where state = 'pending'")


async def test_an_event_is_for_those_who_subscribed_to_it_and_for_no_other_account(conn: db.Connection) -> None:
    await account(conn, "b")
    own, chosen = await endpoint(conn), await endpoint(conn, events=["messageSent"])
    for_all = await endpoint(conn, account=None, events=["messageSent", "messageFailed"])
    await endpoint(conn, events=["messageFailed"])
    await endpoint(conn, account="b")
    await event(conn, "a", "messageSent")
    assert [posting.endpoint for posting in await claimed(conn)] == [own, chosen, for_all]


async def test_nothing_is_written_where_nobody_subscribes(conn: db.Connection) -> None:
    await account(conn, "b")
    await endpoint(conn, account="b")
    disabled = await endpoint(conn)
    await conn.execute("update endpoints set state = 'disabled' where id = %s", (disabled,))
    await endpoint(conn, events=["messageFailed"])
    await event(conn, "a", "messageSent")
    await endpoint(conn)
    await event(conn, "a", "webhookTest")
    assert await rows(conn, "select count(*) from postings") == [(0,)]


async def test_a_posting_comes_with_its_event(conn: db.Connection) -> None:
    number = await endpoint(conn)
    id = await event(conn, type="messageSent", queueId="x")
    (posting,) = await claimed(conn)
    assert (posting.endpoint, posting.event, posting.attempts, posting.failures) == (number, id, 0, 0)
    assert (posting.account, posting.type, posting.data) == ("a", "messageSent", {"queueId": "x"})


async def test_what_is_claimed_is_not_claimed_again_before_its_time(conn: db.Connection) -> None:
    await endpoint(conn)
    await event(conn)
    (posting,) = await claimed(conn)
    assert not await claimed(conn)
    await due_again(conn)
    (again,) = await claimed(conn)
    assert (again.id, again.until > posting.until) == (posting.id, True)


async def test_processes_side_by_side_claim_each_posting_once(pool: db.Pool, conn: db.Connection) -> None:
    for _ in range(4):
        await endpoint(conn)
    await events(conn, 200)

    async def take() -> list[int]:
        found = []
        async with db.connection(pool) as other:
            while batch := await claimed(other, most=7):
                found += [posting.id for posting in batch]
        return found

    taken = [id for some in await asyncio.gather(take(), take(), take()) for id in some]
    assert Counter(taken).most_common(1)[0][1] == 1
    assert len(taken) == 800


async def test_an_endpoint_gets_no_more_than_its_room(conn: db.Connection) -> None:
    one, other = await endpoint(conn), await endpoint(conn)
    await events(conn, 50)
    found = await claimed(conn, busy={other: 10})
    assert Counter(posting.endpoint for posting in found) == {one: 16, other: 6}
    assert not await claimed(conn, busy={one: 16, other: 16})


async def test_where_slots_are_scarce_each_endpoint_has_one(conn: db.Connection) -> None:
    one, other = await endpoint(conn), await endpoint(conn)
    await events(conn, 50)
    found = await claimed(conn, share=1, busy={one: 1})
    assert [posting.endpoint for posting in found] == [other]


async def test_a_failing_endpoint_is_told_one_thing_at_a_time(conn: db.Connection) -> None:
    number = await endpoint(conn)
    await events(conn, 50)
    first = await claimed(conn, most=1)
    await settle(conn, ill(first[0]))
    (probe,) = await claimed(conn)
    assert probe.failures == 1
    assert not await claimed(conn, busy={number: 1})
    await settle(conn, well(probe))
    assert len(await claimed(conn)) == 16


async def test_the_round_goes_on_after_the_last_endpoint(conn: db.Connection) -> None:
    numbers = [await endpoint(conn) for _ in range(3)]
    await events(conn, 40)
    turns, after = [], 0
    for _ in range(4):
        found = await claim(conn, most=10, each=10, after=after)
        turns.append({posting.endpoint for posting in found.postings})
        after = found.after
    ended = await claim(conn, most=10, each=10, after=after)
    assert turns == [{numbers[0]}, {numbers[1]}, {numbers[2]}, set()]
    assert (after, {posting.endpoint for posting in ended.postings}) == (0, {numbers[0]})


async def test_a_backlog_of_a_hundred_thousand_is_one_probe(conn: db.Connection) -> None:
    """Another endpoint's only event is in the same claim, and the plan reads neither the table nor the backlog."""
    await account(conn, "b")
    behind, quick = await endpoint(conn), await endpoint(conn, account="b")
    await events(conn, 100_000)
    await event(conn, "b")
    await conn.execute("analyze postings")
    found = await claimed(conn)
    assert Counter(posting.endpoint for posting in found) == {behind: 16, quick: 1}
    given = {"after": 0, "most": 100, "each": 16, "share": 16, "busy": [], "in_flight": [], "seconds": 30, "look": 500}
    plan = "\n".join(
        row[0] for row in await (await conn.execute(f"explain analyze {postings.CLAIM}".encode(), given)).fetchall()
    )
    print(plan)
    assert "Seq Scan on postings" not in plan
    assert (
        max(int(part.split("rows=")[2].split(".")[0]) for part in plan.splitlines() if part.count("rows=") > 1) < 1000
    )


async def test_what_is_not_due_or_disabled_is_left_alone(conn: db.Connection) -> None:
    disabled = await endpoint(conn)
    await event(conn)
    await conn.execute("update endpoints set state = 'disabled' where id = %s", (disabled,))
    await endpoint(conn)
    await event(conn)
    await conn.execute("update postings set due_at = now() + interval '1 minute' where endpoint_id <> %s", (disabled,))
    assert not await claimed(conn)


async def test_a_posting_without_its_event_is_dropped(conn: db.Connection) -> None:
    await endpoint(conn)
    gone, kept = await event(conn), await event(conn)
    await conn.execute("delete from events where id = %s", (gone,))
    assert [posting.event for posting in await claimed(conn)] == [kept]
    assert await rows(conn, "select event_id from postings") == [(kept,)]


async def test_postings_without_their_endpoint_are_dropped_a_few_at_a_time(conn: db.Connection) -> None:
    gone, kept = await endpoint(conn), await endpoint(conn)
    await events(conn, 5)
    await conn.execute("delete from endpoints where id = %s", (gone,))
    assert {posting.endpoint for posting in await claimed(conn)} == {kept}
    assert [await postings.drop_orphans(conn, most=3) for _ in range(3)] == [3, 2, 0]
    assert await rows(conn, "select endpoint_id, count(*) from postings group by 1") == [(kept, 5)]


async def test_each_try_is_settled_with_its_log(conn: db.Connection) -> None:
    await endpoint(conn)
    await events(conn, 3)
    one, two, three = await claimed(conn)
    await settle(conn, well(one), ill(two, wait=60), ill(three, wait=None, status=None, error="no answer"))
    states = await rows(conn, "select state::text, attempts, finished_at is not null from postings order by id")
    due = await rows(conn, f"select extract(epoch from due_at - now())::float8 from postings where id = {two.id}")
    log = await rows(conn, "select posting_id, status, error, response, url from posts order by posting_id")
    assert states == [("delivered", 1, True), ("pending", 1, False), ("failed", 1, True)]
    assert 59 < due[0][0] <= 60
    assert log == [
        (one.id, 200, "", "fine", URL),
        (two.id, 500, "it answered 500", "oops", URL),
        (three.id, None, "no answer", "oops", URL),
    ]


async def test_a_late_try_is_logged_and_settles_nothing(conn: db.Connection) -> None:
    await endpoint(conn)
    await event(conn)
    (late,) = await claimed(conn)
    await due_again(conn)
    (again,) = await claimed(conn)
    await settle(conn, ill(late, wait=None))
    assert await rows(conn, "select state::text, attempts from postings") == [("pending", 0)]
    await settle(conn, well(again))
    assert await rows(conn, "select state::text, attempts from postings") == [("delivered", 1)]
    assert await rows(conn, "select count(*) from posts") == [(2,)]


async def test_how_an_endpoint_fares_is_told_when_it_changes(conn: db.Connection) -> None:
    number = await endpoint(conn)
    await events(conn, 5)
    one, two, three, four, five = await claimed(conn)
    (began,) = await settle(conn, ill(one), ill(two))
    assert (began.endpoint, began.failures, began.disabled, began.reason) == (number, 2, False, "it answered 500")
    assert await settle(conn, ill(three)) == []
    assert await rows(conn, "select failures, failing_since is not null, reason from endpoints") == [
        (3, True, "it answered 500")
    ]
    (over,) = await settle(conn, well(four))
    assert (over.failures, over.disabled) == (0, False)
    assert await rows(conn, "select failures, failing_since, reason from endpoints") == [(0, None, "")]
    assert await settle(conn, well(five)) == []


async def test_failures_in_a_row_are_counted_as_they_came(conn: db.Connection) -> None:
    await endpoint(conn)
    await events(conn, 5)
    five, four, three, two, one = await claimed(conn)
    await settle(conn, ill(one), ill(two))
    await conn.execute("update endpoints set failing_since = now() - interval '4 days'")
    await settle(conn, ill(three), well(four), ill(five))
    assert await rows(conn, "select failures, failing_since > now() - interval '1 minute' from endpoints") == [
        (1, True)
    ]


async def test_a_healthy_endpoint_is_not_written(conn: db.Connection) -> None:
    await endpoint(conn)
    await event(conn)
    before = await rows(conn, "select xmin::text from endpoints")
    await settle(conn, *map(well, await claimed(conn)))
    assert await rows(conn, "select xmin::text from endpoints") == before


async def test_what_fails_for_days_is_disabled_once_with_an_event(conn: db.Connection) -> None:
    number = await endpoint(conn)
    other = await endpoint(conn, url="http://other/", events=["webhookDisabled"])
    await events(conn, 3)
    one, two, three = await claimed(conn)
    assert not [fared for fared in await settle(conn, ill(one)) if fared.disabled]
    await conn.execute("update endpoints set failing_since = now() - %s * interval '1 second'", (FAILING + 1,))
    (fared,) = await settle(conn, ill(two))
    assert (fared.endpoint, fared.disabled) == (number, True)
    assert await settle(conn, ill(three)) == []
    told = "select account_id, data from events where type = 'webhookDisabled'"
    assert await rows(conn, told) == [("a", {"endpoint": number, "url": "http://127.0.0.1:9/", "reason": OVER})]
    await due_again(conn)
    assert [(posting.endpoint, posting.type) for posting in await claimed(conn)] == [(other, "webhookDisabled")]


async def test_gone_disables_at_once(conn: db.Connection) -> None:
    number = await endpoint(conn)
    await events(conn, 3)
    one, two, three = await claimed(conn)
    (fared,) = await settle(
        conn, well(one), ill(two, None, status=410, error="it answered 410 Gone", gone=True), well(three)
    )
    assert (fared.endpoint, fared.disabled, fared.reason) == (number, True, "it answered 410 Gone")


async def test_a_try_at_the_url_of_before_says_nothing_of_the_new_one(conn: db.Connection) -> None:
    """Given a post in flight, when its endpoint is led elsewhere and the old place answers 410, then nothing is said
    against the new one."""
    await endpoint(conn)
    await events(conn, 2)
    one, two = await claimed(conn)
    await conn.execute("update endpoints set url = 'http://new/'")
    assert await settle(conn, ill(one, gone=True, wait=None), ill(two)) == []
    assert await rows(conn, "select state::text, failures, reason from endpoints") == [("active", 0, "")]
    assert await rows(conn, "select count(*) from posts") == [(2,)]


async def test_what_could_not_be_posted_at_all_counts_against_its_endpoint(conn: db.Connection) -> None:
    await endpoint(conn)
    await event(conn)
    (posting,) = await claimed(conn)
    (change,) = await settle(conn, ill(posting, url=""))
    assert change.failures == 1


async def test_the_end_of_an_endpoint_for_all_accounts_is_told_to_the_others_of_its_kind(conn: db.Connection) -> None:
    for_all, own = await endpoint(conn, account=None), await endpoint(conn)
    witness = await endpoint(conn, account=None, events=["webhookDisabled"])
    await event(conn)
    tried = {posting.endpoint: posting for posting in await claimed(conn)}
    await settle(conn, well(tried[own]), ill(tried[for_all], None, gone=True))
    (told,) = await claimed(conn)
    assert (told.endpoint, told.type, told.account) == (witness, "webhookDisabled", "")


@pytest.mark.parametrize("held", ["endpoints where id =", "postings where endpoint_id ="])
async def test_whoever_holds_an_endpoint_or_its_postings_holds_up_nobody(
    pool: db.Pool, conn: db.Connection, held: str
) -> None:
    """A tenant replays, or removes, a great many; another one's tries are settled meanwhile."""
    await account(conn, "b")
    slow, other = await endpoint(conn), await endpoint(conn, account="b")
    await event(conn)
    await event(conn, account="b")
    first, second = await claimed(conn)
    async with pool.connection() as another, another.transaction():
        await another.execute(f"select from {held} {slow} for update".encode())
        async with asyncio.timeout(5):
            await settle(conn, ill(first), ill(second))
    assert (first.endpoint, second.endpoint) == (slow, other)
    assert await rows(conn, f"select attempts from postings where endpoint_id = {other}") == [(1,)]
    assert await rows(conn, f"select failures from endpoints where id = {other}") == [(1,)]
    assert len(await rows(conn, "select from posts")) == 2


async def test_what_is_given_back_is_due_at_no_cost(conn: db.Connection) -> None:
    await endpoint(conn)
    await events(conn, 2)
    one, two = await claimed(conn)
    await settle(conn, well(two))
    assert await postings.give_back(conn, [one, two]) == 1
    assert [(posting.id, posting.attempts) for posting in await claimed(conn)] == [(one.id, 0)]


async def test_a_text_that_cannot_be_stored_costs_only_itself(conn: db.Connection) -> None:
    await endpoint(conn)
    await events(conn, 2)
    one, two = await claimed(conn)
    await settle(conn, ill(one, response="nul \0", error="\0"), well(two))
    assert await rows(conn, "select state::text, attempts from postings order by id") == [
        ("pending", 1),
        ("delivered", 1),
    ]
    assert await rows(conn, "select error from posts order by id") == [("(unreadable)",), ("",)]
