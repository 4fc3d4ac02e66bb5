"""The mailbox of one account of a ledger run, on a real Dovecot, and what other people bring into it.

Its provider files a copy of each mail that it takes, as it takes it, at once or a moment later; bounces and complaints
come in. What it has in the end is read from disk.
"""

from __future__ import annotations

import asyncio
import imaplib
import random
from collections.abc import Iterator
from email import message_from_bytes, policy
from itertools import count
from pathlib import Path
from typing import Any

from tests.chaos.doubt import Mail
from tests.chaos.ledger import Filed
from tests.chaos.sink import ANGRY, GONE
from tests.dovecot import PASSWORDS, Dovecot
from tests.watching import bounce, complaint

USER = "ann"
SENT = "Verschickt &- raus"  # in modified UTF-7
PIXEL = "/t/"  # in the address of every pixel
THERE = "there.example>"  # how Message-IDs of reports end
LATEST = 1.0  # s after which a copy is filed: before the last look


class Box:
    """Started when it is made; `stop` it."""

    def __init__(self, port: int, tls_port: int) -> None:
        self._dovecot = Dovecot(port, tls_port)
        self.port = port
        self.reported: dict[str, str] = {}  # recipients of whom a report came, and the state that it makes
        self._numbers = count(1)
        self._coming: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._owner: imaplib.IMAP4 | None = None

    @staticmethod
    def missing() -> str:
        """Why there can be none here; "" when there can."""
        return Dovecot.missing()

    @staticmethod
    def settings(port: int) -> dict[str, Any]:
        """As the API takes them, for whoever comes by way of this port."""
        auth = {"user": USER, "pass": PASSWORDS[USER]}
        return {"host": "127.0.0.1", "port": port, "secure": False, "tls": {"mode": "none"}, "auth": auth}

    @property
    def copies(self) -> int:
        """So many mails the provider took, and filed."""
        return len(self._coming)

    def took(self, mail: Mail, content: bytes) -> None:
        """The provider has a mail, of whichever account."""
        if mail.account == USER:
            self._coming.append(asyncio.create_task(self._come(list(mail.recipients), content)))

    async def filled(self) -> None:
        """Waits until all that is to come is there."""
        await asyncio.gather(*self._coming)

    async def _come(self, recipients: list[str], content: bytes) -> None:
        message_id = message_from_bytes(content)["Message-ID"]
        for recipient in recipients:
            id = f"report{next(self._numbers)}"
            if recipient.startswith(GONE):
                await self._append("INBOX", bounce(recipient, id=id, message_id=message_id))
                self.reported[recipient] = "bounced"
            elif recipient.startswith(ANGRY):
                await self._append("INBOX", complaint(recipient, id=id, message_id=message_id))
                self.reported[recipient] = "complained"
        await asyncio.sleep(max(0.0, random.uniform(-LATEST, LATEST)))
        await self._append(f'"{SENT}"', content)

    async def _append(self, path: str, content: bytes) -> None:
        async with self._turn:
            if self._owner is None:
                self._owner = await asyncio.to_thread(self._opened)
            done, said = await asyncio.to_thread(self._owner.append, path, "", "", content)
            assert done == "OK", said

    def _opened(self) -> imaplib.IMAP4:
        owner = imaplib.IMAP4("127.0.0.1", self.port)
        owner.login(USER, PASSWORDS[USER])
        return owner

    def filed(self) -> Iterator[Filed]:
        """Every mail in it, in whatever folder, but for the reports."""
        maildir = self._dovecot.folder / "mail" / USER / "Maildir"
        for place in (*maildir.rglob("cur/*"), *maildir.rglob("new/*")):
            copy = judged(place, place.read_bytes())
            if not copy.message_id.endswith(THERE):
                yield copy

    def stop(self) -> None:
        self._dovecot.stop()


def judged(place: Path, content: bytes) -> Filed:
    """A mail as its file in a Maildir shows it."""
    mail = message_from_bytes(content, policy=policy.default)
    texts = (part.get_content() for part in mail.walk() if part.get_content_maintype() == "text")
    flaws = {
        "with a pixel": any(PIXEL in text for text in texts),
        "unseen": "S" not in place.name.partition(":2,")[2],
        "elsewhere": place.parent.parent.name != SENT,
    }
    return Filed(mail["Message-ID"] or "", tuple(flaw for flaw, there in flaws.items() if there))
