"""What meets every call at the door: tokens, scopes, shapes of errors, bodies that are no JSON."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from api import throttle
from api.call import House
from api.problems import Error, Problem, not_http
from relay.store import db, tokens
from tests.api.client import SHOP, Client, Login
from tests.stack import until


async def test_without_a_token_the_answer_says_which_one(nobody: Client) -> None:
    response = await nobody.open("GET", "/v1/accounts")
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["x", "pf_" + "A" * 43, "pf_\udcff", "é" * 46, "a b"])
async def test_a_token_that_is_not_ours_is_a_401(nobody: Client, token: str) -> None:
    assert (await nobody.open("GET", "/v1/accounts", headers={"Authorization": f"Bearer {token}"})).status == 401


async def test_another_scope_is_a_403(login: Login) -> None:
    status, error = await (await login("smtp", "metrics")).ask("GET", "/v1/accounts")
    assert (status, error["code"]) == (403, "MissingScope")


async def test_a_revoked_token_opens_nothing_after_a_second(login: Login, pool: db.Pool, admin: Client) -> None:
    client = await login("api")
    await client.ok("GET", "/v1/accounts")
    listed = await admin.ok("GET", "/v1/tokens")
    await admin.ok("DELETE", f"/v1/tokens/{listed['items'][-1]['id']}")
    async with asyncio.timeout(20):
        while (await client.open("GET", "/v1/accounts")).status != 401:
            pass


async def test_guessing_is_slowed_and_does_not_shut_others_out(nobody: Client, admin: Client, login: Login) -> None:
    await admin.ok("GET", "/v1/accounts")
    for _ in range(throttle.MOST):
        guess = Client(nobody.http, tokens.PREFIX + "A" * 43)
        assert (await guess.open("GET", "/v1/accounts")).status == 401
    response = await guess.open("GET", "/v1/accounts")
    assert response.status == 429
    assert 0 < int(response.headers["Retry-After"]) <= throttle.SECONDS
    await admin.ok("GET", "/v1/accounts")


def test_a_window_of_refusals_ends() -> None:
    now = 0.0
    slow = throttle.Throttle(lambda: now)
    for _ in range(throttle.MOST):
        slow.check("a")
        slow.count("a")
    slow.check("b")
    with pytest.raises(Problem):
        slow.check("a")
    now = throttle.SECONDS + 1
    slow.check("a")


async def test_an_unknown_address_is_a_404_in_json(admin: Client) -> None:
    status, error = await admin.ask("GET", "/v1/nothing")
    assert (status, error["statusCode"], error["error"]) == (404, 404, "Not Found")


CODED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/v1/nothing", {}, 404, "NotFound"),
    ("GET", "/", {"headers": {"Expect": "a miracle"}}, 404, "NotFound"),
    ("PATCH", "/v1/accounts", {}, 405, "MethodNotAllowed"),
    ("POST", "/v1/account", {"data": "x", "headers": {"Content-Type": "text/plain"}}, 415, "UnsupportedMediaType"),
    ("POST", "/v1/account", {"json": {}, "headers": {"Content-Encoding": "br"}}, 415, "UnsupportedMediaType"),
    ("POST", "/v1/account", {"json": {}, "headers": {"Content-Encoding": "gzip"}}, 400, "UnreadableBody"),
    ("POST", "/v1/account", {"json": {"a": 1}, "headers": {"Expect": "a miracle"}}, 400, "InvalidFields"),
    ("GET", "/v1/accounts?page=x", {}, 400, "InvalidFields"),
]


@pytest.mark.parametrize(("method", "path", "more", "status", "code"), CODED, ids=[str(at) for at in range(len(CODED))])
async def test_every_error_has_its_code(
    admin: Client, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    found, error = await admin.ask(method, path, **more)
    Error.model_validate(error)
    assert (found, error["code"]) == (status, code)


async def test_whoever_waits_for_a_word_sends_the_body_then(admin: Client) -> None:
    status, answer = await admin.ask("POST", "/v1/account", {"account": "shop"}, expect100=True)
    assert (status, answer["state"]) == (200, "new")


async def status_of(client: Client, target: str) -> int:
    """The answer to a request for exactly this: clients would spell it otherwise."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.http.port)
    said = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\nConnection: close\r\n\r\n"
    writer.write(said.encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize(
    "target",
    [
        *("/%6detrics", "/%6Detrics?x=1", "/metric%73", "/metrics#", "/metrics#x", "/metrics%23", "/metrics%2F"),
        *("//metrics", "/./metrics", "/x/../metrics", "/x/%2e%2e/metrics", "/x%2F..%2Fmetrics", "/%2e/metrics"),
        *("http://x/%6detrics", "http://x//metrics", "/%761/accounts", "/v1/%61ccount/shop", "/v1/account/shop#"),
    ],
)
async def test_what_is_shielded_by_its_path_has_one_spelling(admin: Client, shop: str, target: str) -> None:
    assert await status_of(admin, target) == 404


@pytest.mark.parametrize(
    "target",
    [
        *("/metrics", "http://x/metrics", "/v1/account/%73hop", "/v1/account/zoe%40caf%65.example%2B"),
        *(
            "/v1/account/shop/recipients/z%C3%B6e%2Bx%40b.example%7E",
            "/v1/account/shop/recipients/z%C3%B6e+x@b.example~",
        ),
    ],
)
async def test_parts_of_an_address_may_be_encoded(admin: Client, shop: str, pool: db.Pool, target: str) -> None:
    await admin.ok("POST", "/v1/account", {"account": "zoe@cafe.example+"})
    async with db.connection(pool) as conn:
        await conn.execute("insert into recipients (account_id, address) values ('shop', 'zöe+x@b.example~')")
    assert await status_of(admin, target) == 200


async def test_another_method_is_a_405_that_names_those_there_are(admin: Client) -> None:
    response = await admin.open("PATCH", "/v1/account/shop", {})
    assert response.status == 405
    assert response.headers["Allow"] == "DELETE, GET, HEAD, PUT"


async def test_every_answer_has_its_request_id(admin: Client, nobody: Client) -> None:
    response = await admin.open("GET", "/v1/accounts")
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-Id"])
    response = await nobody.open("GET", "/v1/accounts", headers={"X-Request-Id": "mine-1"})
    assert response.headers["X-Request-Id"] == (await response.json())["requestId"] == "mine-1"


@pytest.mark.parametrize("given", ["a b", "x" * 65, 'a"b'])
async def test_a_request_id_that_could_upset_a_log_is_replaced(nobody: Client, given: str) -> None:
    response = await nobody.open("GET", "/health", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-Id"])


BODIES: list[tuple[bytes, str]] = [
    (b"", "line 1, column 1"),
    (b"{", "line 1, column 2"),
    (b'{\n  "name": "x",\n  "email": y\n}', "line 3, column 12"),
    (b'{"name": "x"} {}', "column 15"),
    (b'{"name": "a", "name": "b"}', 'has the key "name" twice'),
    (b'{"name": NaN}', "NaN"),
    (b'{"name": -Infinity}', "-Infinity"),
    (b'{"name": "\xff"}', "not UTF-8 at byte 10"),
    (b'{"name": "\\ud800"}', "surrogate"),
    (b'{"\\uDC00": 1}', "surrogate"),
    (b'{"limits": {"perDay": ' + b"9" * 5000 + b"}}", "too long"),
    (b'{"limits": {"perDay": 1e999}}', "limits.perDay"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b"[" + b"[]," * 300_000 + b"1]", "more than 250000 values"),
    (b'{"a": ["",' + b'"",' * 300_000 + b'""]}', "more than 250000 values"),
    (b'{"name": "' + b"," * 300_000 + b'\\"' + b'\\",' * 100_000, "not JSON"),
    (b"{" + b",".join(b'"%d":1' % key for key in range(2000)) + b"}", "it has 2000 faults"),
    (b"[]", "object"),
    (b'"x"', "object"),
    (b"null", "object"),
]


@pytest.mark.parametrize(("body", "words"), BODIES, ids=range(len(BODIES)))
async def test_a_body_that_is_not_what_it_should_be_is_a_400(admin: Client, body: bytes, words: str) -> None:
    response = await admin.open("PUT", "/v1/account/x", data=body, headers={"Content-Type": "application/json"})
    error = await response.json()
    assert response.status == 400, error
    assert words in error["message"]
    assert "Traceback" not in error["message"]


async def test_another_content_type_is_a_415(admin: Client) -> None:
    response = await admin.open("POST", "/v1/account", data=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status == 415


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(admin: Client, chunked: bool) -> None:
    async def drip() -> Any:
        for _ in range(40):
            yield b" " * 100_000

    data: Any = drip() if chunked else io.BytesIO(b" " * 4_000_000)
    status, error = await admin.ask("POST", "/v1/account", data=data, headers={"Content-Type": "application/json"})
    assert (status, error["code"]) == (413, "BodyTooLarge")


async def test_a_compressed_bomb_is_a_413(admin: Client) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await admin.open("POST", "/v1/account", data=bomb, headers=headers)
    assert response.status == 413


async def test_a_bomb_of_nobody_is_not_unpacked(nobody: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "decompressobj", None)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await nobody.open("POST", "/v1/account", data=gzip.compress(b" " * 1_000_000), headers=headers)
    assert response.status == 401


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("Deflate", zlib.compress)])
async def test_a_body_may_be_compressed(admin: Client, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    body = pack(b'{"account": "shop", "name": "' + b"x" * 200 + b'"}')
    response = await admin.open("POST", "/v1/account", data=body, headers=headers)
    assert (response.status, await response.json()) == (200, {"account": "shop", "state": "new"})


@pytest.mark.parametrize(
    "body", [b"this is no gzip", gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"x", b""], ids=range(4)
)
async def test_a_body_that_is_not_compressed_as_it_says_is_a_400(admin: Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await admin.open("POST", "/v1/account", data=body, headers=headers)
    assert response.status == 400
    assert (await response.json())["statusCode"] == 400


async def test_another_compression_is_a_415(admin: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    response = await admin.open("POST", "/v1/account", data=b"{}", headers=headers)
    assert response.status == 415


def test_what_is_no_http_is_a_remark_without_its_bytes() -> None:
    error = BadHttpMessage("a: Bearer pf_secret")
    record = logging.LogRecord("aiohttp.server", 40, "", 0, "Error from %s", ("::1",), (type(error), error, None))
    assert not_http(record)
    assert (record.levelname, record.getMessage(), record.exc_info) == (
        "INFO",
        "refused, for it is no HTTP: from ::1",
        None,
    )


async def test_a_bug_is_a_500_without_its_cause(
    admin: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret cause")

    monkeypatch.setattr("relay.store.accounts.page", broken)
    status, error = await admin.ask("GET", "/v1/accounts")
    assert (status, error["code"]) == (500, "InternalError")
    assert "secret" not in str(error)
    told = next(record for record in caplog.records if "the secret cause" in record.getMessage())
    assert told.__dict__["requestId"] == error["requestId"]


async def test_health_is_for_everyone(nobody: Client) -> None:
    answer = await nobody.ok("GET", "/health")
    assert (answer["status"], answer["ready"]) == ("ok", True)


async def test_metrics_want_their_scope(login: Login, nobody: Client, shop: str) -> None:
    assert (await nobody.open("GET", "/metrics")).status == 401
    assert (await (await login("api")).open("GET", "/metrics")).status == 403
    assert (await (await login("metrics", account="shop")).open("GET", "/metrics")).status == 403
    response = await (await login("metrics")).open("GET", "/metrics")
    assert response.status == 200
    assert "postferry_oldest_due_seconds" in await response.text()


CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/accounts", None),
    ("GET", "/v1/account/shop", None),
    ("PUT", "/v1/account/shop", {"name": "x"}),
    ("POST", "/v1/account/shop/submit", {"to": {"address": "ada@example.com"}, "text": "x"}),
    ("GET", "/v1/outbox", None),
    ("GET", "/v1/queue/status", None),
    ("POST", "/v1/deadletters/replay", {"all": True}),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS, ids=[f"{method} {path}" for method, path, _ in CALLS])
async def test_while_the_store_is_away_every_call_is_a_503(
    admin: Client, shop: str, house: House, method: str, path: str, body: Any
) -> None:
    await admin.ok("GET", "/v1/account/shop")
    await house.pool.close()
    await house.turns._pool.close()
    response = await admin.open(method, path, body)
    assert response.status == 503, await response.text()
    assert int(response.headers["Retry-After"]) > 0


async def test_while_the_store_is_away_it_lives_and_is_not_ready(admin: Client, house: House) -> None:
    await admin.ok("GET", "/v1/accounts")
    await house.pool.close()
    status, answer = await admin.ask("GET", "/health")
    assert (status, answer["live"], answer["ready"]) == (503, True, False)
    response = await admin.open("GET", "/metrics")
    assert response.status == 200


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the API opens its pools: a lock keeps it out for a moment."""
    monkeypatch.setitem(db.PROMPT, "lock_timeout", "50ms")


async def test_who_needs_what_is_locked_is_told_so_and_not_that_the_store_is_away(
    hasty: None, admin: Client, shop: str, pool: db.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with db.connection(pool) as conn, conn.transaction():
        await conn.execute("select from accounts where id = %s for update", (shop,))
        status, error = await admin.ask("PUT", "/v1/account/shop", {"name": "x"})
    assert (status, error["code"]) == (503, "StoreAway")
    assert error["message"] == "The store is locked by somebody; nothing was done, try again"
    assert "the store is locked: canceling statement due to lock timeout" in caplog.text


async def test_a_body_that_never_ends_is_a_408(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reading.SECONDS", 0.05)
    answered = asyncio.Event()

    async def stuck() -> Any:
        yield b'{"name":'
        await answered.wait()

    headers = {"Content-Type": "application/json"}
    response = await admin.open("POST", "/v1/account", data=stuck(), headers=headers)
    answered.set()
    assert response.status == 408


async def test_bodies_that_do_not_end_take_half_of_the_room_at_most(
    admin: Client, shop: str, login: Login, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenant's; mail of the others is taken meanwhile."""
    monkeypatch.setattr(house.arrivals, "_most", 100_000)
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "cafe", "email": "cafe@example.com"})
    tenant, other, ended = await login("api", account=shop), await login("api", account="cafe"), asyncio.Event()

    async def stuck() -> Any:
        yield b'{"to": {"address": "ada@example.com"}, "text": "' + b"x" * 40_000
        await ended.wait()
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    first = asyncio.create_task(tenant.ask("POST", "/v1/account/shop/submit", data=stuck(), headers=headers))
    await until(lambda: house.arrivals.held > 40_000)
    mail = {"to": {"address": "ada@example.com"}, "text": "x" * 20_000}
    status, error = await tenant.ask("POST", "/v1/account/shop/submit", mail)
    assert (status, error["code"]) == (429, "TooManyCalls")
    await other.ok("POST", "/v1/account/cafe/submit", mail)
    ended.set()
    assert (await first)[0] == 200
    assert house.arrivals.held == 0


async def test_what_is_wrong_in_the_address_is_named(admin: Client) -> None:
    status, error = await admin.ask("GET", "/v1/account/-x")
    assert (status, error["fields"][0]["key"]) == (400, "account")
    assert "begin with a letter" in error["message"]
