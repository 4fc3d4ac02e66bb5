"""A tenant with something in every room: mail of every fate, a report, opens, notes, an endpoint and its log, a token.

Whatever of it has words has the tenant's own word in them, so that it is found wherever it turns up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relay import bounces
from relay.core.bounce import Reported, judge
from relay.core.model import EventType, Opener, Outcome, State
from relay.core.prose import Told
from relay.core.report import Kind
from relay.store import leases, opens, outcomes, suppressions
from relay.store.db import Connection
from relay.store.opens import Open
from relay.store.outcomes import Report
from relay.store.suppressions import Suppression
from tests.api.client import SHOP, Client
from tests.store.hooks import tried
from tests.store.mail import prepared, stored
from tests.store.test_leases import granted


@dataclass(frozen=True)
class Life:
    """The ids of what a tenant has; `word` is its account's id, too."""

    word: str
    queue_id: str
    waiting: str  # queueId of mail that waits
    sent: int  # deliveries
    dead: int
    recipient: str
    event: int
    endpoint: int
    posting: int
    token: int


async def lived(admin: Client, conn: Connection, word: str) -> Life:
    """The tenant, after all that."""
    await admin.ok("POST", "/v1/account", {**SHOP, "account": word, "name": word, "email": f"{word}@here.example"})
    endpoint = await admin.ok("POST", "/v1/webhooks", hook(word))
    token = await admin.ok("POST", "/v1/tokens", {"scopes": ["api"], "account": word, "description": word})
    waiting, queue_id = await _mail(conn, word)
    sent, dead = await _sent(conn, word)
    await _opened(conn, sent, word)
    event = await _told(conn, sent)
    posting = (await admin.ok("GET", f"/v1/webhooks/{endpoint['id']}/log?eventId=evt_{event}"))["items"][0]["id"]
    recipient = f"{word}-0@there.example"
    await suppressions.add(conn, word, [Suppression(recipient, "manual", word)])
    said = judge(Told(f"{word}@else.example", "failed", "5.1.1", word, word))
    await bounces.record(conn, word, Reported(Kind.BOUNCE, "imap", word, f"<{word}@else.example>", (said,), place=word))
    return Life(word, queue_id, waiting, sent, dead, recipient, event, endpoint["id"], posting, token["id"])


def hook(word: str) -> dict[str, Any]:
    headers = {f"X-{word}": word}
    return {"url": f"https://{word}.example/", "account": word, "headers": headers, "description": word}


async def _mail(conn: Connection, word: str) -> tuple[str, str]:
    """Mail for later and mail for now: their queueIds."""
    words = {"subject": word, "email_type": word, "reference_type": word, "reference_id": word}
    later = datetime.now(UTC) + timedelta(days=30)
    first = prepared(f"{word}-later@there.example", account=word, send_at=later, **words)
    second = prepared(*(f"{word}-{n}@there.example" for n in range(2)), account=word, **words)
    await stored(conn, first, second)
    return first.queue_id, second.queue_id


async def _sent(conn: Connection, word: str) -> tuple[int, int]:
    """One delivery is sent and one fails, as a worker reports it."""
    (lease,) = await granted(conn, word)
    started = await leases.start(conn, lease.id, seconds=60)
    assert started is not None
    sent, dead = sorted(one.delivery for one in started.deliveries)
    told: dict[str, Any] = {"stage": "dot", "seconds": 0.1, "data": {"recipient": word}, "upstream": f"{word}.example"}
    done = Report(sent, lease.id, State.SENT, Outcome.SENT, code=250, reply=word, event=EventType.MESSAGE_SENT, **told)
    lost = Report(
        dead, lease.id, State.FAILED, Outcome.FAILED, code=550, reply=word, event=EventType.MESSAGE_FAILED, **told
    )
    assert await outcomes.commit(conn, [done, lost]) == [True, True]
    return sent, dead


async def _opened(conn: Connection, delivery: int, word: str) -> None:
    now = datetime.now(UTC)
    await opens.record(
        conn, [Open(delivery, 1, now, "GET", "192.0.2.7", word, Opener.PERSON, word, word, "DE", word, True)]
    )
    await conn.execute(
        "insert into notes (delivery_id, account_id, pinned, notes) select id, account_id, true, %s from deliveries"
        " where id = %s",
        (word, delivery),
    )


async def _told(conn: Connection, delivery: int) -> int:
    """The event of a delivery that was sent; it was posted, with a try in the log."""
    cursor = await conn.execute("select min(id) from events where delivery_id = %s", (delivery,))
    row = await cursor.fetchone()
    assert row is not None
    await tried(conn, row[0], "delivered", 200)
    return int(row[0])
