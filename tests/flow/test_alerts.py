"""Notices arrive upstream, once and without a pixel; what cannot be sent is tried again, and then given up."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import re
from email.message import EmailMessage
from typing import Any

import pytest

from relay import accept, alerts, enrol
from relay.alerts import Alerts
from relay.core.errors import Conflict, StoreAway
from relay.core.model import Opener, Splice
from relay.core.notice import OPENED, UNOPENED
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db, messages, notices
from tests.fakes.upstream import Upstream
from tests.faulty import once
from tests.stack import Stack, until
from tests.store.mail import prepared, stored
from tests.tenant import Tenant

SMTP = {"host": "127.0.0.1", "port": 2525}
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"


class Bench:
    """Account `a` with one mail sent, and alerts about it."""

    def __init__(self, pool: db.Pool, settings: Settings) -> None:
        self.pool, self.settings = pool, settings
        self.alerts = Alerts(pool, settings, look=0.02, remind=0.02)
        self.delivery = 0

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    async def do(self, query: str, *values: Any) -> None:
        async with db.connection(self.pool) as conn:
            await conn.execute(query.encode(), values)

    async def begin(self, **told: Any) -> None:
        given = {"email": "me@here.example", "tz": "Europe/Vienna", "smtp": SMTP, "tracking": {"alerts": told}}
        await enrol.save(self.pool, Vault(self.settings.secret_keys), self.settings, "a", given)
        async with db.connection(self.pool) as conn:
            splice = Splice(0, 0, "7bit", "utf-8")
            await stored(conn, prepared("ann@there.example", subject="Offer", splice=splice))
        ((self.delivery,),) = await self.rows(
            "update deliveries set state = 'sent', finished_at = now() - interval '4 days' returning id"
        )

    async def opened(self, opener: Opener = Opener.PERSON) -> None:
        await self.do(
            "with f as (insert into fetches (delivery_id, account_id, method, user_agent, opener, client, country,"
            " city) values (%s, 'a', 'GET', '', %s, 'Outlook', 'AT', 'Vienna') returning id)"
            " insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, first_at, first_fetch)"
            " select %s, 'a', 1, '{}', 1, 1, now(), id from f",
            *(self.delivery, opener, self.delivery),
        )
        await self.noticed(OPENED)

    async def noticed(self, kind: str) -> None:
        await self.do("insert into notices (delivery_id, kind, account_id) values (%s, %s, 'a')", self.delivery, kind)

    async def waiting(self) -> list[tuple[Any, ...]]:
        return await self.rows("select kind, attempts from notices order by kind")

    async def queued(self) -> list[EmailMessage]:
        """Notices that are stored as mail, as upstream will get them."""
        ids = [row[0] for row in await self.rows("select id from messages where ingress = 'notice' order by id")]
        async with db.connection(self.pool) as conn:
            found = await messages.bodies(conn, ids)
        return [read(found[message]) for message in ids]


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings) -> Bench:
    return Bench(pool, settings)


# -- Notices -----------------------------------------------------------------------------------------------------


async def test_an_open_becomes_a_mail_to_the_account(bench: Bench) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.alerts.send()
    (message,) = await bench.queued()
    assert (message["From"], message["To"], message["Subject"]) == (
        "me@here.example",
        "me@here.example",
        "Opened: Offer",
    )
    assert message["Auto-Submitted"] == "auto-generated"
    record = f"{bench.settings.public_url}/v1/account/a/tracking/{bench.delivery}"
    for kind in ("plain", "html"):
        for word in ("ann@there.example", "Offer", "Outlook", "Vienna, AT", "(Europe/Vienna)", record):
            assert word in body(message, kind)
    assert await bench.waiting() == []


async def test_it_is_mail_without_a_pixel_that_goes_after_the_others(bench: Bench) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.alerts.send()
    assert await bench.rows(
        "select splice, email_type, sender, priority, reference_type, reference_id, options ->> 'copy'"
        " from messages where ingress = 'notice'"
    ) == [(None, "notice", "me@here.example", 2, "delivery", str(bench.delivery), "none")]


async def test_it_goes_where_the_account_wants_it(bench: Bench) -> None:
    await bench.begin(opened=True, to="boss@here.example")
    await bench.opened()
    await bench.alerts.send()
    (message,) = await bench.queued()
    assert (message["From"], message["To"]) == ("me@here.example", "boss@here.example")
    ((recipient,),) = await bench.rows(
        "select recipient from deliveries d join messages m on m.id = d.message_id where ingress = 'notice'"
    )
    assert recipient == "boss@here.example"


async def test_a_reader_who_is_quicker_than_our_commit_is_told_of(bench: Bench) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.do("update deliveries set state = 'leased', finished_at = null")
    await bench.alerts.send()
    assert len(await bench.queued()) == 1


async def test_gmail_hides_where(bench: Bench) -> None:
    await bench.begin(opened=True)
    await bench.opened(Opener.PROXY)
    await bench.alerts.send()
    (message,) = await bench.queued()
    assert "Vienna, AT" not in body(message, "plain")


async def test_a_crash_before_the_row_was_deleted_sends_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.begin(opened=True)
    await bench.opened()

    async def crash(*args: Any) -> None:
        raise StoreAway("cut")

    with monkeypatch.context() as patch:
        patch.setattr(alerts.notices, "settle", crash)
        with pytest.raises(StoreAway):
            await bench.alerts.send()
    assert await bench.waiting() == [(OPENED, 1)]
    await bench.do("update notices set due_at = now()")
    await bench.do("update fetches set client = 'Gmail'")  # what it would say has changed since
    await Alerts(bench.pool, bench.settings).send()
    assert len(await bench.queued()) == 1
    assert await bench.waiting() == []


@pytest.mark.parametrize(
    "change",
    [
        "delete from accounts",
        "update accounts set email = ''",
        "update accounts set config = config - 'tracking'",
        "delete from deliveries",
    ],
)
async def test_what_nobody_wants_any_more_is_dropped(bench: Bench, change: str) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.do(change)
    await bench.alerts.send()
    assert (await bench.queued(), await bench.waiting()) == ([], [])


async def test_what_is_refused_is_dropped_with_a_word(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.do("update accounts set config = config - 'smtp', had_upstream = false")
    await bench.alerts.send()
    assert (await bench.queued(), await bench.waiting()) == ([], [])
    assert "dropped: Account a has no upstream" in caplog.text


@pytest.mark.parametrize("fault", [RuntimeError("odd"), Conflict("being stored", retry_after=1)])
async def test_what_fails_is_tried_a_few_times(
    bench: Bench, fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: object, submission: object) -> None:
        raise fault

    monkeypatch.setattr(accept.Acceptor, "accept", fail)
    await bench.begin(opened=True)
    await bench.opened()
    attempts = []
    while waiting := await bench.waiting():
        await bench.do("update notices set due_at = now()")
        await bench.alerts.send()
        attempts.append(waiting[0][1])
    assert attempts == [0, 1, 2, 3, 4]
    levels = [record.levelno for record in caplog.records if record.name == "postferry.alerts"]
    assert levels == [logging.WARNING] * 5
    assert [word in caplog.text for word in ("tried again", "dropped")] == [True, True]


async def test_many_are_sent_together(bench: Bench) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    await bench.do(
        "insert into notices (delivery_id, kind, account_id) select n, 'opened', 'a' from generate_series(9000, 9250) n"
    )
    assert [await bench.alerts.send() for _ in range(4)] == [True, True, True, False]
    assert await bench.waiting() == []
    assert len(await bench.queued()) == 1


@pytest.mark.parametrize("step", ["claim", "remind"])
async def test_a_fault_of_ours_puts_alerts_off_and_no_more(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They run in the role that posts webhooks, which must not end with them."""
    again = once(monkeypatch, notices, step)
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.alerts.run(stopping))
    await asyncio.wait_for(again.wait(), 20)
    stopping.set()
    await running
    assert "put off by a fault of ours" in caplog.text


