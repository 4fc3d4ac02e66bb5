"""The pixel: always the picture, at once; a fetch is judged and recorded only for a token that we signed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from api.call import House
from api.problems import not_http
from relay.core import pixel
from relay.core.errors import StoreAway
from relay.core.model import Opener
from relay.core.opener import Judgement, Look
from relay.geo import Place, Places
from relay.store import db
from tests.api.client import Client
from tests.api.test_api_outbox import submit

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


async def rows(pool: db.Pool, query: str = "") -> list[Any]:
    query = query or "select delivery_id, method, host(address), user_agent from fetches"
    async with db.connection(pool) as conn:
        return await (await conn.execute(query.encode())).fetchall()


@pytest.fixture
async def delivery(admin: Client, shop: str, pool: db.Pool) -> int:
    """One that was sent an hour ago."""
    await submit(admin)
    (row,) = await rows(
        pool, "update deliveries set state = 'sent', finished_at = now() - interval '1 hour' returning id"
    )
    return int(row[0])


@pytest.fixture
def token(delivery: int, house: House) -> str:
    return pixel.sign(house.vault.derive("pixel"), delivery)


async def fetch(nobody: Client, token: str, agent: str = FIREFOX, method: str = "GET") -> None:
    response = await nobody.open(method, f"/t/{token}.gif", headers={"User-Agent": agent})
    assert (response.status, response.headers["Content-Type"]) == (200, "image/gif")
    assert await response.read() == (pixel.GIF if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_fetch_is_kept_with_who_fetched(
    nobody: Client, token: str, pool: db.Pool, house: House, method: str
) -> None:
    await fetch(nobody, token, "Mail/1.0", method)
    await house.opens.close()
    assert [row[1:] for row in await rows(pool)] == [(method, "127.0.0.1", "Mail/1.0")]


async def test_nothing_on_the_way_may_keep_the_picture(nobody: Client, token: str) -> None:
    response = await nobody.open("GET", f"/t/{token}.gif")
    assert {"no-store", "private", "max-age=0"} <= set(response.headers["Cache-Control"].split(", "))
    assert (response.headers["Pragma"], response.headers["Expires"]) == ("no-cache", "0")
    assert response.headers["Content-Length"] == str(len(pixel.GIF))
    assert not {"ETag", "Last-Modified", "Set-Cookie"} & set(response.headers)


async def test_a_fetch_is_judged(nobody: Client, token: str, pool: db.Pool, house: House) -> None:
    await fetch(nobody, token)
    await fetch(nobody, token, "Mozilla/5.0 (via ggpht.com GoogleImageProxy)")
    await fetch(nobody, token, "", "HEAD")
    await house.opens.close()
    judged = await rows(pool, "select opener::text, client, reason <> '' from fetches order by id")
    assert judged == [("person", "Firefox", True), ("proxy", "Gmail", True), ("scanner", "", True)]
    ((opens, any_opens),) = await rows(pool, "select opens, any_opens from opens")
    assert (opens, any_opens) == (2, 3)


async def test_the_judge_is_told_what_came_before(
    nobody: Client, token: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Look] = []

    def judge(look: Look) -> Judgement:
        looks.append(look)
        return Judgement(Opener.PERSON, "", "")

    monkeypatch.setattr("relay.core.opener.judge", judge)
    for number in range(3):
        await fetch(nobody, token, f"Reader/{number}")
    await house.opens.close()
    assert [(look.agent, look.earlier, look.burst) for look in looks] == [
        ("Reader/0", 0, 0),
        ("Reader/1", 1, 1),
        ("Reader/2", 2, 2),
    ]
    assert {(str(look.address), look.method, look.host) for look in looks} == {("127.0.0.1", "GET", "")}
    assert all(look.since_sent is not None and 3590 < look.since_sent < 3700 for look in looks)


async def test_the_senders_own_look_is_no_open(nobody: Client, token: str, pool: db.Pool, house: House) -> None:
    own = Jsonb({"tracking": {"own": ["127.0.0.0/8"]}})
    async with db.connection(pool) as conn:
        await conn.execute("update accounts set config = config || %s", (own,))
    await fetch(nobody, token)
    await house.opens.close()
    assert await rows(pool, "select opener::text, 0 from fetches") == [("self", 0)]
    assert await rows(pool, "select opens, any_opens from opens") == [(0, 0)]


async def test_only_where_a_reader_may_be_is_a_place(
    nobody: Client, token: str, pool: db.Pool, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Places, "find", lambda *_: Place("DE", "Berlin"))
    await fetch(nobody, token)
    await fetch(nobody, token, "Mozilla/5.0 (via ggpht.com GoogleImageProxy)")
    await fetch(nobody, token, "", "HEAD")
    await house.opens.close()
    places = await rows(pool, "select opener::text, country, city from fetches order by id")
    assert places == [("person", "DE", "Berlin"), ("proxy", "", ""), ("scanner", "", "")]


async def raw(nobody: Client, token: str, agent: bytes) -> bytes:
    """The answer to a request whose User-Agent is these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nobody.http.port)
    lines = [f"GET /t/{token}.gif HTTP/1.1".encode(), b"Host: x", b"Connection: close", b"User-Agent: " + agent]
    writer.write(b"\r\n".join([*lines, b"", b""]))
    answer = b""
    with suppress(ConnectionResetError):  # behind an answer to what was not read to its end
        while part := await reader.read(1024):
            answer += part
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("agent", "kept"),
    [
        (b"x" * 5000, "x" * 1000),
        (b"x" * 100_000, "x" * 1000),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"caf\xe9 \xff", "caf? ?"),
        (b"", ""),
    ],
    ids=["long", "endless", "utf-8", "latin-1", "none"],
)
async def test_any_user_agent_can_be_kept(
    nobody: Client, token: str, pool: db.Pool, house: House, agent: bytes, kept: str
) -> None:
    assert (await raw(nobody, token, agent)).endswith(pixel.GIF)
    await house.opens.close()
    assert [row[3] for row in await rows(pool)] == [kept]
    assert await rows(pool, "select data ->> 'userAgent' from events where type = 'trackOpen'") == [(kept,)]


