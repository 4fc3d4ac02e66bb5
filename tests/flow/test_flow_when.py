"""When mail goes: its hour, its class, its account's limits, and what an operator says."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.stack import Stack
from tests.tenant import Tenant, people

BRIEF = 0.3  # s, in which what must not happen would have happened


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def pause(tenant: Tenant, paused: bool) -> Any:
    return (await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": paused}))[1]


async def outbox(tenant: Tenant, method: str, queue_id: str, body: Any = None) -> Any:
    status, answer = await tenant.ask(method, f"/v1/outbox/{queue_id}", body)
    assert status == 200, answer
    return answer


async def test_mail_for_later_goes_at_its_time(tenant: Tenant) -> None:
    due = time.time() + 1
    await tenant.mail("one@there.example", X_Send_At=soon(1))
    await tenant.upstream.wait(1)
    assert time.time() >= due
    await tenant.all_sent_once(["one@there.example"])


async def test_mail_for_next_year_waits(tenant: Tenant) -> None:
    answer = await tenant.submit("one@there.example", sendAt=soon(365 * 86400))
    await asyncio.sleep(BRIEF)
    assert tenant.upstream.taken == []
    moved = await outbox(tenant, "PATCH", answer["queueId"], {"sendAt": soon(-1)})
    assert moved["moved"] == 1
    await tenant.all_sent_once(["one@there.example"])


async def test_what_is_cancelled_does_not_go(tenant: Tenant) -> None:
    answer = await tenant.submit("one@there.example", sendAt=soon(365 * 86400))
    cancelled = await outbox(tenant, "DELETE", answer["queueId"])
    assert (cancelled["deleted"], cancelled["cancelled"]) == (True, 1)
    await tenant.rows("update deliveries set due_at = now() where account_id = %s returning 1")
    await asyncio.sleep(BRIEF)
    assert tenant.upstream.taken == []
    await tenant.becomes(cancelled=1)


async def test_high_overtakes_a_queue_of_bulk(tenant: Tenant) -> None:
    """At most the lease that is under way goes before it."""
    await tenant.change(limits={"connections": 1})
    begin = asyncio.Event()
    tenant.upstream.when("MAIL", times=1).wait(begin).say("250 ok")
    await pause(tenant, True)
    async with asyncio.TaskGroup() as group:
        for name in people(8):  # 200 messages
            group.create_task(bulk(tenant, name, 25))
    await pause(tenant, False)
    await tenant.upstream.heard("MAIL")
    await tenant.submit("urgent@there.example", priority="high")
    begin.set()
    await tenant.becomes(sent=201)
    order = [taken.recipients[0] for taken in tenant.upstream.taken]
    assert order.index("urgent@there.example") <= tenant.settings.lease_size
    assert len(set(order)) == 201


async def bulk(tenant: Tenant, name: str, number: int) -> None:
    for place in range(number):
        await tenant.submit(f"{place}{name}", priority="bulk")


async def test_a_limit_holds_what_is_over_it(tenant: Tenant) -> None:
    await tenant.change(limits={"perMinute": 3})
    begun = datetime.now(UTC)
    for recipient in people(5):
        await tenant.mail(recipient)
    await tenant.becomes(sent=3, queued=2)
    await asyncio.sleep(BRIEF)
    assert len(tenant.upstream.taken) == 3
    status = await tenant.status()
    assert (status["pending"], status["held"]) == (2, 2)
    frees = datetime.fromisoformat(status["nextSlotAt"])
    assert timedelta(seconds=59) < frees - begun < timedelta(seconds=75)


async def test_a_limit_that_is_raised_lets_mail_flow(tenant: Tenant) -> None:
    await tenant.change(limits={"perDay": 1})
    await tenant.mail(*people(2))
    await tenant.becomes(sent=1, queued=1)
    await asyncio.sleep(BRIEF)
    await tenant.ask("PUT", f"/v1/account/{tenant.id}", {"limits": {"perDay": 100}})
    await tenant.all_sent_once(people(2))


async def test_a_slot_that_frees_lets_the_next_one_go(tenant: Tenant) -> None:
    await tenant.change(limits={"perMinute": 1})
    await tenant.mail("one@there.example")
    await tenant.becomes(sent=1)
    freed = time.monotonic() + 1
    await tenant.rows("update slots set at = now() - interval '59 seconds' where account_id = %s returning 1")
    await tenant.mail("two@there.example")
    await tenant.upstream.wait(2)
    assert time.monotonic() > freed - 0.5
    await tenant.all_sent_once(["one@there.example", "two@there.example"])


async def test_a_paused_account_accepts_and_waits(tenant: Tenant) -> None:
    assert (await pause(tenant, True))["changed"]
    await tenant.mail("one@there.example")
    await asyncio.sleep(BRIEF)
    assert tenant.upstream.taken == []
    status = await tenant.status()
    assert (status["paused"], status["held"]) == (True, 1)
    await pause(tenant, False)
    await tenant.all_sent_once(["one@there.example"])


async def test_a_dead_letter_is_replayed(tenant: Tenant) -> None:
    tenant.upstream.when("RCPT").say("550 5.1.1 no such user")
    await tenant.submit("one@there.example")
    await tenant.becomes(failed=1)
    _, dead = await tenant.ask("GET", f"/v1/deadletters?account={tenant.id}")
    (letter,) = dead["items"]
    assert (letter["recipient"], letter["code"], letter["status"]) == ("one@there.example", 550, "5.1.1")
    tenant.upstream.calm()
    _, replayed = await tenant.ask("POST", "/v1/deadletters/replay", {"ids": [letter["id"]]})
    assert (replayed["replayed"], replayed["skipped"]) == (1, 0)
    await tenant.all_sent_once(["one@there.example"])


async def test_an_upstream_that_hangs_delays_nobody_else(stack: Stack, tenant: Tenant, make_tenant: MakeTenant) -> None:
    """A machine that stands still for a moment delays one mail; the upstream would delay each."""
    async with Upstream() as hanging:
        hanging.when("MAIL").hang()
        other = await make_tenant(stack, hanging)
        for recipient in people(20):
            await other.mail(recipient)
        await hanging.heard("MAIL")
        delays = []
        for number, recipient in enumerate(people(5), 1):
            begun = time.monotonic()
            await tenant.mail(recipient)
            await tenant.upstream.wait(number)
            delays.append(time.monotonic() - begun)
        assert min(delays) < 1
        assert hanging.taken == []
