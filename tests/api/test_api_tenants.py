"""No tenant sees or touches another's: every call that takes a token, walked with the token of a second tenant.

A call that is added to the API must be taught to the walk: what its path, query and body are filled with, so that they
point at what the other tenant has. `test_the_walk_knows_every_call` says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from api.app import OPERATIONS
from api.operation import Operation
from relay.core.place import Place, spell
from relay.store import db
from relay.store.db import Connection
from tests.api.client import SHOP, Client, Login
from tests.api.life import Life, hook, lived
from tests.api.test_api_outbox import submit
from tests.store.hooks import postings, told

VICTIM, THIEF = "zebra", "ibex"
CALLS = [operation for operation in OPERATIONS if operation.scope]
FINE = 200, 403, 404

PATHS: Mapping[str, Callable[[Life], object]] = {
    "account": lambda life: life.word,
    "queueId": lambda life: life.queue_id,
    "token": lambda life: life.token,
    "endpoint": lambda life: life.endpoint,
    "posting": lambda life: life.posting,
    "tracking_id": lambda life: life.sent,
    "address": lambda life: life.recipient,
    "message": lambda life: spell(Place(life.word, 1, 1)),
    "attachment": lambda life: f"{spell(Place(life.word, 1, 1))}.0",
}
"""What each part of a path is filled with."""

QUERIES: Mapping[str, Callable[[Life], object] | None] = {
    **dict.fromkeys(("textType", "maxBytes", "webSafeHtml")),
    **dict.fromkeys(("page", "pageSize", "limit", "cursor", "state", "status", "opener", "from", "to")),
    **dict.fromkeys(("kind", "matched")),
    **dict.fromkeys(("since", "until", "event", "opened", "pinned", "tz", "likely_fake", "sort")),
    "account": lambda life: life.word,
    "query": lambda life: life.word,
    "queueId": lambda life: life.queue_id,
    "eventId": lambda life: f"evt_{life.event}",
    "reason": lambda life: life.word,
    "suppressions.page?reason": lambda life: "manual",
    "email_type": lambda life: life.word,
    "reference_type": lambda life: life.word,
    "reference_id": lambda life: life.word,
    "recipient": lambda life: life.recipient,
    "search": lambda life: life.word,
    "by": lambda life: "email_type",
    "days": lambda life: 30,
    "machine": lambda life: "true",
}
"""What each query parameter is filled with, one at a time; None where no value of it names anything of a tenant's."""

BODIES: Mapping[str, Callable[[Life], Any]] = {
    "submit.submit": lambda life: {"to": {"address": life.recipient}, "text": "x"},
    "outbox.move": lambda life: {"sendAt": "2030-01-01T00:00:00Z"},
    "deadletters.replay": lambda life: {"ids": [life.dead]},
    "queue.pause": lambda life: {"paused": True},
    "accounts.create": lambda life: {"account": life.word, "name": "mine"},
    "accounts.change": lambda life: {"name": "mine", "webhooks": "https://mine.example/"},
    "tokens.create": lambda life: {"scopes": ["api"], "account": life.word},
    "webhooks.create": lambda life: {"url": "https://mine.example/", "account": life.word},
    "webhooks.change": lambda life: {"url": "https://mine.example/", "headers": {}},
    "webhooks.rotate": lambda life: {"validSeconds": 0},
    "postlog.replay": lambda life: {"eventIds": [f"evt_{life.event}"]},
    "postlog.test": lambda life: None,
    "suppressions.add": lambda life: {"account": life.word, "address": "mine@there.example"},
    "verification.verify_account": lambda life: {
        "account": life.word,
        "smtp": {"host": "smtp.example.com", "port": 993},
    },
    "verification.verify_stored": lambda life: None,
    "oauth2.authorize": lambda life: None,
    "tracking.note": lambda life: {"notes": "mine"},
    "tracking.note_again": lambda life: {"notes": "mine"},
}
"""What each call that takes a body, or is no GET, is sent."""


