"""What an operator asks for while mail flows: every answer is true, and nothing goes twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.stack import until
from tests.tenant import Tenant, people

NOW = datetime.now(UTC).isoformat()
LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def test_cancelled_mail_stays_and_the_rest_goes_once(tenant: Tenant) -> None:
    """Half of it at least is there to be cancelled, however late we come: it is over the limit."""
    await tenant.change(limits={"connections": 2, "perDay": 30})
    tenant.upstream.when("DOT").pause(0.01).say("250 ok")
    queued = {to: (await tenant.submit(to, priority="bulk"))["queueId"] for to in people(60)}
    answers: dict[str, Any] = {}

    async def cancel(recipient: str, queue_id: str) -> None:
        answers[recipient] = (await tenant.ask("DELETE", f"/v1/outbox/{queue_id}"))[1]

    async with asyncio.TaskGroup() as group:
        for recipient, queue_id in reversed(queued.items()):
            group.create_task(cancel(recipient, queue_id))
    cancelled = {recipient for recipient, answer in answers.items() if answer["cancelled"]}
    gone = set(queued) - cancelled
    assert len(cancelled) >= 30
    await tenant.becomes(sent=len(gone), cancelled=len(cancelled))
    assert tenant.received() == dict.fromkeys(gone, 1)


async def test_mail_moved_back_and_forth_goes_once(tenant: Tenant) -> None:
    queued = [(await tenant.submit(to, sendAt=LATER))["queueId"] for to in people(10)]

    async def move(queue_id: str, when: str) -> None:
        status, _ = await tenant.ask("PATCH", f"/v1/outbox/{queue_id}", {"sendAt": when})
        assert status in (200, 409)

    for when in (NOW, LATER, NOW):
        async with asyncio.TaskGroup() as group:
            for queue_id in queued:
                group.create_task(move(queue_id, when))
    await tenant.all_sent_once(people(10))


async def test_dead_letters_replayed_by_several_at_once_go_once(tenant: Tenant) -> None:
    tenant.upstream.when("RCPT", times=20).say("550 5.1.1 no such user")
    await tenant.change(tracking={"opens": True})
    await tenant.mail(*people(20), html=True)
    await tenant.becomes(failed=20)
    answers = await asyncio.gather(
        *(tenant.ask("POST", "/v1/deadletters/replay", {"account": tenant.id}) for _ in range(4))
    )
    assert sum(answer["replayed"] for _, answer in answers) == 20
    await tenant.all_sent_once(people(20))


async def test_pauses_under_load_stop_mail_soon_and_lose_none(tenant: Tenant) -> None:
    await tenant.change(limits={"connections": 2})
    tenant.upstream.when("DOT").pause(0.01).say("250 ok")
    for recipient in people(40):
        await tenant.mail(recipient)
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": True})

    async def quiet() -> bool:
        return "leased" not in await tenant.states()

    await until(quiet)
    still = len(tenant.upstream.taken)
    await asyncio.sleep(0.3)
    assert len(tenant.upstream.taken) == still
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": False})
    await tenant.all_sent_once(people(40))
