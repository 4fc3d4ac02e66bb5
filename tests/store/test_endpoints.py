"""Endpoints in the store: sealed, counted, led along by their account, forgotten whole; what is posted again."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from relay import enrol
from relay.core.endpoint import MOST, Wanted
from relay.core.vault import Vault
from relay.store import accounts, db, endpoints, overview, postlog, replays
from relay.store import postings as queue
from relay.store.db import Connection
from relay.store.endpoints import Endpoint
from relay.store.postlog import Filter
from tests.store.hooks import postings, told, tried
from tests.store.mail import account

OLD_KEY, NEW_KEY = (base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
VAULT = Vault([OLD_KEY])
SECRET, OTHER = ("whsec_" + base64.b64encode(os.urandom(32)).decode() for _ in range(2))
URL = "https://hooks.example.com/a"
SPAN = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[Connection]:
    async with db.connection(pool) as conn:
        await account(conn, "a")
        await account(conn, "b")
        yield conn


async def made(conn: Connection, whose: str | None = "a", **more: Any) -> Endpoint:
    id = await endpoints.add(conn, VAULT, whose, Wanted(**{"url": URL, **more}), SECRET)
    assert id is not None
    return await found(conn, id)


async def found(conn: Connection, id: int, vault: Vault = VAULT) -> Endpoint:
    one = await endpoints.find(conn, vault, id)
    assert one is not None
    return one


async def managed(conn: Connection, id: str = "a") -> list[Endpoint]:
    return [one for one in (await endpoints.page(conn, VAULT, account=id, size=100))[1] if one.managed]


async def save(conn: Connection, **fields: Any) -> None:
    await accounts.save(conn, VAULT, "a", lambda old: {**old, **fields})


async def count(conn: Connection, table: str) -> int:
    row = await (await conn.execute(f"select count(*) from {table}".encode())).fetchone()
    return int(row[0]) if row else 0


# -- secrets ----------------------------------------------------------------------------------------------------------


async def test_what_is_stored_opens_and_is_sealed(conn: Connection) -> None:
    one = await made(conn, events=("messageSent",), headers={"Authorization": "Bearer s3cret"}, description="CRM")
    row = str(await (await conn.execute("select endpoints::text from endpoints")).fetchall())

    assert (await endpoints.opened(conn, VAULT, [one.id])) == {one.id: one}
    assert (one.secret, one.headers, one.old_secret) == (SECRET, {"Authorization": "Bearer s3cret"}, None)
    assert SECRET not in row
    assert "s3cret" not in row + repr(one)


async def test_an_endpoint_whose_key_is_lost_is_shown_and_not_posted_to(conn: Connection) -> None:
    one = await made(conn, headers={"A": "b"})
    stranger = Vault([NEW_KEY])

    assert await endpoints.opened(conn, stranger, [one.id]) == {}
    shown = await found(conn, one.id, stranger)
    assert (shown.lost, shown.secret, shown.headers) == (True, "", {})


async def test_headers_whose_key_is_lost_stay_sealed_through_another_change(conn: Connection) -> None:
    one = await made(conn, headers={"A": "b"})
    lost = await found(conn, one.id, Vault([NEW_KEY]))
    await endpoints.change(conn, Vault([NEW_KEY]), lost, Wanted(URL, description="new"), headers=False)

    assert (await found(conn, one.id)).headers == {"A": "b"}


async def test_two_secrets_sign_while_one_follows_the_other(conn: Connection) -> None:
    one = await made(conn)
    await endpoints.rotate(conn, VAULT, one, OTHER, valid=60)
    both = await found(conn, one.id)
    await conn.execute("update endpoints set old_until = now() - interval '1 second'")

    assert (both.secret, both.old_secret) == (OTHER, SECRET)
    assert (await found(conn, one.id)).old_secret is None


async def test_a_secret_can_be_replaced_at_once(conn: Connection) -> None:
    one = await made(conn)
    await endpoints.rotate(conn, VAULT, one, OTHER, valid=0)

    assert (await found(conn, one.id)).old_secret is None


async def test_every_secret_is_sealed_anew_with_a_new_key(conn: Connection) -> None:
    one = await made(conn, headers={"A": "b"})
    await endpoints.rotate(conn, VAULT, one, OTHER, valid=60)
    assert await endpoints.reseal(conn, Vault([NEW_KEY, OLD_KEY])) == 1
    after = await found(conn, one.id, Vault([NEW_KEY]))

    assert (after.secret, after.old_secret, after.headers, after.lost) == (OTHER, SECRET, {"A": "b"}, False)


async def test_doctor_is_told_of_every_secret(conn: Connection) -> None:
    one = await made(conn, headers={"A": "b"})
    await endpoints.rotate(conn, VAULT, one, OTHER, valid=60)
    stored = await overview.sealed(conn)

    assert {VAULT.open(*each) for each in stored} == {SECRET, OTHER, '{"A": "b"}'}


# -- making, changing, removing ---------------------------------------------------------------------------------------


async def test_an_account_has_so_many_and_no_more_even_when_asked_at_once(conn: Connection, pool: db.Pool) -> None:
    async def one_more() -> int | None:
        async with db.connection(pool) as other:
            return await endpoints.add(other, VAULT, "a", Wanted(URL), SECRET)

    for _ in range(MOST - 1):
        await made(conn)
    ids = await asyncio.gather(*(one_more() for _ in range(3)))

    assert [id is None for id in ids].count(True) == 2
    await made(conn, "b")
    await made(conn, None)


async def test_an_unknown_account_has_none(conn: Connection) -> None:
    with pytest.raises(LookupError):
        await made(conn, "nobody")


async def test_enabled_again_it_begins_anew_and_what_waits_goes_at_once(conn: Connection) -> None:
    one = await made(conn)
    await tried(conn, await told(conn, "a"), "pending", 500)
    await conn.execute("update endpoints set state = 'disabled', reason = '410', failures = 9, failing_since = now()")
    await endpoints.change(conn, VAULT, await found(conn, one.id), Wanted(URL), headers=False)
    after = await found(conn, one.id)

    assert (after.active, after.reason, after.failures, after.failing_since) == (True, "", 0, None)
    assert [row[2:] for row in await postings(conn)] == [("pending", 0, True)]


@pytest.mark.parametrize("how", ["enabled anew", "by name", "of a time"])
@pytest.mark.parametrize("tries", [0, 1])
async def test_what_is_in_flight_is_not_posted_beside_it(conn: Connection, tries: int, how: str) -> None:
    """Given a posting in flight, when its endpoint is enabled anew or it is replayed, then nobody else may claim it."""
    one = await made(conn)
    event = await told(conn, "a")
    await conn.execute("update postings set attempts = %s", (tries,))
    claim = partial(queue.claim, conn, after=0, most=9, each=9, share=9, busy={}, seconds=30)
    (posting,) = (await claim()).postings
    if how == "enabled anew":
        await endpoints.change(conn, VAULT, one, Wanted(URL), headers=False, afresh=True)
    elif how == "by name":
        assert await replays.named(conn, one, [event]) == 0
    else:
        assert await replays.between(conn, one, (), *SPAN, None) == (0, None)

    assert (await claim()).postings == []
    assert await queue.give_back(conn, [posting]) == 1


@pytest.mark.parametrize("how", ["enabled anew", "by name"])
async def test_what_waits_for_a_retry_goes_at_once(conn: Connection, how: str) -> None:
    one = await made(conn)
    event = await told(conn, "a")
    (posting,) = (await queue.claim(conn, after=0, most=9, each=9, share=9, busy={}, seconds=30)).postings
    await queue.settle(conn, [queue.Tried(posting, URL, 0.1, 500, "500", "", wait=3600)], failing=60)
    if how == "enabled anew":
        await endpoints.change(conn, VAULT, one, Wanted(URL), headers=False, afresh=True)
    else:
        assert await replays.named(conn, one, [event]) == 1

    assert [row[2:] for row in await postings(conn)] == [("pending", 0, True)]


async def test_a_change_of_the_description_forgets_no_failure(conn: Connection) -> None:
    one = await made(conn)
    await conn.execute("update endpoints set reason = '500', failures = 9, failing_since = now()")
    await endpoints.change(conn, VAULT, await found(conn, one.id), Wanted(URL, description="new"))

    assert ((await found(conn, one.id)).failures, (await found(conn, one.id)).reason) == (9, "500")


async def test_what_is_removed_takes_its_log_along(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PIECE", 2)
    one, other = await made(conn), await made(conn, None)
    for _ in range(5):
        await tried(conn, await told(conn, "a"), "delivered", 200)
    await endpoints.remove(conn, one.id)

    assert {row[0] for row in await postings(conn)} == {other.id}
    assert await count(conn, "posts") == 5
    assert await count(conn, "endpoints") == 1


# -- the account's own setting --------------------------------------------------------------------------------


async def test_an_accounts_own_url_makes_moves_and_removes_an_endpoint(conn: Connection) -> None:
    await save(conn, webhooks=URL)
    first = (await managed(conn))[0]
    await save(conn, webhooks="https://other.example/")
    second = (await managed(conn))[0]
    await tried(conn, await told(conn, "a"), "delivered", 200)
    await save(conn, webhooks="")

    assert (first.url, first.events, first.active) == (URL, (), True)
    assert (second.id, second.url, second.secret) == (first.id, "https://other.example/", first.secret)
    assert await managed(conn) == []


async def test_another_setting_leaves_it_alone(conn: Connection) -> None:
    await save(conn, webhooks=URL)
    before = await managed(conn)
    await save(conn, name="New")

    assert await managed(conn) == before


async def test_moved_to_another_server_it_leaves_its_headers_behind(conn: Connection) -> None:
    await save(conn, webhooks=URL)
    one = (await managed(conn))[0]
    await endpoints.change(conn, VAULT, one, Wanted(URL, headers={"Authorization": "s3cret"}))
    await save(conn, webhooks=URL + "/b")
    near = (await managed(conn))[0]
    await save(conn, webhooks="https://other.example/")

    assert near.headers == {"Authorization": "s3cret"}
    assert (await managed(conn))[0].headers == {}


async def test_a_save_that_fails_moves_nothing(conn: Connection) -> None:
    await save(conn, webhooks=URL)
    async with conn.transaction(force_rollback=True):
        await save(conn, webhooks="https://other.example/")

    assert (await managed(conn))[0].url == URL


async def test_it_does_not_count_among_those_an_account_may_have(conn: Connection) -> None:
    for _ in range(MOST):
        await made(conn)
    await save(conn, webhooks=URL)

    assert len(await managed(conn)) == 1


async def test_an_account_that_goes_takes_endpoints_events_and_log_along(conn: Connection, pool: db.Pool) -> None:
    await made(conn, "a")
    await made(conn, "b")
    await made(conn, None)
    for whose in ("a", "b"):
        await tried(conn, await told(conn, whose), "delivered", 200)
    assert await enrol.delete(pool, "a")

    cursor = await conn.execute("select account_id from endpoints order by id")
    assert await cursor.fetchall() == [("b",), (None,)]
    cursor = await conn.execute("select distinct account_id from postings")
    assert await cursor.fetchall() == [("b",)]
    assert await count(conn, "posts") == 2
    assert await count(conn, "events") == 1


# -- the log -----------------------------------------------------------------------------------------------------------


async def listed(conn: Connection, wanted: Filter, size: int = 10) -> list[list[int]]:
    """Events of each page, to the end."""
    pages, end = [], None
    while True:
        _, rows, end = await postlog.page(conn, wanted, after=end, skip=0, size=size, count=False)
        pages.append([row.event for row in rows])
        if end is None:
            return pages


async def test_the_log_goes_on_by_key_newest_first(conn: Connection) -> None:
    one = await made(conn)
    events = [await told(conn, "a") for _ in range(5)]

    assert await listed(conn, Filter(one.id), size=2) == [events[:2:-1], events[2:0:-1], events[:1]]
    assert (await postlog.page(conn, Filter(one.id), after=None, skip=2, size=2, count=True))[0] == 5


async def test_the_log_is_narrowed(conn: Connection) -> None:
    one = await made(conn)
    sent, failed = await told(conn, "a"), await told(conn, "a", "messageFailed")
    await tried(conn, sent, "delivered", 200)
    await conn.execute("update postings set created_at = '2026-01-01' where event_id = %s", (sent,))
    year = datetime(2026, 1, 2, tzinfo=UTC)

    assert await listed(conn, Filter(one.id, state="delivered")) == [[sent]]
    assert await listed(conn, Filter(one.id, type="messageFailed")) == [[failed]]
    assert await listed(conn, Filter(one.id, event=sent)) == [[sent]]
    assert await listed(conn, Filter(one.id, since=year)) == [[failed]]
    assert await listed(conn, Filter(one.id, until=year)) == [[sent]]
    assert await listed(conn, Filter(one.id + 1)) == [[]]


async def test_a_look_is_bounded_and_goes_on(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postlog, "LOOK", 3)
    one = await made(conn)
    rare = await told(conn, "a", "messageFailed")
    for _ in range(4):
        await told(conn, "a")

    assert await listed(conn, Filter(one.id, type="messageFailed")) == [[], [rare]]


async def test_a_posting_is_shown_with_every_try(conn: Connection) -> None:
    one = await made(conn)
    event = await told(conn, "a", recipient="r@example.com")
    await tried(conn, event, "pending", None, "no answer within 10 s")
    await tried(conn, event, "delivered", 204)
    row = (await postlog.page(conn, Filter(one.id), after=None, skip=0, size=1, count=False))[1][0]
    shown = await postlog.show(conn, one.id, row.id)

    assert shown is not None
    assert shown[1] == {"recipient": "r@example.com"}
    assert [(each.status, each.error) for each in shown[2]] == [(None, "no answer within 10 s"), (204, "")]
    assert (row.status, row.error, row.state, row.attempts) == (204, "", "delivered", 2)
    assert await postlog.show(conn, one.id + 1, row.id) is None


# -- replay ------------------------------------------------------------------------------------------------------------


async def test_named_events_are_posted_again_or_for_the_first_time(conn: Connection) -> None:
    before = await told(conn, "a")
    one = await made(conn)
    after = await told(conn, "a")
    await tried(conn, after, "failed", 500)

    assert await replays.named(conn, one, [before, after, 10**9]) == 2
    assert await postings(conn) == [(one.id, before, "pending", 0, True), (one.id, after, "pending", 0, True)]


@pytest.mark.parametrize("how", ["by name", "what failed"])
async def test_whoever_replays_for_ever_leaves_no_log_without_end(conn: Connection, how: str) -> None:
    one = await made(conn)
    event = await told(conn, "a")
    await tried(conn, event, "failed", 500)
    await conn.execute(
        "insert into posts (posting_id, endpoint_id, seconds, url)"
        " select posting_id, endpoint_id, 0, url from posts, generate_series(1, %s)",
        (postlog.TRIES,),
    )
    ((oldest,),) = await (await conn.execute("select min(id) from posts")).fetchall()
    if how == "by name":
        assert await replays.named(conn, one, [event]) == 1
    else:
        assert await replays.failed(conn, one, (), Filter(one.id, state="failed"), None) == (1, None)
    found = await (await conn.execute("select count(*), min(id) > %s from posts", (oldest,))).fetchall()
    assert found == [(postlog.TRIES, True)]


async def test_what_waits_for_its_first_try_is_not_counted_or_doubled(conn: Connection) -> None:
    one = await made(conn)
    event = await told(conn, "a")

    assert await replays.named(conn, one, [event]) == 0
    assert await replays.between(conn, one, (), *SPAN, None) == (0, None)
    assert len(await postings(conn)) == 1


async def test_nobody_is_posted_anothers_event(conn: Connection) -> None:
    event = await told(conn, "b")
    one = await made(conn, "a")

    assert await replays.named(conn, one, [event]) == 0
    assert await replays.between(conn, one, (), *SPAN, None) == (0, None)
    assert await postings(conn) == []


async def test_a_time_is_replayed_across_accounts(conn: Connection) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [await told(conn, who, at=start + timedelta(hours=n)) for n, who in enumerate(["b", "a", "", "a", "b"])]
    one = await made(conn, None)

    count, end = await replays.between(conn, one, (), start, start + timedelta(hours=4), None)

    assert (count, end) == (4, None)
    assert {row[1] for row in await postings(conn)} == set(events[:4])


async def test_a_replay_of_a_time_is_bounded_and_goes_on(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "LOOK", 2)
    events = [await told(conn, who) for who in ("a", "b", "a", "b", "b")]
    one, counts, end = await made(conn, None), [], None
    while True:
        count, end = await replays.between(conn, one, (), *SPAN, end)
        counts.append(count)
        if end is None:
            break

    assert counts == [2, 2, 1]
    assert {row[1] for row in await postings(conn)} == set(events)


async def test_a_replay_keeps_to_the_types_that_are_wanted(conn: Connection) -> None:
    sent, failed = await told(conn, "a"), await told(conn, "a", "messageFailed")
    one = await made(conn, events=("messageFailed",))

    assert await replays.named(conn, one, [sent, failed]) == 1
    assert await replays.between(conn, one, ("messageFailed",), *SPAN, None) == (0, None)
    assert {row[1] for row in await postings(conn)} == {failed}


async def test_tests_of_others_are_never_replayed(conn: Connection) -> None:
    one, other = await made(conn), await made(conn)
    event, _ = await replays.test(conn, one)
    await tried(conn, event, "delivered", 200)

    assert [row[0] for row in await postings(conn)] == [one.id]
    assert await replays.named(conn, other, [event]) == 0
    assert await replays.between(conn, other, (), *SPAN, None) == (0, None)
    assert await replays.named(conn, one, [event]) == 1


async def test_what_failed_is_replayed_piece_by_piece(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postlog, "LOOK", 2)
    monkeypatch.setattr(replays, "LOOK", 2)
    one = await made(conn)
    events = [await told(conn, "a") for _ in range(4)]
    for event, state in zip(events, ("failed", "delivered", "failed", "failed"), strict=True):
        await tried(conn, event, state, 500)
    first, end = await replays.failed(conn, one, (), Filter(one.id, state="failed"), None)
    second, last = await replays.failed(conn, one, (), Filter(one.id, state="failed"), end)

    assert (first, second, last) == (2, 1, None)
    assert [row[2] for row in await postings(conn)] == ["pending", "delivered", "pending", "pending"]
