"""The drain of the webhook outbox, over real HTTP: what comes, how often, how signed, and who waits for whom."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from standardwebhooks import Webhook

from relay.core import webhook
from relay.core.vault import Vault, new_key
from relay.notify import EACH, Notifier
from relay.settings import Settings
from relay.store import db, postings
from tests.fakes.receiver import Receiver
from tests.faulty import once
from tests.notifying import Told
from tests.stack import Stack, until
from tests.store.posting import SECRET, events
from tests.tenant import Tenant
from workers.notify import together

BACKLOG = 100_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.notify.GRACE", 1.0)


@pytest.fixture
async def told(pool: db.Pool, settings: Settings) -> Told:
    told = Told(pool, settings)
    await told.account("a")
    return told


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def test_an_event_is_posted_and_the_public_library_verifies_it(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url("/hook"))
    id = await told.event(recipient="zoë@there.example")
    async with told.running():
        (post,) = await receiver.wait(1)
        await told.become(delivered=1)
    body = Webhook(SECRET).verify(post.body, dict(post.headers))
    ((at,),) = await told.rows("select at from events where id = %s", id)
    assert body == {
        "serviceUrl": told.settings.public_url,
        "account": "a",
        "date": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": "messageSent",
        "data": {"recipient": "zoë@there.example"},
    }
    assert post.headers["webhook-id"] == f"evt_{id}"
    assert post.headers["x-ee-wh-signature"] == webhook.sign_body(SECRET, post.body)
    assert post.headers["content-type"] == "application/json"


async def test_what_a_receiver_repeats_of_our_secrets_is_not_kept(told: Told, receiver: Receiver) -> None:
    receiver.when().say(500, f"you sent Very-Secret and {SECRET}".encode(), Location="/Very-Secret")
    id = await told.endpoint(receiver.url("/hook"))
    sealed = told.vault.seal(f"endpoint/{id}", "headers", '{"X-Key": "Very-Secret"}')
    await told.rows("update endpoints set headers = %s returning id", sealed)
    await told.event()
    async with told.running():
        await receiver.wait(1)
        await until(lambda: _kept(told))
    kept = str(await told.rows("select p::text from posts p"))
    assert "you sent *** and ***" in kept
    assert "Very-Secret" not in kept


async def _kept(told: Told) -> bool:
    return bool(await told.rows("select from posts"))


async def test_what_is_not_due_is_not_looked_for_without_rest(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """More endpoints than one claim looks through have something that waits, and nothing is due."""
    monkeypatch.setattr(postings, "LOOK", 2)
    ids = [await told.endpoint("http://127.0.0.1:9/") for _ in range(5)]
    await told.event()
    await told.rows("update postings set due_at = now() + interval '1 hour' returning id")
    notifier = Notifier(told.pool, told.settings, told.vault)
    turns = [await notifier._turn() for _ in range(9)]
    await told.rows("update postings set due_at = now() where endpoint_id = %s returning id", ids[-1])
    for _ in range(3):  # a round
        await notifier._turn()
    await notifier._end()
    assert turns.count(False) == 2  # after the second round, and the third
    assert await told.rows("select endpoint_id from postings where attempts = 1") == [(ids[-1],)]


async def test_both_secrets_sign_while_they_rotate(told: Told, receiver: Receiver) -> None:
    id, new = await told.endpoint(receiver.url()), webhook.new_secret(b"n" * 32)
    await told.rows(
        "update endpoints set secret = %s, old_secret = %s, old_until = now() + interval '1 hour' returning id",
        told.vault.seal(f"endpoint/{id}", "secret", new),
        told.vault.seal(f"endpoint/{id}", "oldSecret", SECRET),
    )
    await told.event()
    async with told.running():
        (post,) = await receiver.wait(1)
    for secret in (SECRET, new):
        Webhook(secret).verify(post.body, dict(post.headers))
    assert post.headers["x-ee-wh-signature"] == webhook.sign_body(new, post.body)


async def test_custom_headers_go_along(told: Told, receiver: Receiver) -> None:
    id = await told.endpoint(receiver.url())
    sealed = told.vault.seal(f"endpoint/{id}", "headers", '{"Authorization": "Bearer x"}')
    await told.rows("update endpoints set headers = %s returning id", sealed)
    await told.event()
    async with told.running():
        (post,) = await receiver.wait(1)
    assert post.headers["authorization"] == "Bearer x"


async def test_what_failed_is_tried_again_after_its_wait_under_the_same_id(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    receiver.when(times=2).say(500, b"not now")
    await told.event()
    async with told.running(webhook_retries=(0.2, 0.3)):
        await told.become(delivered=1)
    waits = [later.at - sooner.at for sooner, later in pairwise(receiver.posts)]
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    assert len({post.body for post in receiver.posts}) == 1
    assert waits[0] >= 0.2
    assert waits[1] >= 0.3
    log = await told.rows("select status, error, response from posts order by id")
    assert log == [(500, "it answered 500 Internal Server Error", "not now")] * 2 + [(204, "", "")]


async def test_a_schedule_that_is_over_ends_in_failure(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    receiver.when().say(503)
    await told.event()
    async with told.running(webhook_retries=(0.02,) * 7):
        await told.become(failed=1)
    assert len(receiver.posts) == 8
    assert await told.rows("select attempts, finished_at is not null from postings") == [(8, True)]


async def test_gone_is_heeded_at_once(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    receiver.when().say(410)
    async with told.running():
        await told.event()
        await told.become(failed=1)
        await told.event()
    assert await told.rows("select state::text, reason from endpoints") == [("disabled", "it answered 410 Gone")]
    assert len(receiver.posts) == 1


async def test_a_lost_key_is_told_as_the_reason(told: Told, receiver: Receiver) -> None:
    told.vault = Vault([new_key()])
    await told.endpoint(receiver.url())
    told.vault = Vault(told.settings.secret_keys)
    await told.event()
    async with told.running(webhook_retries=()):
        await told.become(failed=1)
    assert "POSTFERRY_SECRET_KEYS" in (await told.rows("select error from posts"))[0][0]
    assert not receiver.posts


async def test_a_healthy_endpoint_is_told_several_things_at_once(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    enough = asyncio.Event()
    receiver.when().wait(enough).say(200)
    async with db.connection(told.pool) as conn:
        await events(conn, 3 * EACH)
    async with told.running():
        await receiver.wait(EACH)
        enough.set()
        await told.become(delivered=3 * EACH)
    assert receiver.most_busy == EACH


async def test_a_failing_endpoint_is_told_one_thing_at_a_time_until_it_is_well(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    receiver.when().pause(0.02).say(500)
    await told.event()
    async with told.running(webhook_retries=(0.01,) * 200):
        await receiver.wait(1)
        await until(lambda: failing(told))
        async with db.connection(told.pool) as conn:
            await events(conn, 8)
        receiver.most_busy = 0
        seen = len(receiver.posts)
        await receiver.wait(seen + 5)
        assert receiver.most_busy == 1
        receiver.usual()
        await told.become(delivered=9)


async def failing(told: Told) -> bool:
    return (await told.rows("select failures > 0 from endpoints"))[0][0] is True


async def test_an_endpoint_that_failed_often_rests_between_two_tries(told: Told, receiver: Receiver) -> None:
    number = await told.endpoint(receiver.url())
    await told.rows("update endpoints set failures = 10, failing_since = now() where id = %s returning id", number)
    receiver.when().say(500)
    async with db.connection(told.pool) as conn:
        await events(conn, 5)
    async with told.running(webhook_retries=(0.3,) * 9):
        await receiver.wait(3)
    assert all(later.at - sooner.at >= 0.3 for sooner, later in pairwise(receiver.posts))


async def test_several_processes_post_each_try_once(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url("/a"))
    await told.endpoint(receiver.url("/b"))
    async with db.connection(told.pool) as conn:
        await events(conn, 300)
    async with told.running(), told.running(), told.running():
        await told.become(delivered=600)
    ids = Counter((post.path, post.headers["webhook-id"]) for post in receiver.posts)
    assert len(ids) == len(receiver.posts) == 600


async def test_what_is_in_flight_at_the_end_is_finished(told: Told, receiver: Receiver) -> None:
    await told.endpoint(receiver.url())
    receiver.when().pause(0.2).say(200)
    await told.event()
    async with told.running():
        await receiver.wait(1)
    assert await told.states() == {"delivered": 1}


async def test_what_does_not_end_in_time_is_given_back(
    told: Told, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.notify.GRACE", 0.1)
    await told.endpoint(receiver.url())
    receiver.when().hang()
    await told.event()
    async with told.running(webhook_timeout=30.0):
        await receiver.wait(1)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 20
    assert await told.rows("select state::text, attempts, due_at <= now() from postings") == [("pending", 0, True)]


async def test_a_process_that_stood_still_posts_nothing_of_old(
    told: Told, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim may be another process's by now."""
    await told.endpoint(receiver.url())
    await told.event()
    notifier = Notifier(told.pool, told.settings, told.vault)
    async with db.connection(told.pool) as conn:
        (posting,) = (await postings.claim(conn, after=0, most=1, each=1, share=1, busy={}, seconds=3)).postings
    await notifier._deliver(posting, None, notifier._clock() - notifier._lease)
    await notifier._poster.close()
    assert not await told.rows("select * from posts")


