"""Bad days of an upstream, through real roles: what was accepted arrives, or whoever can act is told why not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from psycopg.types.json import Jsonb

from tests.conftest import MakeTenant
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant, people


async def holds(tenant: Tenant, least: int = 1) -> bool:
    return bool((await tenant.status())["held"] >= least)


async def reason(tenant: Tenant) -> str:
    return (await tenant.ask("GET", f"/v1/account/{tenant.id}"))[1]["reason"]


async def test_an_upstream_that_was_down_gets_everything_when_it_is_up(
    stack: Stack, upstream: Upstream, make_tenant: MakeTenant
) -> None:
    await upstream.stop()
    tenant = await make_tenant(stack, upstream)
    async with asyncio.TaskGroup() as group:
        for recipient in people(10):
            group.create_task(tenant.mail(recipient))
    await until(lambda: told(tenant, "connection refused"))
    waits = await tenant.status()
    assert waits["pending"] + waits["leased"] + waits["deferred"] == 10
    await upstream.start()
    await tenant.all_sent_once(people(10))
    assert await reason(tenant) == ""
    events = await tenant.rows("select type from events where account_id = %s and type = 'connectError'")
    assert len(events) == 1, "one fact, however many connections failed"


async def told(tenant: Tenant, words: str) -> bool:
    return words in await reason(tenant)


async def test_an_upstream_that_is_slow_gets_everything_once(tenant: Tenant) -> None:
    tenant.upstream.when("DOT").pause(0.1).say("250 ok")
    await tenant.change(limits={"connections": 2})
    for recipient in people(20):
        await tenant.mail(recipient)
    await tenant.all_sent_once(people(20))
    assert tenant.upstream.most_open <= 2


async def test_an_upstream_that_refuses_everybody_makes_dead_letters(tenant: Tenant) -> None:
    tenant.upstream.when("RCPT").say("550 5.7.1 we do not want you")
    for recipient in people(5):
        await tenant.mail(recipient)
    await tenant.becomes(failed=5)
    assert await tenant.attempts() == ["failed"] * 5


async def test_a_login_that_is_refused_stops_the_account_until_it_is_mended(
    stack: Stack, make_tenant: MakeTenant
) -> None:
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        smtp = {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}}
        wrong = smtp | {"auth": {"user": "ann", "pass": "wrong"}}
        tenant = await make_tenant(stack, upstream, smtp=wrong)
        for recipient in people(6):
            await tenant.mail(recipient)
        await until(lambda: told(tenant, "535"))
        before, began = upstream.connections, time.monotonic()
        await asyncio.sleep(0.9)
        pauses = (time.monotonic() - began) / stack.settings.refused_retry
        assert upstream.connections - before <= pauses + 2, "probes come one by one, each after its pause"
        assert await tenant.attempts() == []
        await until(lambda: holds(tenant, 6))  # in the moment of a probe nothing is
        await tenant.change(smtp=smtp | {"auth": {"user": "ann", "pass": "secret"}})
        await tenant.all_sent_once(people(6))
        types = Counter(row[0] for row in await tenant.rows("select type from events where account_id = %s"))
        assert types == {"authenticationError": 1, "accountPaused": 1, "accountResumed": 1, "messageSent": 6}


async def test_greylisting_is_waited_out(tenant: Tenant) -> None:
    tenant.upstream.when("RCPT", times=1).say("451 4.7.1 Greylisting in action, please come back later")
    await tenant.mail("one@there.example")
    await tenant.becomes(deferred=1)
    ((wait,),) = await tenant.rows(
        "select extract(epoch from due_at - now())::float8 from deliveries where account_id = %s"
    )
    assert 60 < wait < 900
    ((category,),) = await tenant.rows("select category from deliveries where account_id = %s")
    assert category == "greylisted"
    await tenant.rows("update deliveries set due_at = now() where account_id = %s returning 1")
    await tenant.all_sent_once(["one@there.example"])
    assert await tenant.attempts() == ["deferred", "sent"]


async def test_a_temporary_refusal_is_tried_again(tenant: Tenant) -> None:
    tenant.upstream.when("RCPT", times=2).say("451 4.3.0 try again")
    await tenant.mail("one@there.example")
    await tenant.all_sent_once(["one@there.example"])
    assert await tenant.attempts() == ["deferred", "deferred", "sent"]


async def test_a_reply_lost_after_the_dot_is_told_and_tried_again(tenant: Tenant) -> None:
    """The one case that SMTP leaves open: what was taken without a word may come twice."""
    tenant.upstream.when("DOT", times=1).drop()
    await tenant.mail("one@there.example")
    await tenant.all_sent_once(["one@there.example"])
    assert await tenant.attempts() == ["unknown", "sent"]


async def test_an_upstream_that_never_answers_the_dot_is_given_up_in_time(tenant: Tenant) -> None:
    tenant.upstream.when("DOT", times=1).hang()
    await tenant.mail("one@there.example")
    await tenant.all_sent_once(["one@there.example"])
    assert await tenant.attempts() == ["unknown", "sent"]


async def test_connections_that_break_in_the_middle_lose_nothing(tenant: Tenant) -> None:
    for verb, times in (("MAIL", 2), ("RCPT", 2), ("DATA", 2)):
        tenant.upstream.when(verb, times=times).drop()
    for recipient in people(20):
        await tenant.mail(recipient)
    await tenant.all_sent_once(people(20))


async def test_an_account_without_an_upstream_any_more_waits_in_peace(tenant: Tenant) -> None:
    """Its settings were removed while mail waited: no busy loop, a reason, and mail flows once they are back."""
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": True})
    await tenant.mail("one@there.example")
    await tenant.change(smtp=None)
    await tenant.ask("PUT", f"/v1/account/{tenant.id}/queue", {"paused": False})
    await until(lambda: told(tenant, "no upstream"))
    began = time.monotonic()
    ((before,),) = await tenant.rows("select last_value from leases_id_seq where %s <> ''")
    await asyncio.sleep(0.3)
    ((after,),) = await tenant.rows("select last_value from leases_id_seq where %s <> ''")
    assert after - before <= 2 * (time.monotonic() - began) / tenant.settings.upstream_retry + 3
    await tenant.change(smtp={"host": tenant.upstream.host, "port": tenant.upstream.port, "secure": False})
    await tenant.all_sent_once(["one@there.example"])


async def test_a_private_upstream_without_permission_is_refused_at_dial(stack: Stack, tenant: Tenant) -> None:
    """It was refused at save, too; here the permission was taken back after that."""
    await stack.stop("worker")
    await stack.start("worker", allow_networks="")
    try:
        for recipient in people(3):
            await tenant.mail(recipient)
        await until(lambda: told(tenant, "127.0.0.1"))
        assert "POSTFERRY_ALLOW_NETWORKS" in await reason(tenant)
        await until(lambda: holds(tenant))  # but for the moments in which it is tried
        assert tenant.upstream.connections == 0
    finally:
        await stack.kill("worker")
    await stack.start("worker")
    await tenant.rows("update accounts set retry_at = null where id = %s returning 1")
    await tenant.all_sent_once(people(3))


async def test_secrets_that_do_not_open_hold_the_account_and_say_so(stack: Stack, make_tenant: MakeTenant) -> None:
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        smtp = {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}}
        tenant = await make_tenant(stack, upstream, smtp=smtp | {"auth": {"user": "ann", "pass": "secret"}})
        ((kept,),) = await tenant.rows("select secrets from accounts where id = %s")
        spoilt = {name: token[:-4] + "AAAA" for name, token in kept.items()}
        change = "update accounts set secrets = %s, retry_at = null where id = %s returning 1"
        await tenant.rows(change, Jsonb(spoilt), tenant.id)
        await tenant.mail("one@there.example")
        await until(lambda: told(tenant, "POSTFERRY_SECRET_KEYS"))
        assert upstream.connections == 0
        await tenant.rows(change, Jsonb(kept), tenant.id)
        await tenant.all_sent_once(["one@there.example"])
