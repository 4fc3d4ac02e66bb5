"""Before and after a ledger run: the accounts it sends for, the wait until all is finished, and what the store says."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from relay import enrol
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db
from tests.bench import machine
from tests.chaos.box import USER as OWNER
from tests.chaos.box import Box
from tests.chaos.doubt import Strike, judged
from tests.chaos.ledger import Books, Fate, fullest
from tests.chaos.senders import Senders
from tests.chaos.sink import CALM, NOBODY, Sink
from tests.fakes.receiver import Receiver
from tests.stack import until

ACCOUNTS = ["ann", "bob", "cat", "dan"]
LIMITED = "dan"
PER_MINUTE = 30
SETTLE = 180.0  # s in which all must be finished once everything is well again
PATIENT = 20.0  # s of them after which mail that was tried often, and rests for minutes, is made due

LEFT = """
select (select count(*) from deliveries where state in ('queued', 'leased', 'deferred')),
    (select count(*) from postings where state = 'pending'),
    (select count(*) from sent_copies where due_at is not null)
"""
LOOKED = "select 1 from mailboxes where account_id = %s and looked_at > %s"
SOON = (
    "update deliveries set due_at = now() where state in ('queued', 'deferred') and due_at > now()",
    "update sent_copies set due_at = now() where due_at > now() and looks = 0",  # later looks are for late copies
)
FATES = """
select d.account_id, d.recipient, replace(d.message_id::text, '-', ''), d.state::text,
    coalesce(nullif(d.reply, ''), d.category, ''),
    array(select extract(epoch from a.at)::float8 from attempts a where a.delivery_id = d.id and a.outcome = 'unknown')
from deliveries d where d.account_id = any(%s)
"""
OWED = """
select message_id from messages m where account_id = %s and exists (
    select 1 from deliveries d where d.message_id = m.id and d.state in ('sent', 'bounced', 'complained'))