@pytest.mark.parametrize("ailing", ["hangs", "is dead", "is slow"])
async def test_a_hundred_thousand_waiting_delay_nobody_else(told: Told, receiver: Receiver, ailing: str) -> None:
    """The drain has looked at empty tables before, as it has in life: its plans were made for those."""
    {"hangs": receiver.when("/ill").hang, "is slow": lambda: receiver.when("/ill").pause(0.3).say(200)}.get(
        ailing, lambda: None
    )()
    await told.account("b")
    await told.endpoint("http://127.0.0.1:9/ill" if ailing == "is dead" else receiver.url("/ill"))
    await told.endpoint(receiver.url("/well"), "b")
    async with told.running(webhook_retries=(300.0,) * 7):
        await told.event("b")
        await receiver.wait(1, "/well")
        async with db.connection(told.pool) as conn:
            await events(conn, BACKLOG)
        await until(lambda: begun(told))
        delays = []
        for number in range(2, 7):
            asked = time.monotonic()
            await told.event("b")
            delays.append((await receiver.wait(number, "/well"))[-1].at - asked)
        waiting = (await told.rows("select count(*) from postings where state = 'pending'"))[0][0]
        stopping = time.monotonic()
        receiver.drop()
    print(f"with {waiting} waiting for an endpoint that {ailing}, others waited at most {max(delays):.3f} s")
    assert max(delays) < 5
    assert waiting > BACKLOG * 0.9
    assert time.monotonic() - stopping < 8


