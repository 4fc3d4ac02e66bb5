"""What subscribers are promised: the fields of every event, and a golden body of each, made by the code that tells it.

A change of a payload is a change of a file in tests/data/webhooks, and shows in its diff. After a change that is meant:

    GOLDEN=write .venv/bin/pytest tests/flow/test_payloads.py
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from relay import answered, bounces, reading
from relay.core import bounce, report, webhook
from relay.core.bounce import Finding, Reported
from relay.core.classify import classify
from relay.core.model import Answered, EventType, Opener, Splice
from relay.core.reply import Reply, Stage
from relay.core.report import Kind
from relay.core.tenant import AccountState
from relay.core.vault import Vault
from relay.settings import read
from relay.store import (
    accounts,
    db,
    deadletters,
    endpoints,
    health,
    leases,
    notices,
    opens,
    outbox,
    outcomes,
    postings,
    providerposts,
    replays,
    sentcopies,
)
from relay.store.matching import match
from relay.store.opens import Open
from relay.store.postings import Tried
from tests.store.mail import account, prepared, stored
from tests.store.posting import endpoint
from tests.store.test_leases import granted

FOLDER = Path(__file__).parent.parent / "data" / "webhooks"
SERVICE = "https://relay.example"
INSTANT = re.compile(r"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{3}Z")
AT = "2030-01-31T09:30:00.000Z"  # every instant of a golden

ENVELOPE = {"from": str, "to": [str]}
MAIL = {"queueId": str, "messageId": str, "recipient": str, "envelope": ENVELOPE}
LOGIN = {"reason": str, "response": str, "serverResponseCode": (str, None)}
TRIED = {
    **MAIL,
    "error": str,
    "errorCode": str,
    "smtpResponse": (str, None),  # None: upstream said nothing
    "smtpResponseCode": (int, None),
    "job": {"id": str, "attemptsMade": int, "attempts": int, "nextAttempt": (str, None)},
}
OPEN = {"messageId": str, "recipient": str, "trackingId": str, "remoteAddress": str, "userAgent": str, "opener": str}

DATA: Mapping[EventType, Mapping[str, Any]] = {
    EventType.MESSAGE_SENT: {**MAIL, "response": str, "originalMessageId?": str},
    EventType.MESSAGE_DELIVERY_ERROR: TRIED,
    EventType.MESSAGE_FAILED: TRIED,
    EventType.MESSAGE_CANCELLED: MAIL,
    EventType.MESSAGE_REPLAYED: MAIL,
    EventType.ACCOUNT_PAUSED: {"reason": str},
    EventType.ACCOUNT_RESUMED: {},
    EventType.AUTHENTICATION_ERROR: LOGIN,
    EventType.CONNECT_ERROR: LOGIN,
    EventType.TRACK_OPEN: {**OPEN, "prefetch": bool, "country?": str, "city?": str},
    EventType.MESSAGE_UNOPENED: {
        "messageId": str,
        "recipient": str,
        "trackingId": str,
        "queueId": str,
        "sentAt": str,
        "days": int,
    },
    EventType.LIST_UNSUBSCRIBE: {**MAIL, "remoteAddress": str, "userAgent": str},
    EventType.MESSAGE_BOUNCE: {
        **MAIL,
        "bounceMessage": (str, None),
        "action": str,
        "response": {"source": str, "message": str, "status": (str, None), "category": str, "recommendedAction": str},
        "mta": (str, None),
    },
    EventType.MESSAGE_COMPLAINT: {**MAIL, "complaintMessage": (str, None), "arf": dict, "headers": dict},
    EventType.MESSAGE_MISSING: {"id": (str, None), "messageId": (str, None), "queueId": (str, None), "flag": str},
    EventType.SENT_COPY_FAILED: {"queueId": str, "messageId": str, "error": str, "attempts": int},
    EventType.WEBHOOK_DISABLED: {"endpoint": int, "url": str, "reason": str},
    EventType.WEBHOOK_TEST: {"endpoint": int, "message": str},
}
"""The fields of `data`, with their types; `?` marks those that may be missing."""

BODY = {"serviceUrl": str, "account": str, "date": str, "event": str, "data": dict}


# Ids of the reports in the mailbox.
BOUNCED, COMPLAINED = "WzE3MDAwMDAwMDAsNywiSU5CT1giXQ", "WzE3MDAwMDAwMDAsOCwiSU5CT1giXQ"
BOUNCE = b"""\
From: Mail Delivery System <MAILER-DAEMON@mail.example.com>
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com

