"""What an operator watches: each number moves when the thing it counts happens, in whatever process it happened."""

from __future__ import annotations

import asyncio

from tests.stack import until
from tests.tenant import Tenant

SUBMITTED = "one@there.example"


async def test_mail_that_is_sent_is_counted_from_end_to_end(tenant: Tenant) -> None:
    before = await tenant.metrics()
    await tenant.submit(SUBMITTED)
    await tenant.mail(SUBMITTED)
    await tenant.becomes(sent=2)
    more = await tenant.metrics() - before
    assert more['postferry_accepted_total{ingress="api"}'] == 1
    assert more['postferry_accepted_total{ingress="smtp"}'] == 1
    assert more[f'postferry_outcomes_total{{account="{tenant.id}",outcome="sent"}}'] == 2
    assert more['postferry_attempt_seconds_count{outcome="sent"}'] == 2
    assert more["postferry_accept_to_sent_seconds_count"] == 2
    assert more['postferry_leases_total{kind="granted"}'] >= 1


async def test_what_fails_is_deferred_or_is_in_doubt_is_counted_apart(tenant: Tenant) -> None:
    before = await tenant.metrics()
    tenant.upstream.when("RCPT", "none@").say("550 5.1.1 no such user")
    tenant.upstream.when("DOT", times=1).drop()
    await tenant.submit(SUBMITTED)
    await tenant.submit("none@there.example")
    await tenant.becomes(sent=1, failed=1)
    more = await tenant.metrics() - before
    assert more[f'postferry_outcomes_total{{account="{tenant.id}",outcome="failed"}}'] == 1
    assert more[f'postferry_outcomes_total{{account="{tenant.id}",outcome="unknown"}}'] == 1
    assert more[f'postferry_unknown_total{{account="{tenant.id}"}}'] == 1


async def test_queues_are_measured_by_account_and_state_and_what_is_held_shows(tenant: Tenant) -> None:
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": True})
    await tenant.submit(SUBMITTED)
    await tenant.submit(SUBMITTED, sendAt="2027-01-01T00:00:00Z")

    async def measured() -> bool:
        shown = await tenant.metrics()
        states = [shown[f'postferry_queue_depth{{account="{tenant.id}",state="{one}"}}'] for one in ("held", "queued")]
        return states == [1, 1]

    await until(measured)


async def test_open_connections_are_counted_in_and_out(tenant: Tenant) -> None:
    reply = asyncio.Event()
    tenant.upstream.when("DOT").wait(reply).say("250 2.0.0 taken")
    await tenant.submit(SUBMITTED)
    await tenant.upstream.heard("DATA")
    _, writer = await asyncio.open_connection("127.0.0.1", tenant.settings.smtp_port)

    async def counted() -> bool:
        shown = await tenant.metrics()
        names = ('direction="in",role="smtp"', 'direction="out",role="worker"')
        return all(shown[f"postferry_connections{{{name}}}"] >= 1 for name in names)

    await until(counted)
    reply.set()
    writer.close()
    await tenant.becomes(sent=1)


async def test_a_refused_submission_is_counted_by_its_reason(tenant: Tenant) -> None:
    before = await tenant.metrics()
    status, _ = await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", {"subjet": "x"})
    assert status == 400
    assert (await tenant.metrics() - before)['postferry_refused_total{ingress="api",reason="InvalidFields"}'] == 1
