"""The watch of mailboxes as tests run it: in their own loop and database, in haste; and mail to be found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from relay import enrol
from relay.core.tenant import Imap
from relay.core.vault import Vault
from relay.mailboxes import Mailboxes
from relay.net.imap import Mailbox, connect
from relay.settings import Settings
from relay.store import db, mailboxes
from relay.store.mailboxes import Standing
from relay.watch import Watcher
from tests.stack import until
from tests.store.mail import prepared, stored

HASTY = {"mailbox_poll": 0.05, "mailbox_poll_most": 0.05, "mailbox_timeout": 5.0, "mailbox_connections": 8}
NEVER = {"mailbox_poll": 3600.0, "mailbox_poll_most": 3600.0}
PERSON = b"From: Ann <ann@example.com>\r\nSubject: Lunch?\r\nMessage-ID: <lunch@example.com>\r\n\r\nAt noon?\r\n"
AWAY = b"""From: bob@there.example
To: s@example.com
Subject: Out of office: hello
Auto-Submitted: auto-replied
Message-ID: <away@there.example>

I am away until Monday.
""".replace(b"\n", b"\r\n")


@dataclass
class Watched:
    """A database with accounts whose mailboxes are at one server, and Watchers that look at them."""

    pool: db.Pool
    settings: Settings
    imap: Imap

    async def account(self, id: str = "a", **imap: Any) -> None:
        """The account has this mailbox, or changes what is given of it."""
        login = {"user": self.imap.user, "pass": self.imap.password}
        server = {"host": self.imap.host, "port": self.imap.port, "secure": False, "tls": {"mode": "none"}}
        smtp = {"host": "127.0.0.1", "port": 1, "secure": False}
        await self.save(id, smtp=smtp, imap={**server, "auth": login, **imap})

    async def save(self, id: str = "a", **given: Any) -> None:
        await enrol.save(self.pool, Vault(self.settings.secret_keys), self.settings, id, given)

    async def sent(self, *recipients: str, account: str = "a", message_id: str = "<x@example.com>") -> None:
        """One message, which has just left to these."""
        async with db.connection(self.pool) as conn:
            await stored(conn, replace(prepared(*recipients, account=account), message_id=message_id))
            await conn.execute("update deliveries set state = 'sent', finished_at = now() where finished_at is null")

    @asynccontextmanager
    async def running(self, look: float = 0.02, **given: Any) -> AsyncIterator[Watcher]:
        stopping = asyncio.Event()
        settings = replace(self.settings, **HASTY | given)
        boxes = Mailboxes(settings, None)
        watcher = Watcher(self.pool, settings, Vault(settings.secret_keys), boxes, look=look)
        task = asyncio.create_task(watcher.run(stopping))
        try:
            yield watcher
        finally:
            stopping.set()
            await task
            await boxes.close()

    async def looked_at(self, account: str = "a") -> None:
        """Waits for a look that began after this, and went well."""
        begun = datetime.now(UTC)

        async def so() -> bool:
            at = (await self.standing(account)).looked_at
            return at is not None and at > begun

        await until(so)

    async def standing(self, account: str = "a") -> Standing:
        async with db.connection(self.pool) as conn:
            found = await mailboxes.find(conn, account)
        assert found is not None
        return found

    async def failed(self, times: int, account: str = "a") -> bool:
        return (await self.standing(account)).failures >= times

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(query.encode(), values)).fetchall()

    async def states(self, account: str = "a") -> dict[str, str]:
        """What became of the deliveries, by recipient."""
        return dict(await self.rows("select recipient, state::text from deliveries where account_id = %s", account))

    async def become(self, account: str = "a", **states: str) -> None:
        """Waits until the deliveries to NAME@there.example are in these states, and no others are there."""
        wanted = {f"{name}@there.example": state for name, state in states.items()}

        async def so() -> bool:
            return await self.states(account) == wanted

        try:
            await until(so)
        except AssertionError:
            raise AssertionError(f"deliveries are {await self.states(account)}, and not {wanted}") from None

    async def reports(self) -> list[tuple[Any, ...]]:
        """(kind, how many deliveries matched) of each, in their order."""
        return await self.rows("select kind, matched from reports order by id")

    async def events(self, type: str) -> list[Any]:
        found = await self.rows("select data from events where type = %s order by id", type)
        return [row[0] for row in found]

    async def suppressed(self) -> set[str]:
        return {row[0] for row in await self.rows("select address from suppressions")}

    async def due(self) -> None:
        """All waits and claims are over."""
        await self.rows("update mailboxes set due_at = now() where due_at is not null returning account_id")


@asynccontextmanager
async def opened(imap: Imap, settings: Settings) -> AsyncIterator[Mailbox]:
    """The mailbox as its owner sees it."""
    mailbox = await connect(imap, allowed=settings.allow_networks, seconds=10)
    try:
        yield mailbox
    finally:
        await mailbox.close()


async def delivered(imap: Imap, settings: Settings, *mails: bytes, path: str = "INBOX", date: Any = None) -> None:
    """These have come into the mailbox."""
    async with opened(imap, settings) as mailbox:
        for mail in mails:
            await mailbox.append(path, mail, date=date or datetime.now(UTC))


async def emptied(imap: Imap, settings: Settings, *paths: str) -> None:
    async with opened(imap, settings) as mailbox:
        for path in paths:
            await mailbox.select(path)
            if uids := await mailbox.since(1, 100_000):
                await mailbox.flag(uids, "\\Deleted")
                await mailbox.expunge_all()


def bounce(
    *recipients: str, id: str = "1", message_id: str = "<x@example.com>", action: str = "failed", status: str = "5.1.1"
) -> bytes:
    """A report of what became of a message (RFC 3464), as a mail server sends it."""
    blocks = [
        f"Final-Recipient: rfc822; {one}\nAction: {action}\nStatus: {status}\n"
        f"Diagnostic-Code: smtp; {status[0]}50 {status} <{one}>: User unknown\nRemote-MTA: dns; mx.there.example\n"
        for one in recipients
    ]
    return _report(
        f"<{id}@mx.there.example>",
        "MAILER-DAEMON@mx.there.example (Mail Delivery System)",
        "Undelivered Mail Returned to Sender",
        "delivery-status",
        "Your message could not be delivered.",
        ("message/delivery-status", "Reporting-MTA: dns; mx.there.example\n\n" + "\n".join(blocks)),
        {"From": "s@example.com", "To": ", ".join(recipients[:3]), "Message-ID": message_id},
    )


def complaint(recipient: str, id: str = "c1", message_id: str = "<x@example.com>", what: str = "abuse") -> bytes:
    """A report that a message is spam (RFC 5965), as a provider sends it."""
    return _report(
        f"<{id}@fbl.there.example>",
        "feedback@there.example",
        "FW: hello",
        "feedback-report",
        "This is an email abuse report.",
        (
            "message/feedback-report",
            f"Feedback-Type: {what}\nUser-Agent: Test/1\nVersion: 1\nOriginal-Rcpt-To: {recipient}\n",
        ),
        {"From": "s@example.com", "To": recipient, "Message-ID": message_id},
    )


def _report(
    id: str, sender: str, subject: str, kind: str, text: str, told: Sequence[str], original: Mapping[str, str]
) -> bytes:
    header = "".join(f"{name}: {value}\n" for name, value in original.items())
    return f"""Return-Path: <>
From: {sender}
To: s@example.com
Subject: {subject}
Message-ID: {id}
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="b"

--b
Content-Type: text/plain

{text}

--b
Content-Type: {told[0]}

{told[1]}
--b
Content-Type: text/rfc822-headers

{header}Subject: hello

--b--
""".replace("\n", "\r\n").encode()
