"""Sent copies as tests make them: mail that was sent, and the room that leaves its copy.

Each works in the test's own loop and database; waits and claims are over when the test says so (`due`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from relay import enrol
from relay.copies import Copier
from relay.core import pixel, splice
from relay.core.tenant import Imap
from relay.core.vault import Vault
from relay.mailboxes import Mailboxes
from relay.settings import Settings
from relay.store import db
from tests.stack import until
from tests.store.mail import prepared, stored

NEVER = {"copy_looks": (), "copy_retries": (3600.0,) * 8, "mailbox_timeout": 60.0, "mailbox_connections": 8}
SENDER = "From: Ann <ann@example.com>"
PLAIN = "text/plain"
HTML = "text/html"


def message(id: str = "1@example.com", kind: str = HTML, text: str = "<html><body><p>Hi</p></body></html>") -> bytes:
    """As it was submitted, without Bcc."""
    lines = [SENDER, "To: bo@there.example", "Subject: Hello", f"Message-ID: <{id}>", "MIME-Version: 1.0"]
    lines += ["Date: Fri, 02 Jan 2026 03:04:05 +0000", f"Content-Type: {kind}; charset=utf-8", "", text, ""]
    return "\r\n".join(lines).encode()


def theirs(content: bytes, number: int = 1, sender: str = "From: Ann <ann@corp.example>") -> bytes:
    """As a provider files it: with a pixel, where there is a place for one, in its words, with a line of its own."""
    content = b"Received: from relay by provider\r\n" + content.replace(SENDER.encode(), sender.encode())
    place = splice.find(content)
    if place is None:
        return content
    tag = pixel.tag("http://127.0.0.1:3000", pixel.sign([b"k" * 32], number))
    return b"".join(splice.render(content, place, tag))


@dataclass
class Desk:
    """An account `a` with a mailbox, whose mail is sent already."""

    pool: db.Pool
    settings: Settings
    imap: Imap
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    sent: dict[UUID, bytes] = field(default_factory=dict)

    async def account(self, id: str = "a", smtp: str = "127.0.0.1", at: Imap | None = None, **given: Any) -> None:
        """With this mailbox, or another."""
        at = at or self.imap
        login = {"user": at.user, "pass": at.password}
        server = {"host": at.host, "port": at.port, "secure": False, "tls": {"mode": "none"}}
        imap = {**server, "auth": login, "watch": False, **given.pop("imap", {})}
        upstream = {"host": smtp, "port": 1, "secure": False}
        vault = Vault(self.settings.secret_keys)
        await enrol.save(self.pool, vault, self.settings, id, {"smtp": upstream, "imap": imap, **given})

    async def send(self, content: bytes | None = None, *to: str, reply: str = "ok", **more: Any) -> UUID:
        """A message that was sent to all of them, with this reply; its copy is owed."""
        content = message() if content is None else content
        one = replace(
            prepared(*to or ("bo@there.example",), content=content, splice=splice.find(content), **more),
            message_id=_field(content, b"Message-ID"),
        )
        async with db.connection(self.pool) as conn:
            await stored(conn, one)
            await conn.execute(
                "with d as (update deliveries set state = 'sent', ready = false, finished_at = now(), reply = %s"
                " where message_id = %s returning id, account_id)"
                " insert into attempts (delivery_id, account_id, number, seconds, outcome, stage)"
                " select id, account_id, 1, 0, 'sent', 'dot' from d",
                (reply, one.id),
            )
            await conn.execute(
                "insert into sent_copies (message_id, account_id) values (%s, %s)", (one.id, one.account)
            )
        self.sent[one.id] = content
        return one.id

    @asynccontextmanager
    async def working(self, **given: Any) -> AsyncIterator[Copier]:
        stopping = asyncio.Event()
        settings = replace(self.settings, **NEVER | given)
        boxes = Mailboxes(settings, None)
        copier = Copier(self.pool, settings, Vault(settings.secret_keys), boxes, look=0.02)
        task = asyncio.create_task(copier.run(stopping))
        try:
            yield copier
        finally:
            stopping.set()
            await task
            await boxes.close()

    async def work(self, **given: Any) -> None:
        """Until nothing is due: each copy was tried once, or looked at, and is settled or waits."""
        async with self.working(**given):
            await until(self.rested)

    async def rested(self) -> bool:
        ((busy,),) = await self.rows("select count(*) from sent_copies where due_at <= now() or claimed_until > now()")
        return busy == 0

    async def due(self) -> None:
        """All waits and claims are over."""
        await self.rows("update mailboxes set copies_at = null returning 1")
        await self.rows(
            "update sent_copies set due_at = now(), claimed_until = null where due_at is not null returning 1"
        )

    async def due_again(self) -> None:
        """One that nobody has in hand is looked at once more."""
        await self.rows(
            "update sent_copies set due_at = now() where message_id = ("
            "select message_id from sent_copies where due_at > now() and claimed_until is null limit 1) returning 1"
        )

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    async def state(self) -> str:
        """Of the only copy."""
        ((state,),) = await self.rows("select state::text from sent_copies")
        return str(state)

    async def error(self) -> str:
        ((error,),) = await self.rows("select error from sent_copies")
        return str(error)

    async def files(self) -> bool | None:
        ((files,),) = await self.rows("select files from mailboxes")
        return files if files is None else bool(files)

    async def events(self) -> list[Mapping[str, Any]]:
        return [row[0] for row in await self.rows("select data from events where type = 'sentCopyFailed' order by id")]


def _field(content: bytes, name: bytes) -> str:
    line = next(line for line in content.split(b"\r\n") if line.startswith(name + b":"))
    return line.partition(b":")[2].decode().strip()
