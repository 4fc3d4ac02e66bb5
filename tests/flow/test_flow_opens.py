"""Recording opens: batches, names of addresses, what is kept of an address, and a store that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core import pixel
from relay.core.errors import StoreAway
from relay.core.vault import Vault
from relay.net.rdns import Names
from relay.opens import MOST, Opens
from relay.settings import Settings
from relay.store import db, opens
from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.store.mail import account, prepared, stored
from tests.tenant import Tenant

KEYS = [b"key"]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
READER = "198.51.100.77"

Rows = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
async def deliveries(pool: db.Pool) -> list[int]:
    """Three that were sent an hour ago."""
    async with db.connection(pool) as conn:
        await account(conn)
        await stored(conn, prepared("a@x", "b@x", "c@x"))
        cursor = await conn.execute(
            "update deliveries set state = 'sent', finished_at = now() - interval '1 hour' returning id"
        )
        return sorted(row[0] for row in await cursor.fetchall())


@pytest.fixture
def rows(pool: db.Pool) -> Rows:
    async def rows(query: str, *values: Any) -> list[Any]:
        async with db.connection(pool) as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    return rows


@pytest.fixture
async def recorder(pool: db.Pool, settings: Settings) -> AsyncIterator[Opens]:
    recorder = Opens(pool, settings, KEYS)
    yield recorder
    await recorder.close()


def look(recorder: Opens, delivery: int, agent: str = FIREFOX, address: str = READER) -> None:
    recorder.fetched(pixel.sign(KEYS, delivery), "GET", address, agent)


async def test_what_waits_is_recorded_together(
    recorder: Opens, deliveries: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    async def record(conn: db.Connection, batch: list[opens.Open]) -> set[int]:
        batches.append(len(batch))
        return await original(conn, batch)

    original = opens.record
    monkeypatch.setattr(opens, "record", record)
    for number in range(240):
        look(recorder, deliveries[number % 3])
    await recorder.close()
    assert batches == [100, 100, 40] == [MOST, MOST, 40]
    assert await rows("select fetches from opens order by delivery_id") == [(80,)] * 3


async def test_a_flood_of_one_message_writes_its_rows_once_a_batch(
    recorder: Opens, deliveries: list[int], rows: Rows
) -> None:
    for _ in range(6 * MOST):
        look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select fetches, opens + (judged ->> 'scanner')::int from opens") == [(600, 600)]
    assert await rows("select count(*) from fetches") == [(200,)]
    (written,) = await rows("select count(*) from tallies where account_id = 'a'")
    assert written[0] == 6


async def test_a_flood_is_no_reader_either_when_its_fetches_are_only_counted(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are kept as rows came long ago."""
    before = Opens(pool, settings, KEYS)
    for _ in range(opens.KEPT):
        look(before, deliveries[0], "Mozilla/5.0")
    await before.close()
    await rows("update fetches set at = at - interval '1 hour' returning id")
    monkeypatch.setattr("relay.opens.MOST", 10)
    recorder = Opens(pool, settings, KEYS)
    for _ in range(100):
        look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select opens, fetches from opens") == [(30, 300)]


async def test_each_fetch_of_a_batch_knows_those_before_it(recorder: Opens, deliveries: list[int], rows: Rows) -> None:
    """What a gateway does in a second shows in the last of its fetches, though all were judged at once."""
    for _ in range(40):
        look(recorder, deliveries[0])
    look(recorder, deliveries[1])
    await recorder.close()
    judged = [row[0] for row in await rows("select opener::text from fetches order by id")]
    assert judged[0] == judged[40] == "person"
    assert judged[39] == "scanner"


@pytest.mark.parametrize(
    ("how", "kept"), [("whole", READER), ("truncated", "198.51.100.0"), ("none", None)], ids=lambda value: str(value)
)
async def test_as_much_of_an_address_is_kept_as_the_setting_says(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows, how: str, kept: str | None
) -> None:
    recorder = Opens(pool, replace(settings, open_addresses=how), KEYS)
    look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select host(address) from fetches") == [(kept,)]
    assert await rows("select data ->> 'remoteAddress' from events") == [(kept or "",)]


