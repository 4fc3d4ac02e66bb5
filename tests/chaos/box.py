"""The mailbox of one account of a ledger run, on a real Dovecot: bounces come in; what it has is read from disk."""

from __future__ import annotations

import asyncio
import imaplib
from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

from tests.chaos.ledger import Filed
from tests.dovecot import PASSWORDS, Dovecot
from tests.watching import bounce

USER = "ann"
PIXEL = b"/t/"  # in the address of every pixel


class Box:
    """Started when it is made; `stop` it."""

    def __init__(self, port: int, tls_port: int) -> None:
        self._dovecot = Dovecot(port, tls_port)
        self.port = port
        self.bounced: set[str] = set()  # recipients of whom it was told that they are gone
        self._reports: set[str] = set()
        self._came: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    @staticmethod
    def missing() -> str:
        """Why there can be none here; "" when there can."""
        return Dovecot.missing()

    @staticmethod
    def settings(port: int) -> dict[str, Any]:
        """As the API takes them, for whoever comes by way of this port."""
        auth = {"user": USER, "pass": PASSWORDS[USER]}
        return {"host": "127.0.0.1", "port": port, "secure": False, "tls": {"mode": "none"}, "auth": auth}

    def came_back(self, recipient: str, message_id: str) -> None:
        """A copy was taken, and nobody is there."""
        self._came.put_nowait((recipient, message_id))

    async def fill(self) -> None:
        """Puts a report of each into INBOX, until it is cancelled."""
        owner = await asyncio.to_thread(self._opened)
        while True:
            recipient, message_id = await self._came.get()
            name = f"bounce{len(self._reports)}"
            self._reports.add(f"<{name}@mx.there.example>")
            report = bounce(recipient, id=name, message_id=message_id)
            await asyncio.to_thread(owner.append, "INBOX", "", "", report)
            self.bounced.add(recipient)
            self._came.task_done()

    async def filled(self) -> None:
        """Waits until all of them are there."""
        await self._came.join()

    def _opened(self) -> imaplib.IMAP4:
        owner = imaplib.IMAP4("127.0.0.1", self.port)
        owner.login(USER, PASSWORDS[USER])
        return owner

    def filed(self) -> Iterator[Filed]:
        """Every mail in it, in whatever folder, but for the reports."""
        maildir = self._dovecot.folder / "mail" / USER
        for place in (*maildir.rglob("cur/*"), *maildir.rglob("new/*")):
            content = place.read_bytes()
            message_id = message_from_bytes(content)["Message-ID"] or ""
            if message_id not in self._reports:
                yield Filed(message_id, clean=PIXEL not in content)

    def stop(self) -> None:
        self._dovecot.stop()