Final-Recipient: rfc822; gone@there.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.there.example
Diagnostic-Code: smtp; 550 5.1.1 <gone@there.example>: Recipient address rejected: User unknown

--b
Content-Type: text/rfc822-headers

Message-ID: <x@example.com>
Subject: x

--b--
"""
COMPLAINT = b"""\
From: Feedback loop <fbl@there.example>
Subject: Abuse report
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeLoop/1.0
Version: 1
Original-Rcpt-To: <angry@there.example>
Arrival-Date: Thu, 31 Jan 2030 09:30:00 +0000
Source-IP: 198.51.100.25

--b
Content-Type: text/rfc822-headers

Message-ID: <x@example.com>
From: s@example.com
To: angry@there.example
Subject: x
Date: Thu, 31 Jan 2030 09:30:00 +0000

--b--
"""


def faults(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """Where a value is not as its shape says."""
    match shape:
        case dict():
            known = {name.removesuffix("?"): (inner, name.endswith("?")) for name, inner in shape.items()}
            yield from (f"{path}.{name} is not promised" for name in value.keys() - known.keys())
            for name, (inner, optional) in known.items():
                if name in value:
                    yield from faults(inner, value[name], f"{path}.{name}")
                elif not optional:
                    yield f"{path}.{name} is missing"
        case [inner]:
            for item in value:
                yield from faults(inner, item, f"{path}[]")
        case (kind, None):
            if value is not None:
                yield from faults(kind, value, path)
        case _:
            if type(value) is not shape:
                yield f"{path} is {value!r}, and not {shape.__name__}"


def golden(event: EventType) -> Any:
    return json.loads((FOLDER / f"{event}.json").read_text())


def test_every_event_has_a_promise_and_a_golden_body() -> None:
    assert set(DATA) == set(EventType)
    assert {file.stem for file in FOLDER.iterdir()} == {event.value for event in EventType}


@pytest.mark.parametrize("event", EventType)
def test_a_golden_body_keeps_the_promise(event: EventType) -> None:
    body = golden(event)
    assert list(body) == list(BODY)
    assert list(faults(BODY, {**body, "data": {}})) == []
    assert list(faults(DATA[event], body["data"])) == []
    assert (body["event"], body["date"]) == (event.value, AT)


def test_a_broken_promise_is_seen() -> None:
    sent = golden(EventType.MESSAGE_SENT)["data"]
    shape = DATA[EventType.MESSAGE_SENT]
    assert list(faults(shape, {**sent, "more": 1})) == [".more is not promised"]
    assert list(faults(shape, {**sent, "envelope": {"from": "a", "to": "b"}, "queueId": 7})) == [
        ".queueId is 7, and not str"
    ]
    assert list(faults(shape, {**sent, "envelope": {"from": "a", "to": [None]}})) == [
        ".envelope.to[] is None, and not str"
    ]
    assert list(faults(shape, {})) == [f".{name} is missing" for name in shape if not name.endswith("?")]


class Life:
    """All that can happen to an account and its mail, by the functions that tell of it."""

    def __init__(self, conn: db.Connection) -> None:
        self.conn = conn
        self.settings = read({}, dotenv=None)
        self.vault = Vault(["A" * 43 + "="])

    async def everything(self) -> None:
        await account(self.conn)
        await self.conn.execute("alter table deliveries alter column id restart with 4711")
        sent, failed = await self.deliver()
        await self.open(sent)
        await self.leave_unopened()
        await self.miss()
        await self.unsubscribe()
        await self.cancel_and_replay(failed)
        await self.trouble()
        await self.report()
        await self.copy()
        await self.subscribe()

    async def deliver(self) -> tuple[int, int]:
        """One recipient for each of upstream's moods; the deliveries that were sent and that failed."""
        names = ("ada@there.example", "late@there.example", "nobody@there.example")
        splice = Splice(0, 0, "7bit", "us-ascii")
        await stored(self.conn, replace(prepared(*names, splice=splice), id=UUID(int=0x1975 << 112)))
        (lease,) = await granted(self.conn, "a")
        started = await leases.start(self.conn, lease.id, seconds=60)
        assert started is not None
        replies = [
            (Reply(250, "2.0.0", "kept"), Stage.DOT),
            (Reply(451, "4.7.1", "greylisted"), Stage.RCPT),
            (Reply(550, "5.1.1", "no such user"), Stage.RCPT),
        ]
        reports = [
            reading.report(
                *(row, lease.id, classify(reply, stage), reply, stage),
                **{"seconds": 0.1, "upstream": "mx:25"},
                now=datetime.now(UTC),
                settings=self.settings,
            )
            for row, (reply, stage) in zip(started.deliveries, replies, strict=True)
        ]
        assert await outcomes.commit(self.conn, reports) == [True] * 3
        await leases.release(self.conn, [lease.id])
        return started.deliveries[0].delivery, started.deliveries[2].delivery

    async def open(self, delivery: int) -> None:
        fetch = Open(
            *(delivery, 1, datetime.now(UTC), "GET", "198.51.100.7", "Mozilla/5.0 (X11; Linux) Gecko Firefox/130.0"),
            *(Opener.PERSON, "Firefox", "A browser", "EE", "Tallinn", False),
        )
        assert await opens.record(self.conn, [fetch]) == {delivery}

    async def unsubscribe(self) -> None:
        about = Reported(Kind.BOUNCE, "mailgun", "key", "<x@example.com>", (Finding("ada@there.example"),))
        (found,) = await match(self.conn, "a", about)
        who = {"remoteAddress": "198.51.100.7", "userAgent": "Mozilla/5.0 (X11; Linux) Gecko Firefox/130.0"}
        await providerposts.unsubscribed(self.conn, "a", found, who)

    async def report(self) -> None:
        """Mail to two: one bounces, the other complains. Their reports are read as they come."""
        await account(self.conn, "c")
        message = replace(
            prepared("gone@there.example", "angry@there.example", account="c"), id=UUID(int=0x1978 << 112)
        )
        await stored(self.conn, message)
        await self.conn.execute("update deliveries set state = 'sent', finished_at = now() where account_id = 'c'")
        for place, raw in ((BOUNCED, BOUNCE), (COMPLAINED, COMPLAINT)):
            reported = bounce.reported(report.read(raw), source="imap", key=place, place=place)
            assert await bounces.record(self.conn, "c", reported) == 1

    async def copy(self) -> None:
        """The mailbox is full at every try."""
        await account(self.conn, "d")
        await stored(self.conn, replace(prepared(account="d"), id=UUID(int=0x1979 << 112)))
        await self.conn.execute("update deliveries set state = 'sent', finished_at = now() where account_id = 'd'")
        await self.conn.execute("insert into sent_copies select id, account_id from messages where account_id = 'd'")
        (owed,) = await sentcopies.claim(self.conn, (), accounts=1, each=1, seconds=60)
        assert await sentcopies.fail(self.conn, owed, "[OVERQUOTA] the mailbox is full", None)

    async def miss(self) -> None:
        """The message that another one answers was deleted meanwhile."""
        gone = Answered("WzE3MDAwMDAwMDAsOSwiSU5CT1giXQ", "\\Answered", "<question@there.example>")
        await answered.tell_missing(self.conn, "a", gone, UUID(int=0x1975 << 112))

    async def leave_unopened(self) -> None:
        """Another mail, sent four days ago."""
        config = {"tracking": {"alerts": {"unopened": True, "unopenedDays": 3}}}
        await account(self.conn, "b")
        await stored(
            self.conn,
            replace(
                prepared("busy@there.example", account="b", splice=Splice(0, 0, "7bit", "us-ascii")),
                id=UUID(int=0x1976 << 112),
            ),
        )
        await self.conn.execute(
            "update deliveries set state = 'sent', finished_at = now() - interval '4 days' where account_id = 'b'"
        )
        await self.conn.execute(
            "update accounts set config = config || %s, reminded_until = now() - interval '5 days' where id = 'b'",
            (Jsonb(config),),
        )
        reminded = await notices.remind(self.conn, "", accounts=10, most=10)
        assert reminded is not None
        assert reminded.told == 1

    async def cancel_and_replay(self, failed: int) -> None:
        message = replace(prepared("never@there.example"), id=UUID(int=0x1977 << 112))
        await stored(self.conn, message)
        assert (await outbox.cancel(self.conn, message.id)).changed == 1
        wanted = deadletters.Filter(ids=[failed])
        assert len((await deadletters.replay(self.conn, wanted, lifetime=60, most=1)).revived) == 1

    async def trouble(self) -> None:
        await accounts.set_state(self.conn, "a", AccountState.PAUSED, "By hand")
        await accounts.set_state(self.conn, "a", AccountState.ACTIVE, "")
        found = await accounts.get(self.conn, None, "a")
        assert found is not None
        gone = Reply(451, "4.4.1", "mx port 25: connection refused")
        await health.trouble(self.conn, found, "The upstream cannot be reached.", gone, first=1, most=2)
        refused = Reply(535, "5.7.8", "wrong user or password")
        await health.refused(self.conn, found, "Upstream refused the login.", refused, seconds=60)

    async def subscribe(self) -> None:
        id = await endpoint(self.conn, "https://hooks.example/mail", vault=self.vault)
        found = await endpoints.opened(self.conn, self.vault, [id])
        await replays.test(self.conn, found[id])
        claim = await postings.claim(self.conn, after=0, most=9, each=9, share=9, busy={}, seconds=9)
        (posting,) = claim.postings
        tried = Tried(posting, found[id].url, 0.1, 410, "it answered 410 Gone", "", gone=True)
        (fared,) = await postings.settle(self.conn, [tried], failing=9)
        assert fared.disabled

    async def bodies(self) -> dict[str, Any]:
        """The first body of each event, its instants made equal."""
        cursor = await self.conn.execute("select account_id, at, type, data from events order by id desc")
        return {
            type: json.loads(INSTANT.sub(AT, webhook.body(SERVICE, account, at, type, data).decode()))
            async for account, at, type, data in cursor
        }