async def test_truncated_addresses_are_judged_whole(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows
) -> None:
    async with db.connection(pool) as conn:
        await conn.execute("update accounts set config = jsonb_build_object('tracking', %s::jsonb)", (OWN,))
    recorder = Opens(pool, replace(settings, open_addresses="truncated"), KEYS)
    look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select opener::text from fetches") == [("self",)]


OWN = f'{{"own": ["{ip_network(READER)}"]}}'


async def test_the_name_of_an_address_tells_a_gateway(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows
) -> None:
    async def reverse(_: str) -> str:
        return "mx0.pphosted.com"

    async def forward(_: str) -> list[str]:
        return ["8.8.4.4"]

    for open_dns in (False, True):
        recorder = Opens(pool, replace(settings, open_dns=open_dns), KEYS, names=Names(reverse, forward))
        look(recorder, deliveries[0], address="8.8.4.4")
        await recorder.close()
    judged = await rows("select opener::text from fetches order by id")
    assert judged == [("person",), ("scanner",)]


async def test_a_slow_dns_delays_only_those_who_wait_for_it(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def reverse(_: str) -> str:
        asked.set()
        await answer.wait()
        raise OSError("no such name")

    recorder = Opens(pool, replace(settings, open_dns=True), KEYS, names=Names(reverse))
    look(recorder, deliveries[0], address="8.8.4.4")
    await asked.wait()  # it was answered, and is not recorded
    assert await rows("select count(*) from fetches") == [(0,)]
    answer.set()
    await recorder.close()
    assert await rows("select opener::text from fetches") == [("person",)]


async def test_fetches_wait_for_a_store_that_is_away(
    recorder: Opens, deliveries: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are recorded once it is back, with the time at which they came."""
    monkeypatch.setattr("relay.opens.AGAIN", 0.01)
    tried = 0

    async def known(*_: Any) -> Any:
        nonlocal tried
        tried += 1
        raise StoreAway("for a while")

    with monkeypatch.context() as away:
        away.setattr(opens, "known", known)
        for delivery in deliveries[:2]:
            look(recorder, delivery)
        ((came,),) = await rows("select clock_timestamp()")
        await until(lambda: tried > 20)
    await until(lambda: _all_recorded(rows, 2))
    assert await rows("select count(*) from fetches where at <= %s", came) == [(2,)]


async def _all_recorded(rows: Rows, number: int) -> bool:
    return bool(await rows("select count(*) from fetches") == [(number,)])


async def test_what_was_stored_without_an_answer_is_not_stored_twice(
    recorder: Opens, deliveries: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.opens.AGAIN", 0.01)
    tries = []

    async def record(conn: db.Connection, batch: list[opens.Open]) -> set[int]:
        tries.append(await original(conn, batch))
        raise StoreAway("the connection broke after COMMIT")

    original = opens.record
    monkeypatch.setattr(opens, "record", record)
    look(recorder, deliveries[0])
    await until(lambda: bool(tries))
    monkeypatch.setattr(opens, "record", original)
    await recorder.close()
    assert await rows("select fetches from opens") == [(1,)]
    assert len(tries) == 1


async def test_a_process_that_ends_does_not_wait_for_the_store(
    recorder: Opens, deliveries: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(*_: Any) -> Any:
        raise StoreAway("for good")

    monkeypatch.setattr(opens, "known", known)
    for number in range(5 * MOST):
        look(recorder, deliveries[number % 3])
    async with asyncio.timeout(20):
        await recorder.close()


async def test_no_more_wait_than_memory_is_given(
    recorder: Opens, deliveries: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.opens.MOST_WAITING", 10)
    for _ in range(15):
        look(recorder, deliveries[0])
    await recorder.close()
    look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select fetches from opens") == [(11,)]


async def test_one_that_cannot_be_stored_says_so_and_holds_up_nobody(
    recorder: Opens,
    deliveries: list[int],
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def known(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as broken:
        broken.setattr(opens, "known", known)
        look(recorder, deliveries[0])
        await until(lambda: "1 pixel fetches are lost: a fault of ours" in caplog.text)
    look(recorder, deliveries[0])
    await recorder.close()
    assert await rows("select fetches from opens") == [(1,)]


async def test_two_processes_share_a_delivery(
    pool: db.Pool, settings: Settings, deliveries: list[int], rows: Rows
) -> None:
    """Each has a pool and batches of its own: no open is counted twice, and the first of a delivery is one."""
    other = await db.open_pool(settings, most=1)
    recorders = [Opens(pool, settings, KEYS), Opens(other, settings, KEYS)]
    for number in range(300):
        for recorder in recorders:
            look(recorder, deliveries[number % 3], "Mozilla/5.0 (via ggpht.com GoogleImageProxy)")
    await asyncio.gather(*(recorder.close() for recorder in recorders))
    await other.close()
    assert await rows("select fetches, any_opens from opens") == [(200, 200)] * 3
    assert await rows("select sum(any_opened), sum(any_opens) from tallies where account_id = 'a'") == [(3, 600)]
    assert await rows("select sum(any_firsts), sum(opens) from open_tallies where account_id = 'a'") == [(3, 600)]


async def test_a_reader_who_is_quicker_than_our_commit(tenant: Tenant) -> None:
    """Upstream has the message, its reply has not come: the open is kept, and counted once the message is sent."""
    reply = asyncio.Event()
    tenant.upstream.when("DOT", times=1).wait(reply).say("250 2.0.0 taken")
    await tenant.submit("ada@there.example", html="<p>Hello</p>", trackOpens=True)
    await tenant.upstream.heard("DATA")
    ((delivery,),) = await tenant.rows("select id from deliveries where account_id = %s")
    before = await tenant.metrics()
    await read(tenant, delivery)
    await until(lambda: says(tenant, "select opens, sent_at from opens where account_id = %s", (1, None)))
    reply.set()
    await tenant.becomes(sent=1)
    await until(lambda: says(tenant, "select sum(opened) from tallies where account_id = %s", (1,)))
    assert await tenant.rows("select opened, opens from recipients where account_id = %s") == [(1, 1)]
    after = await tenant.metrics()
    counter = 'postferry_opens_total{opener="person"}'
    assert after[counter] - before[counter] == 1
    assert after["postferry_opens_waiting"] == 0


async def test_one_tenants_pixel_opens_only_its_own_mail(
    stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    first, other = await make_tenant(stack, upstream), await make_tenant(stack, upstream)
    for tenant in (first, other):
        await tenant.mail("same@there.example")
        await tenant.becomes(sent=1)
    ((delivery,),) = await first.rows("select id from deliveries where account_id = %s")
    await read(first, delivery)
    await until(lambda: says(first, "select opened from recipients where account_id = %s", (1,)))
    assert await other.rows("select opened from recipients where account_id = %s") == [(0,)]
    for table in ("fetches", "opens", "open_tallies", "notices"):
        assert await other.rows(f"select from {table} where account_id = %s") == []
    assert await other.rows("select from events where account_id = %s and type = 'trackOpen'") == []


async def read(tenant: Tenant, delivery: int) -> None:
    token = pixel.sign(Vault(tenant.settings.secret_keys).derive("pixel"), delivery)
    async with tenant.http.get(f"/t/{token}.gif", headers={"User-Agent": FIREFOX}) as answer:
        assert (answer.status, await answer.read()) == (200, pixel.GIF)


async def says(tenant: Tenant, query: str, row: tuple[Any, ...]) -> bool:
    return bool(await tenant.rows(query) == [row])