def parts(operation: Operation) -> set[str]:
    return set(re.findall(r"{(\w+)}", operation.path))


def fields(operation: Operation) -> set[str]:
    model = operation.query
    return {field.alias or name for name, field in model.model_fields.items()} if model else set()


AIMED = frozenset({"postlog.replay"})
"""Calls on what is one's own whose body may name what is another's."""


def addresses(operation: Operation, owners: Mapping[str, Life], life: Life) -> Iterator[str]:
    """The call on what these owners have, part by part: plain, then narrowed to what `life` has, by one query each."""
    path = operation.path.format_map({name: PATHS[name](owner) for name, owner in owners.items()})
    yield path
    for field in sorted(fields(operation)):
        if (fill := QUERIES.get(f"{operation.name}?{field}", QUERIES[field])) is not None:
            yield f"{path}?{field}={fill(life)}"


def own(operation: Operation, life: Life) -> dict[str, Life]:
    return dict.fromkeys(sorted(parts(operation)), life)


def about(operation: Operation, victim: Life, thief: Life) -> Iterator[str]:
    """Every address by which one tenant could try to get at another: each part of the path the one's or the other's.

    Not what it may well do to what is its own.
    """
    names = sorted(parts(operation))
    for owners in product((victim, thief), repeat=len(names)):
        harmless = operation.method == "GET" or operation.name in AIMED or not names
        if victim in owners or harmless:
            yield from addresses(operation, dict(zip(names, owners, strict=True)), victim)


async def asked(client: Client, operation: Operation, address: str, body: Any) -> list[tuple[int, str]]:
    """Status and text; of what is to be had as CSV, both ways."""
    found = []
    for media in ("application/json", "text/csv") if operation.sheeted else ("application/json",):
        headers = {"Accept": media, "X-Request-Id": "same"}
        response = await client.open(operation.method, address, body, headers=headers)
        found.append((response.status, await response.text()))
    return found


async def rows(conn: Connection, account: str) -> dict[str, Any]:
    """All that is stored of an account, table by table."""
    cursor = await conn.execute("select table_name from information_schema.columns where column_name = 'account_id'")
    found = {}
    for (table,) in [*await cursor.fetchall(), ("accounts",)]:
        whose = "id" if table == "accounts" else "account_id"
        query = f"select t::text from {table} t where {whose} = %s order by 1"
        found[table] = await (await conn.execute(query.encode(), (account,))).fetchall()
    return found


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[Connection]:
    async with db.connection(pool) as conn:
        yield conn


@pytest.fixture
async def life(admin: Client, conn: Connection) -> Life:
    """A tenant that has all that one can have."""
    return await lived(admin, conn, THIEF)


@pytest.fixture
async def thief(life: Life, login: Login) -> Client:
    """It, with a token for everything of its own."""
    return await login("*", account=life.word)


@pytest.mark.parametrize("operation", CALLS, ids=[operation.name for operation in CALLS])
def test_the_walk_knows_every_call(operation: Operation) -> None:
    assert parts(operation) <= set(PATHS), "say in PATHS what each part of the path is filled with"
    assert fields(operation) <= set(QUERIES), "say in QUERIES what each query parameter is filled with"
    assert operation.name in BODIES or not (operation.body or operation.method == "POST"), "give it a body in BODIES"


