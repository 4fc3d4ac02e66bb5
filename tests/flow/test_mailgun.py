"""A lease against Mailgun's API: what is sent, what is recorded, what the account learns."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay.core import splice
from relay.core.errors import StoreAway
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db, leases
from tests.conftest import MakeTenant
from tests.fakes.mailgun import KEY, MailgunServer
from tests.fakes.upstream import Upstream
from tests.flow.test_deliver import HTML, Line
from tests.stack import Stack, until
from tests.tenant import HTML as HTML_TEXT
from tests.tenant import Tenant


class Post(Line):
    """A production line whose account sends through Mailgun."""

    async def mailgun(self, server: MailgunServer, key: str = KEY, **limits: int) -> None:
        sealed = Vault(self.settings.secret_keys).seal("a", "mailgun.apiKey", key)
        settings = {name: value for name, value in server.settings.items() if name != "apiKey"}
        async with db.connection(self.pool) as conn:
            await conn.execute(
                "insert into accounts (id, config, secrets) values ('a', %s, %s)"
                " on conflict (id) do update set secrets = excluded.secrets, updated_at = now()",
                (Jsonb({"mailgun": settings, "limits": limits}), Jsonb({"mailgun.apiKey": sealed})),
            )

    async def attempts(self) -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            found = await conn.execute("select outcome::text, stage, code, upstream from attempts order by id")
            return await found.fetchall()


@pytest.fixture
async def line(pool: db.Pool, settings: Settings) -> AsyncIterator[Post]:
    line = Post(pool, settings)
    yield line
    await line.end()


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with MailgunServer() as server:
        yield server


async def test_each_recipient_gets_a_copy_of_their_own_over_one_connection(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server)
    await line.accept("one@x.example", "two@x.example", content=HTML, splice=splice.find(HTML))
    await line.deliver()
    assert [taken.to for taken in server.taken] == ["one@x.example", "two@x.example"]
    assert len({taken.content for taken in server.taken}) == 2  # each has its pixel
    assert server.connections == 1
    assert await line.rows() == [("sent", 1, "sent")] * 2
    assert await line.rows("reply") == [("Queued. Thank you. id=x@example.com",)] * 2
    assert await line.attempts() == [("sent", "dot", 250, f"127.0.0.1:{server.port}")] * 2
    assert await line.events() == ["messageSent"] * 2


async def test_what_mailgun_took_is_stored_before_the_account_is_well_again(
    line: Post, server: MailgunServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise StoreAway("gone")

    monkeypatch.setattr("relay.trouble.health.well", away)
    await line.mailgun(server)
    await line.accept("one@x.example")
    async with db.connection(line.pool) as conn:
        await conn.execute("update accounts set failures = 1")
    await line.deliver()
    assert len(server.taken) == 1
    assert await line.rows() == [("sent", 1, "sent")]


async def test_a_worker_that_is_lost_leaves_one_of_mailguns_requests_in_doubt(
    line: Post, server: MailgunServer
) -> None:
    await line.mailgun(server)
    await line.accept("one@x.example", "two@x.example", "three@x.example")
    lease = await line.lease()
    async with db.connection(line.pool) as conn:
        assert lease is not None
        await leases.start(conn, lease, seconds=60)
    assert await line.recovered() == ["unknown"]
    assert await line.rows("state::text, attempts") == [("queued", 1), ("queued", 0), ("queued", 0)]


async def test_copies_that_are_the_same_are_requests_of_their_own_too(line: Post, server: MailgunServer) -> None:
    server.when("two@x.example").say(400, {"message": "'to' parameter is not a valid address. please check"})
    await line.mailgun(server)
    await line.accept("one@x.example", "two@x.example", "three@x.example")
    await line.deliver()
    assert [taken.to for taken in server.taken] == ["one@x.example", "three@x.example"]
    assert await line.rows() == [("sent", 1, "sent"), ("failed", 1, "bad_address"), ("sent", 1, "sent")]


async def test_a_reply_that_is_lost_is_recorded_as_unknown_and_tried_again(line: Post, server: MailgunServer) -> None:
    server.when(times=1).drop()
    await line.mailgun(server)
    await line.accept("one@x.example")
    await line.deliver()
    assert await line.rows() == [("deferred", 1, "unknown")]
    await line.now()
    await line.deliver()
    assert await line.rows() == [("sent", 2, "sent")]
    assert [attempt[0] for attempt in await line.attempts()] == ["unknown", "sent"]


async def test_a_kept_connection_that_is_dead_costs_no_try(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server)
    await line.accept("one@x.example")
    await line.deliver()
    server.drop()
    await line.accept("two@x.example")
    await line.deliver()
    assert await line.rows() == [("sent", 1, "sent")] * 2


async def test_a_refused_key_pauses_the_account_and_a_good_one_resumes_it(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server, "key-bad")
    await line.accept("one@x.example")
    await line.deliver()
    assert await line.account_is() == ("refused", 0)
    assert await line.rows() == [("deferred", 0, "mailgun_key")]
    assert await line.events() == ["messageDeliveryError", "authenticationError", "accountPaused"]
    await line.mailgun(server, KEY)
    await line.now()
    await line.deliver()
    assert await line.account_is() == ("active", 0)
    assert await line.rows() == [("sent", 1, "sent")]
    assert (await line.events())[3:] == ["messageSent", "accountResumed"]


async def test_a_probe_that_is_refused_again_tells_nothing_new(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server, "key-bad")
    await line.accept("one@x.example")
    await line.deliver()
    await line.now()
    await line.deliver()
    told = await line.events()
    assert (told.count("accountPaused"), told.count("accountResumed")) == (1, 0)


async def test_throttling_lets_the_account_rest_and_costs_no_attempt(line: Post, server: MailgunServer) -> None:
    server.when(times=1).say(429, {"message": "Too Many Requests"}, Retry_After="300")
    await line.mailgun(server)
    await line.accept("one@x.example", "two@x.example")
    await line.deliver()
    assert server.taken == []
    async with db.connection(line.pool) as conn:
        row = await (await conn.execute("select retry_at - now() > '290 seconds' from accounts")).fetchone()
    assert row == (True,)
    assert await line.lease() is None
    await line.now()
    while (lease := await line.lease()) is not None:
        await line.deliverer.deliver(lease)
    assert sorted(await line.rows("state::text, attempts")) == [("sent", 1)] * 2
    assert await line.account_is() == ("active", 0)


async def test_nobody_there_is_the_accounts_trouble(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server)
    await server.stop()
    await line.accept("one@x.example", "two@x.example")
    await line.deliver()
    assert await line.account_is() == ("active", 1)
    assert await line.rows("attempts") == [(1,), (0,)]
    assert "connectError" in await line.events()


async def test_the_key_is_in_no_row(line: Post, server: MailgunServer) -> None:
    await line.mailgun(server, "key-very-secret")
    await line.accept("one@x.example")
    await line.deliver()
    async with db.connection(line.pool) as conn:
        for table in ("accounts", "events", "deliveries"):
            rows = await (await conn.execute(f"select t::text from {table} t".encode())).fetchall()
            assert rows
            assert "key-very-secret" not in str(rows)


# -- with the real roles -----------------------------------------------------------------------------------------------

SIGNING = "signing-key-of-a-domain"


@pytest.fixture
async def tenant(stack: Stack, upstream: Upstream, server: MailgunServer, make_tenant: MakeTenant) -> Tenant:
    settings = {**server.settings, "webhookSigningKey": SIGNING}
    return await make_tenant(stack, upstream, smtp=None, mailgun=settings, tracking={"opens": True})


def signed(**told: Any) -> dict[str, Any]:
    stamp, token = str(int(time.time())), secrets.token_hex(25)
    made = hmac.new(SIGNING.encode(), f"{stamp}{token}".encode(), "sha256").hexdigest()
    return {"signature": {"timestamp": stamp, "token": token, "signature": made}, "event-data": told}


async def test_mail_of_both_doors_goes_out_by_mailgun_and_its_bounce_comes_back(
    tenant: Tenant, server: MailgunServer
) -> None:
    """Given mail over SMTP and HTTP, each recipient has a copy; what Mailgun tells of one makes it a bounce."""
    server.when("c@there.example", times=1).drop()
    await tenant.mail("a@there.example", html=True)
    answer = await tenant.submit("b@there.example", "c@there.example", html=HTML_TEXT)
    await tenant.becomes(sent=3)
    assert sorted(taken.to for taken in server.taken) == ["a@there.example", "b@there.example", "c@there.example"]
    assert len({taken.content for taken in server.taken}) == 3  # pixels of their own
    assert await tenant.unknowns() == {"c@there.example"}

    status = {"code": 550, "message": "5.1.1 The email account that you tried to reach does not exist."}
    headers = {"message-id": answer["messageId"].strip("<>")}
    told = {"event": "failed", "severity": "permanent", "recipient": "b@there.example", "delivery-status": status}
    webhook = signed(id="e1", timestamp=time.time(), message={"headers": headers}, **told)
    path = f"/v1/providers/mailgun/{tenant.id}"
    async with tenant.http.post(path, json=webhook, headers={"Authorization": ""}) as response:
        assert (response.status, await response.json()) == (200, {"effect": "bounced"})
    assert await tenant.states() == {"sent": 2, "bounced": 1}
    [(data,)] = await tenant.rows("select data from events where account_id = %s and type = 'messageBounce'")
    assert (data["recipient"], data["queueId"]) == ("b@there.example", answer["queueId"])


async def test_throttled_mail_resumes_by_itself(tenant: Tenant, server: MailgunServer) -> None:
    server.when(times=1).say(429, {"message": "Too Many Requests"}, Retry_After="1")
    await tenant.submit("a@there.example", "b@there.example")
    await tenant.becomes(sent=2)
    assert await tenant.attempts() == ["sent", "sent"]


async def test_the_key_is_in_no_log(
    tenant: Tenant, server: MailgunServer, stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    bad = {**server.settings, "apiKey": "key-refused-and-secret"}
    other = await make_tenant(stack, upstream, smtp=None, mailgun=bad)
    await other.submit("a@there.example")
    await until(lambda: refused(other))
    said = stack.said()
    assert "Mailgun refuses the API key" in said
    assert "key-refused-and-secret" not in said


async def refused(tenant: Tenant) -> bool:
    return (await tenant.ask("GET", f"/v1/account/{tenant.id}"))[1]["state"] == "refused"


async def test_tokens_of_the_mailbox_keep_no_mail_back(line: Post, server: MailgunServer) -> None:
    """Given an account whose mailbox wants OAuth2, with no token to be had, mail goes by Mailgun all the same."""
    await line.mailgun(server)
    oauth2 = {"provider": "custom", "auth": {"user": "ann@x.example"}, "tokenUrl": "http://127.0.0.1:1/"}
    mailbox = {"host": "127.0.0.1", "auth": {"user": "ann@x.example"}}
    async with db.connection(line.pool) as conn:
        await conn.execute("update accounts set config = config || %s", (Jsonb({"oauth2": oauth2, "imap": mailbox}),))
    await line.accept("one@x.example")
    await line.deliver()
    assert await line.rows() == [("sent", 1, "sent")]
