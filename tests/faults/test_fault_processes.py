"""Workers and schedulers that die, freeze, or run side by side: at most one unknown per connection, and it is told."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.load import Load
from tests.stack import Stack, until
from tests.tenant import Tenant, people

CONNECTIONS = 2


@pytest.fixture
async def queue(tenant: Tenant) -> Tenant:
    """A tenant with 60 messages that wait for `flow`."""
    await tenant.change(limits={"connections": CONNECTIONS})
    await hold(tenant, True)
    async with asyncio.TaskGroup() as group:
        for recipient in people(60):
            group.create_task(tenant.submit(recipient))
    return tenant


async def hold(tenant: Tenant, paused: bool) -> None:
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": paused})


async def flow_until_replies_are_held(tenant: Tenant) -> asyncio.Event:
    """Mail flows, and each connection's first message waits for its reply until the event is set."""
    reply = asyncio.Event()
    dots = tenant.upstream.when("DOT", times=CONNECTIONS)
    dots.wait(reply).say("250 2.0.0 taken")
    await hold(tenant, False)
    await until(lambda: dots.times == 0)
    return reply


async def all_sent_with_unknowns(tenant: Tenant, recipients: list[str], most: int) -> None:
    """Everybody got a copy; who got another is named in an attempt of unknown outcome, and those are few."""
    await tenant.becomes(sent=len(recipients))
    received, unknown = tenant.received(), await tenant.unknowns()
    assert set(received) == set(recipients)
    assert {recipient for recipient, copies in received.items() if copies > 1} <= unknown
    assert received.total() - len(received) <= most
    assert len(unknown) <= most


async def test_a_worker_killed_in_the_middle_leaves_one_unknown_a_connection(stack: Stack, queue: Tenant) -> None:
    before = await queue.metrics()
    reply = await flow_until_replies_are_held(queue)
    await stack.kill("worker")
    reply.set()  # upstream has taken them, and there is nobody to hear it
    await queue.upstream.wait(CONNECTIONS)
    await stack.start("worker")
    await all_sent_with_unknowns(queue, people(60), most=CONNECTIONS)
    assert len(await queue.unknowns()) == CONNECTIONS
    more = await queue.metrics() - before
    assert more['postferry_leases_total{kind="recovered"}'] >= CONNECTIONS
    assert more[f'postferry_unknown_total{{account="{queue.id}"}}'] == CONNECTIONS


async def test_a_worker_that_is_stopped_ends_what_it_began_and_gives_back_the_rest(stack: Stack, queue: Tenant) -> None:
    reply = await flow_until_replies_are_held(queue)
    asyncio.get_running_loop().call_later(0.3, reply.set)
    await stack.stop("worker")
    assert await queue.rows("select id from leases where account_id = %s and started_at is not null") == []
    assert len(queue.upstream.taken) == CONNECTIONS
    await stack.start("worker")
    await queue.all_sent_once(people(60))
    assert await queue.unknowns() == set()


async def test_a_worker_that_froze_for_longer_than_its_lease_sends_no_more_of_it(stack: Stack, queue: Tenant) -> None:
    reply = await flow_until_replies_are_held(queue)
    stack.signal("worker", signal.SIGSTOP)
    try:
        reply.set()
        await stack.start("worker-2")
        await queue.becomes(sent=60)
    finally:
        stack.signal("worker", signal.SIGCONT)
    await queue.submit("last@there.example")
    await asyncio.sleep(0.5)
    await all_sent_with_unknowns(queue, [*people(60), "last@there.example"], most=CONNECTIONS)
    await stack.stop("worker-2")


async def test_a_scheduler_that_is_killed_again_and_again_loses_and_doubles_nothing(
    stack: Stack, tenant: Tenant
) -> None:
    async with Load(tenant) as load:
        for _ in range(2):
            await load.more(15)
            await stack.kill("scheduler")
            await load.more(5)
            await stack.start("scheduler")
    await load.all_arrived()


async def test_leases_that_a_killed_scheduler_did_not_hand_over_are_found(stack: Stack, tenant: Tenant) -> None:
    """Killed between the grant and the enqueue: as when what it had handed over is gone from the broker."""
    await stack.kill("scheduler")
    await tenant.mail(*people(3))
    await tenant.rows(
        "with lease as (insert into leases (account_id, priority, size, expires_at)"
        " values (%s, 1, 3, now() + interval '3 seconds') returning id, account_id)"
        " update deliveries d set state = 'leased', lease_id = lease.id from lease"
        " where d.account_id = lease.account_id returning 1"
    )
    await stack.start("scheduler")
    await tenant.all_sent_once(people(3))
    assert await tenant.unknowns() == set(), "nobody had begun it"


async def test_doors_killed_under_load_have_stored_what_they_acknowledged(stack: Stack, tenant: Tenant) -> None:
    async with Load(tenant) as load:
        await load.more(15)
        await stack.kill("smtp", "api")
        await load.refused(0)
        await stack.start("smtp", "api")
        await load.more(15)
    await load.all_arrived()


async def test_everything_killed_at_once_comes_back(stack: Stack, queue: Tenant) -> None:
    reply = await flow_until_replies_are_held(queue)
    await stack.kill("worker", "scheduler", "smtp", "api")
    reply.set()
    await stack.start("smtp", "api", "worker", "scheduler")
    await all_sent_with_unknowns(queue, people(60), most=CONNECTIONS)


async def test_two_schedulers_and_two_workers_send_once_and_keep_limits(
    stack: Stack, tenant: Tenant, make_tenant: MakeTenant
) -> None:
    await stack.start("worker-2", "scheduler-2")
    async with Upstream() as other:
        limited = await make_tenant(stack, other, limits={"perHour": 10})
        async with Load(tenant) as load, Load(limited) as too_much:
            await load.more(60)
        await load.all_arrived()
        await until(lambda: len(other.taken) >= 10)
        await asyncio.sleep(0.3)
        assert len(other.taken) == 10
        assert (await limited.states())["queued"] == len(too_much.acknowledged) - 10
    for name in ("worker-2", "scheduler-2"):
        await stack.stop(name)