async def test_no_call_shows_or_changes_anything_of_another_tenant(
    admin: Client, thief: Client, life: Life, conn: Connection
) -> None:
    """Given a tenant with something in every table, when another asks by every call, then nothing comes of it."""
    victim = await lived(admin, conn, VICTIM)
    before, offenders = await rows(conn, VICTIM), []
    for operation in CALLS:
        body = BODIES[operation.name](victim) if operation.name in BODIES else None
        for address in about(operation, victim, life):
            for status, text in await asked(thief, operation, address, body):
                for name in parts(operation) if status == 404 else ():  # an error may repeat what it was asked for
                    text = text.replace(str(PATHS[name](victim)), "")
                strict = re.search(rf"account[/=]{VICTIM}(/|\?|$)", address)
                if VICTIM in text or victim.queue_id in text or status not in ((403,) if strict else FINE):
                    offenders.append((operation.name, address, status, text[:200]))
    changed = [table for table, were in before.items() if (await rows(conn, VICTIM))[table] != were]

    assert offenders == []
    assert changed == []


async def test_no_answer_depends_on_what_others_have(
    admin: Client, thief: Client, life: Life, conn: Connection
) -> None:
    """Given what a tenant asks about itself, when another comes to live beside it, then every answer is the same."""
    mine = [one for one in CALLS if one.method == "GET"]

    async def answers() -> dict[str, Any]:
        return {
            address: await asked(thief, operation, address, None)
            for operation in mine
            for address in addresses(operation, own(operation, life), life)
        }

    before = await answers()
    await lived(admin, conn, VICTIM)
    after = await answers()

    assert [address for address in before if before[address] != after[address]] == []
    here = [found for address, found in before.items() if not ELSEWHERE.search(address)]
    assert {status for found in here for status, _ in found} <= {200, 403}


ELSEWHERE = re.compile(r"/(?:message|attachment)/")
"""Calls that ask a mailbox, which these tenants have none of: it is not found, whoever asks."""


async def test_a_tenant_is_shown_its_own_by_every_call(
    admin: Client, thief: Client, conn: Connection, login: Login
) -> None:
    """What the walk looks for is there to be found: else it would prove nothing."""
    victim = await lived(admin, conn, VICTIM)
    mine = await login("*", account=VICTIM)
    blind = []
    for operation in CALLS:
        if operation.method == "GET":
            path = next(addresses(operation, own(operation, victim), victim))
            for status, text in await asked(mine, operation, path, None):
                if VICTIM not in text and status != 403:
                    blind.append((operation.name, status, text[:300]))

    assert [found for found in blind if found[0] not in FIGURES] == []


FIGURES = frozenset({"besttime.show"})
"""Calls whose answers are numbers alone: `test_no_answer_depends_on_what_others_have` is about them."""


async def test_nothing_is_told_of_whether_another_account_is_there(
    admin: Client, thief: Client, conn: Connection
) -> None:
    victim = await lived(admin, conn, VICTIM)
    differing = []
    for operation in CALLS:
        if "account" in parts(operation):
            body = BODIES[operation.name](victim) if operation.name in BODIES else None
            path = next(addresses(operation, own(operation, victim), victim))
            elsewhere = path.replace(f"account/{VICTIM}", "account/not-there")
            there, nowhere = [await asked(thief, operation, each, body) for each in (path, elsewhere)]
            if there != nowhere or there[0][0] != 403:
                differing.append((operation.name, there, nowhere))

    assert differing == []


async def test_a_tenant_does_what_is_its_own(thief: Client) -> None:
    await thief.ok("PUT", f"/v1/account/{THIEF}", {"name": "Mine"})
    queue_id = await submit(thief, account=THIEF)
    assert (await thief.ok("GET", "/v1/queue/status"))["pending"] == 2
    assert (await thief.ok("DELETE", f"/v1/outbox/{queue_id}"))["cancelled"] == 1


async def test_each_endpoint_is_told_what_it_may_know(admin: Client, shop: str, conn: Connection) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other", "email": ""})
    one, other, all_ = [
        (await admin.ok("POST", "/v1/webhooks", hook("x") | {"account": account}))["id"]
        for account in ("shop", "other", None)
    ]
    ours, theirs = await told(conn, "shop"), await told(conn, "other")

    assert [row[:2] for row in await postings(conn)] == [(one, ours), (other, theirs), (all_, ours), (all_, theirs)]