"""
TOLD = """
select d.recipient, case e.type when 'messageBounce' then 'bounced' else 'complained' end, count(*)
from events e join deliveries d on d.id = e.delivery_id
where e.type in ('messageBounce', 'messageComplaint') group by 1, 2
"""
EVENTS = "select id from events where type <> 'webhookTest'"


@dataclass
class Reckoning:
    """`settings` lead to the store past all that is cut."""

    settings: Settings
    sink: Sink
    receiver: Receiver

    async def enrol(self, upstream: tuple[str, int], mailbox: int = 0) -> None:
        """The accounts, all at this upstream; one has a limit, one its mailbox at a port where there is one."""
        pool = await db.open_pool(self.settings, most=1)
        for name in ACCOUNTS:
            smtp = {"host": upstream[0], "port": upstream[1], "secure": False}
            smtp |= {"tls": {"mode": "none"}, "auth": {"user": name, "pass": "secret"}}
            limits = {"connections": 3} | ({"perMinute": PER_MINUTE} if name == LIMITED else {})
            given = {"email": f"{name}@here.example", "smtp": smtp, "limits": limits}
            if mailbox and name == OWNER:
                given |= {"imap": Box.settings(mailbox), "tracking": {"opens": True}}
            await enrol.save(pool, Vault(self.settings.secret_keys), self.settings, name, given)
        await pool.close()

    async def subscribe(self, api: str, token: str, url: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(api, headers=headers) as http,
            http.post("/v1/webhooks", json={"url": url}) as response,
        ):
            assert response.status == 200, await response.text()

    async def books(self, senders: Senders, strikes: Collection[Strike], box: Box | None = None) -> Books:
        """Waits until nothing is left to do, or nothing more is to be expected; then asks the store."""
        self.sink.odds = CALM
        self.receiver.usual()
        pool = await db.open_pool(self.settings, most=1)
        async with db.connection(pool) as conn:
            await self._finished(conn)
            if box:
                await box.filled()
                await self._looked(conn)
                await self._finished(conn)
            told = {tuple(row[:2]): row[2] for row in await _rows(conn, TOLD)}
            fates = [Fate(*row[:5], tuple(row[5])) for row in await _rows(conn, FATES, ACCOUNTS)]
            owed = frozenset(row[0] for row in await _rows(conn, OWED, OWNER)) if box else frozenset()
            events = frozenset(f"evt_{row[0]}" for row in await _rows(conn, EVENTS))
        await pool.close()
        posted = frozenset(post.headers.get("webhook-id", "") for post in self.receiver.taken)
        return Books(
            handed=senders.ledger,
            taken=judged(self.sink.mails, strikes),
            fates=fates,
            per_minute={LIMITED: PER_MINUTE},
            events=events,
            posted=posted,
            owed=owed,
            filed=list(box.filed()) if box else (),
            reported=box.reported if box else {},
            told=told,
            refused=NOBODY,
        )

    async def _looked(self, conn: db.Connection) -> None:
        """Waits for a look at the mailbox that began after now, and went well."""
        [[now]] = await _rows(conn, "select now()")

        async def so() -> bool:
            return bool(await _rows(conn, LOOKED, OWNER, now))

        await until(so, SETTLE)

    async def _finished(self, conn: db.Connection) -> None:
        began, told = time.monotonic(), None
        while (waited := time.monotonic() - began) < SETTLE:
            [left] = await _rows(conn, LEFT)
            if not any(left):
                return
            if left != told:
                told = left
                say(f"waiting for {left[0]} deliveries, {left[1]} webhooks and {left[2]} Sent copies")
            if waited > PATIENT:
                for query in SOON:
                    await conn.execute(query)
            await asyncio.sleep(0.5)
        say(f"not finished after {SETTLE:g} s")


def limited(seconds: float) -> dict[str, int]:
    """How much is handed over for accounts with a limit: more than the run has time for, so that it is met."""
    return {LIMITED: int(PER_MINUTE * (1 + max(1.0, seconds / 60)))}


def summary(books: Books, senders: Senders, sink: Sink, box: Box | None = None) -> dict[str, Any]:
    """What came of a run, in figures."""
    taken = Counter((copy.account, copy.recipient) for copy in books.taken)
    mailbox = box and {
        "copies that the provider filed": box.copies,
        "Sent copies owed": len(books.owed),
        "Sent copies in the mailbox": len(books.filed),
        "reports that came": dict(Counter(books.reported.values())),
    }
    return {
        "mails handed over": len(books.handed),
        "answers": dict(Counter(answer.value for mail in books.handed for answer in mail.answers)),
        "handed over again elsewhere": senders.elsewhere,
        "deliveries": dict(Counter(fate.state for fate in books.fates)),
        "moods of upstream": dict(sink.moods),
        "copies taken": len(books.taken),
        "copies beyond one": sum(taken.values()) - len(taken),
        "copies that could be in doubt": sum(copy.doubtful for copy in books.taken),
        "attempts told as unknown": sum(len(fate.unknowns) for fate in books.fates),
        "most of the limited account in a minute": f"{fullest(books, LIMITED)} of {PER_MINUTE}",
        "events": len(books.events),
        "of them posted": len(books.posted & books.events),
        **(mailbox or {}),
    }


def markdown(title: str, figures: dict[str, Any]) -> str:
    """The same as a table, with the machine and the day."""
    rows = [f"| {name} | {_plain(value)} |" for name, value in figures.items()]
    return "\n".join([f"{title}, {machine.where()}.", "", "| | |", "|---|---|", *rows])


def keep(books: Books, sink: Sink, folder: Path) -> None:
    """Both ledgers as JSON: what is blamed can be looked up."""
    rows = {"handed": books.handed, "taken": books.taken, "fates": books.fates, "mails": sink.mails}
    text = {name: [asdict(row) for row in some] for name, some in rows.items()}  # type: ignore[call-overload]
    (folder / "books.json").write_text(json.dumps(text, default=sorted, indent=1))


def say(text: str) -> None:
    """When it happens, beside the result."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def _plain(value: object) -> str:
    return ", ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)


async def _rows(conn: db.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), values)).fetchall()
