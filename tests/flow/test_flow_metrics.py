"""What an operator watches: each number moves when the thing it counts happens, in whatever process it happened."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable

import aiohttp

from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.stack import ALL, Stack, until
from tests.tenant import Tenant, people

SUBMITTED = "one@there.example"
STATES = ("queued", "held", "deferred", "scheduled", "leased")


async def counted(tenant: Tenant, before: Counter[str], counts: dict[str, float]) -> Counter[str]:
    """What was added since `before`, once it is just that: a process counts a moment after the commit that shows."""
    more: Counter[str] = Counter()

    async def so() -> bool:
        nonlocal more
        more = await tenant.metrics() - before
        return {name: more[name] for name in counts} == counts

    try:
        await until(so)
    except AssertionError:
        raise AssertionError(f"counted {[(name, more[name]) for name in counts]}, and not {counts}") from None
    return more


async def test_mail_that_is_sent_is_counted_from_end_to_end(tenant: Tenant) -> None:
    before = await tenant.metrics()
    await tenant.submit(SUBMITTED)
    await tenant.mail(SUBMITTED)
    await tenant.becomes(sent=2)
    counts = {
        'postferry_accepted_total{ingress="api"}': 1,
        'postferry_accepted_total{ingress="smtp"}': 1,
        f'postferry_outcomes_total{{account="{tenant.id}",outcome="sent"}}': 2,
        'postferry_attempt_seconds_count{outcome="sent"}': 2,
        "postferry_accept_to_sent_seconds_count": 2,
    }
    assert (await counted(tenant, before, counts))['postferry_leases_total{kind="granted"}'] >= 1


async def test_what_fails_is_deferred_or_is_in_doubt_is_counted_apart(tenant: Tenant) -> None:
    before = await tenant.metrics()
    tenant.upstream.when("RCPT", "none@").say("550 5.1.1 no such user")
    tenant.upstream.when("DOT", times=1).drop()
    await tenant.submit(SUBMITTED)
    await tenant.submit("none@there.example")
    await tenant.becomes(sent=1, failed=1)
    counts = {
        f'postferry_outcomes_total{{account="{tenant.id}",outcome="failed"}}': 1,
        f'postferry_outcomes_total{{account="{tenant.id}",outcome="unknown"}}': 1,
        f'postferry_unknown_total{{account="{tenant.id}"}}': 1,
    }
    await counted(tenant, before, counts)


async def test_queues_are_measured_by_account_and_state_and_what_is_held_shows(tenant: Tenant) -> None:
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": True})
    await tenant.submit(SUBMITTED)
    await tenant.submit(SUBMITTED, sendAt="2030-01-01T00:00:00Z")

    async def measured() -> bool:
        shown = await tenant.metrics()
        states = [shown[f'postferry_queue_depth{{account="{tenant.id}",state="{one}"}}'] for one in STATES]
        return states == [0, 1, 0, 1, 0]

    await until(measured)


async def test_open_connections_are_counted_in_and_out(tenant: Tenant) -> None:
    reply = asyncio.Event()
    tenant.upstream.when("DOT").wait(reply).say("250 2.0.0 taken")
    await tenant.submit(SUBMITTED)
    await tenant.upstream.heard("DATA")
    _, writer = await asyncio.open_connection("127.0.0.1", tenant.settings.smtp_port)

    async def open_now() -> bool:
        shown = await tenant.metrics()
        names = ('direction="in",role="smtp"', 'direction="out",role="worker"')
        return all(shown[f"postferry_connections{{{name}}}"] >= 1 for name in names)

    await until(open_now)
    reply.set()
    writer.close()
    await tenant.becomes(sent=1)


async def test_a_refused_submission_is_counted_by_its_reason(tenant: Tenant) -> None:
    before = await tenant.metrics()
    status, _ = await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", {"subjet": "x"})
    assert status == 400
    assert (await tenant.metrics() - before)['postferry_refused_total{ingress="api",reason="InvalidFields"}'] == 1


async def test_tries_are_counted_by_upstream_with_what_kept_them_from_being_sent(tenant: Tenant) -> None:
    before = await tenant.metrics()
    tenant.upstream.when("RCPT", "none@").say("550 5.1.1 no such user")
    await tenant.submit(SUBMITTED)
    await tenant.submit("none@there.example")
    await tenant.becomes(sent=1, failed=1)
    host = tenant.upstream.host
    counts = {
        f'postferry_upstream_outcomes_total{{outcome="sent",upstream="{host}"}}': 1,
        f'postferry_upstream_outcomes_total{{outcome="failed",upstream="{host}"}}': 1,
        f'postferry_upstream_seconds_count{{upstream="{host}"}}': 2,
        'postferry_setbacks_total{category="unknown_user",outcome="failed"}': 1,
    }
    await counted(tenant, before, counts)


async def test_an_upstream_that_refuses_us_is_a_trouble_and_its_account_and_mail_are_shown(
    stack: Stack, make_tenant: MakeTenant
) -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        smtp = {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}}
        tenant = await make_tenant(stack, upstream, smtp=smtp | {"auth": {"user": "ann", "pass": "wrong"}})
        before = await tenant.metrics()
        for recipient in people(3):
            await tenant.submit(recipient)

        async def shown() -> bool:
            now = await tenant.metrics()
            held = now[f'postferry_held_deliveries{{account="{tenant.id}",reason="refused"}}']
            return held >= 2 and now['postferry_accounts{state="refused"}'] >= 1  # one may be out as a probe

        await until(shown)
        trouble = f'postferry_upstream_troubles_total{{kind="refused",upstream="{upstream.host}"}}'
        assert (await tenant.metrics() - before)[trouble] >= 1


async def test_every_role_tells_that_it_lives_and_what_it_takes(tenant: Tenant) -> None:
    shown = await tenant.metrics()
    for role in ALL:
        assert shown[f'postferry_processes{{role="{role}"}}'] == 1
        assert shown[f'postferry_process_resident_bytes{{role="{role}"}}'] > 10 << 20
        assert shown[f'postferry_process_cpu_seconds_total{{role="{role}"}}'] > 0


async def test_the_apis_own_connections_are_counted(tenant: Tenant) -> None:
    async def open_now() -> bool:
        return (await tenant.metrics())['postferry_connections{direction="in",role="api"}'] >= 1

    await until(open_now)


async def test_processes_of_a_role_answer_for_each_other(environ: dict[str, str], free_port: Callable[[], int]) -> None:
    """Whichever is asked, and without a folder named for them."""
    port = free_port()
    given = {"POSTFERRY_WORKER_PROCESSES": "2", "POSTFERRY_METRICS_PORT": str(port)}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers"), env=os.environ | environ | given, start_new_session=True
    )
    try:

        async def both() -> bool:
            try:
                async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as response:
                    return 'postferry_processes{role="worker"} 2.0' in await response.text()
            except aiohttp.ClientConnectionError:
                return False

        await until(both)
        await until(both)  # another connection may reach the other one
        worker.terminate()
        assert await asyncio.wait_for(worker.wait(), 30) == 0
    finally:
        if worker.returncode is None:
            os.killpg(worker.pid, signal.SIGKILL)