# -- Day by day --------------------------------------------------------------------------------------------------


async def test_unopened_mail_is_told_and_mailed_once(bench: Bench) -> None:
    await bench.begin(unopened=True, unopenedMail=True)
    await bench.do("update accounts set reminded_until = now() - interval '30 days'")
    stopping = asyncio.Event()
    running = [asyncio.create_task(one.run(stopping)) for one in (bench.alerts, Alerts(bench.pool, bench.settings))]

    async def sent() -> bool:
        return len(await bench.queued()) > 0 and await bench.waiting() == []

    await until(sent, 10)
    await bench.alerts.remind(stopping)
    stopping.set()
    await asyncio.gather(*running)
    (message,) = await bench.queued()
    assert message["Subject"] == "Not opened: Offer"
    assert "Within 3 days" in body(message, "plain")
    assert await bench.rows("select count(*) from events where type = 'messageUnopened'") == [(1,)]


async def test_who_opened_it_meanwhile_is_no_longer_missed(bench: Bench) -> None:
    await bench.begin(unopened=True, unopenedMail=True)
    await bench.noticed(UNOPENED)
    await bench.opened()
    await bench.do("delete from notices where kind = 'opened'")
    await bench.alerts.send()
    assert (await bench.queued(), await bench.waiting()) == ([], [])