async def test_a_longer_user_agent_is_refused_in_good_order(
    nobody: Client, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("aiohttp.server").addFilter(not_http)  # as the role does
    try:
        answer = await raw(nobody, token, b"x" * 300_000)
    finally:
        logging.getLogger("aiohttp.server").removeFilter(not_http)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("token", ["x", "A" * 32, "%00", "..%2f", "é", "A" * 3000])
async def test_any_token_answers_the_picture(nobody: Client, house: House, pool: db.Pool, token: str) -> None:
    response = await nobody.open("GET", f"/t/{token}.gif")
    assert (response.status, await response.read()) == (200, pixel.GIF)
    await house.opens.close()
    assert await rows(pool) == []


def damaged(token: str) -> Sequence[str]:
    changed = [
        token[:-1],
        token[1:],
        ("B" if token[0] == "A" else "A") + token[1:],
        token[:-1] + ("B" if token[-1] == "A" else "A"),
        token + "A",
        token.swapcase(),
        token[::-1],
    ]
    assert token not in changed
    return changed


async def test_a_token_that_was_cut_or_changed_records_nothing(
    nobody: Client, house: House, pool: db.Pool, token: str
) -> None:
    for wrong in damaged(token):
        await fetch(nobody, wrong)
    await house.opens.close()
    assert await rows(pool) == []


async def test_a_token_of_another_installation_records_nothing(
    nobody: Client, house: House, pool: db.Pool, delivery: int
) -> None:
    await fetch(nobody, pixel.sign([b"another key"], delivery))
    await house.opens.close()
    assert await rows(pool) == []


async def test_made_up_tokens_cost_the_store_nothing(
    nobody: Client, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr("relay.opens.Opens._commit", never)
    await asyncio.gather(*(nobody.open("GET", f"/t/{number:032d}.gif") for number in range(100)))
    await house.opens.close()


async def test_the_picture_comes_while_the_store_is_away(
    nobody: Client, token: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(*_: Any) -> None:
        raise StoreAway("for good")

    monkeypatch.setattr("relay.store.opens.known", known)
    await fetch(nobody, token)
    await house.opens.close()


async def test_a_fetch_of_what_is_gone_is_not_kept(nobody: Client, house: House, pool: db.Pool) -> None:
    await fetch(nobody, pixel.sign(house.vault.derive("pixel"), 10**12))
    await house.opens.close()
    assert await rows(pool) == []


async def test_judging_takes_turns_with_whoever_else_is_served(
    nobody: Client, token: str, pool: db.Pool, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that cost much to read, and many at a time: a picture does not wait for all of them."""

    judged = 0

    def slowly(look: Look) -> Judgement:
        nonlocal judged
        time.sleep(0.02)  # what it costs: the loop stands still
        judged += 1
        return Judgement(Opener.UNKNOWN, "", "It took long.")

    monkeypatch.setattr("relay.opens.opener.judge", slowly)
    for number in range(50):
        house.opens.fetched(token, "GET", "192.0.2.1", f"{number}")
    recorded = asyncio.create_task(house.opens.close())
    seen = set()
    while not recorded.done():
        await asyncio.sleep(0)
        seen.add(judged)
    assert await rows(pool, "select fetches from opens") == [(50,)]
    assert len(seen) > 10  # so often was it somebody else's turn


async def test_one_delivery_does_not_take_the_room_of_others(
    delivery: int, token: str, pool: db.Pool, house: House, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.opens.MOST_OF_ONE", 3)
    await submit(admin)
    ((other,),) = await rows(pool, f"select id from deliveries where id <> {delivery}")
    for _ in range(5):
        house.opens.fetched(token, "GET", "192.0.2.1", FIREFOX)
    house.opens.fetched(pixel.sign(house.vault.derive("pixel"), other), "GET", "192.0.2.1", FIREFOX)
    await house.opens.close()
    assert dict(await rows(pool, "select delivery_id, fetches from opens")) == {delivery: 3, other: 1}
    house.opens.fetched(token, "GET", "192.0.2.1", FIREFOX)
    await house.opens.close()
    assert await rows(pool, f"select fetches from opens where delivery_id = {delivery}") == [(4,)]