async def begun(told: Told) -> bool:
    """Something of the backlog has been claimed."""
    return bool((await told.rows("select count(*) from postings where due_at > now()"))[0][0])


async def test_where_slots_are_scarce_there_is_one_for_whoever_has_none(told: Told, receiver: Receiver) -> None:
    receiver.when("/ill").hang()
    await told.account("b")
    for _ in range(2):
        await told.endpoint(receiver.url("/ill"))
    await told.endpoint(receiver.url("/well"), "b")
    async with db.connection(told.pool) as conn:
        await events(conn, 100)
    async with told.running(webhook_connections=20):
        await receiver.wait(15, "/ill")
        await told.event("b")
        await receiver.wait(1, "/well")
        receiver.drop()


async def test_mail_that_was_sent_and_mail_that_failed_are_told_by_the_running_roles(
    stack: Stack, tenant: Tenant, receiver: Receiver
) -> None:
    told = Told(tenant.pool, stack.settings)
    await told.endpoint(receiver.url(f"/{tenant.id}"), tenant.id)
    tenant.upstream.when("RCPT", "nobody@").say("550 5.1.1 no such user")
    answer = await tenant.submit("ada@there.example", "nobody@there.example")
    posts = await receiver.wait(2)
    bodies = {post.json["data"]["recipient"]: Webhook(SECRET).verify(post.body, dict(post.headers)) for post in posts}
    assert {recipient: body["event"] for recipient, body in bodies.items()} == {
        "ada@there.example": "messageSent",
        "nobody@there.example": "messageFailed",
    }
    assert {body["account"] for body in bodies.values()} == {tenant.id}
    assert {body["data"]["queueId"] for body in bodies.values()} == {answer["queueId"]}
    await until(lambda: counted(tenant))


async def counted(tenant: Tenant) -> bool:
    return (await tenant.metrics())['postferry_webhooks_total{outcome="delivered"}'] >= 2


class Room:
    """A room that does as the test says, and remembers how it ended."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault, self.ended = fault, False

    async def run(self, stopping: asyncio.Event) -> None:
        if self.fault:
            raise self.fault
        await stopping.wait()
        self.ended = True


async def test_rooms_of_the_role_run_until_it_stops() -> None:
    rooms, stopping = [Room(), Room()], asyncio.Event()
    role = asyncio.create_task(together(rooms, stopping))
    stopping.set()
    await role
    assert [room.ended for room in rooms] == [True, True]


async def test_a_room_that_fails_ends_the_role_and_the_others_in_good_order() -> None:
    rooms = [Room(), Room(RuntimeError("a fault")), Room()]
    with pytest.raises(RuntimeError, match="a fault"):
        await asyncio.wait_for(together(rooms, asyncio.Event()), 5)
    assert [room.ended for room in rooms] == [True, False, True]


async def test_a_fault_of_ours_puts_webhooks_off_and_no_more(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Alerts, the books and verifications run in their role, which must not end with them."""
    again = once(monkeypatch, postings, "claim")
    monkeypatch.setattr("relay.notify.PUT_OFF", 0.01)
    async with told.running():
        await asyncio.wait_for(again.wait(), 20)
    assert "put off by a fault of ours" in caplog.text