async def test_notices_go_while_the_reminder_has_much_to_look_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endlessly(self: Alerts, stopping: asyncio.Event) -> None:
        await stopping.wait()

    monkeypatch.setattr(Alerts, "remind", endlessly)
    await bench.begin(opened=True)
    await bench.opened()
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.alerts.run(stopping))
    await until(bench.queued)
    stopping.set()
    await running


async def test_postgresql_may_be_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.begin(opened=True)
    await bench.opened()
    claim, away = alerts.notices.claim, asyncio.Event()

    async def absent(*args: Any) -> Any:
        away.set()
        raise StoreAway("away")

    monkeypatch.setattr(alerts, "AGAIN", 0.02)
    monkeypatch.setattr(alerts.notices, "claim", absent)
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.alerts.run(stopping))
    await asyncio.wait_for(away.wait(), 20)
    monkeypatch.setattr(alerts.notices, "claim", claim)

    async def settled() -> bool:
        return await bench.waiting() == []

    await until(settled)
    stopping.set()
    await asyncio.wait_for(running, 20)
    assert len(await bench.queued()) == 1


async def test_it_ends_promptly(pool: db.Pool, settings: Settings) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(Alerts(pool, settings, look=60, remind=60).run(stopping))
    await asyncio.sleep(0)
    stopping.set()
    await asyncio.wait_for(running, 20)


# -- In life -----------------------------------------------------------------------------------------------------


async def test_the_first_open_is_told_once_through_the_accounts_own_upstream(
    tenant: Tenant, stack: Stack, upstream: Upstream
) -> None:
    await tenant.change(tracking={"opens": True, "alerts": {"opened": True, "to": "boss@here.example"}})
    await tenant.submit("ann@there.example", subject="Offer", html="<p>Hello</p>")
    (mail,) = await upstream.wait(1)
    pixel = re.search(rb"/open/[\w.-]+|/t/[\w./-]+|http://127[^\"\s]+", mail.content.replace(b"=\r\n", b""))
    assert pixel is not None, mail.content
    await tenant.becomes(sent=1)
    path = pixel.group().decode().replace("=3D", "=").removeprefix(f"http://127.0.0.1:{stack.settings.api_port}")
    for _ in range(3):
        async with tenant.http.get(path, headers={"User-Agent": BROWSER}) as answer:
            assert answer.status == 200
    _, told = await upstream.wait(2)
    message = read(told.content)
    assert (told.sender, list(told.recipients)) == (tenant.sender, ["boss@here.example"])
    assert message["Subject"] == "Opened: Offer"
    assert "Firefox" in body(message, "plain")
    assert b"<img" not in told.content
    await tenant.becomes(sent=2)
    assert await tenant.rows("select count(*) from notices where account_id = %s") == [(0,)]
    assert len(upstream.taken) == 2