@pytest.fixture
async def life(pool: db.Pool) -> AsyncIterator[Life]:
    async with db.connection(pool) as conn:
        yield Life(conn)


async def test_the_code_tells_what_the_golden_bodies_say(life: Life) -> None:
    await life.everything()
    told = await life.bodies()
    if os.environ.get("GOLDEN") == "write":
        for event, body in told.items():
            (FOLDER / f"{event}.json").write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    assert set(told) == {event.value for event in EventType}
    for event in EventType:
        assert told[event.value] == golden(event), event


async def test_mail_that_a_lost_worker_may_have_sent_fails_with_the_same_fields(life: Life) -> None:
    await account(life.conn)
    await stored(life.conn, prepared(), attempts=1)
    (lease,) = await granted(life.conn, "a")
    await leases.start(life.conn, lease.id, seconds=60)
    await life.conn.execute("update leases set expires_at = now() - interval '1 second'")
    await leases.recover(life.conn)
    data = (await life.bodies())[EventType.MESSAGE_FAILED]["data"]
    assert list(faults(DATA[EventType.MESSAGE_FAILED], data)) == []
    assert (data["job"]["attemptsMade"], data["job"]["nextAttempt"], data["smtpResponse"]) == (1, None, None)


async def test_mail_whose_time_is_over_fails_with_the_same_fields(life: Life) -> None:
    await account(life.conn)
    await stored(life.conn, prepared())
    (lease,) = await granted(life.conn, "a")
    started = await leases.start(life.conn, lease.id, seconds=60)
    assert started is not None
    await outcomes.commit(life.conn, [reading.overdue(started.deliveries[0], lease.id)])
    data = (await life.bodies())[EventType.MESSAGE_FAILED]["data"]
    assert list(faults(DATA[EventType.MESSAGE_FAILED], data)) == []
    assert (data["smtpResponse"], data["smtpResponseCode"]) == (None, None)
