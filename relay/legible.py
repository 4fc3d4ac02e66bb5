"""A folder that is looked at, as far as its server can read it: a mail that it cannot read keeps no other waiting.

There are servers that say NO to whatever such a mail is asked for with, and others that hang up: those are connected to
again. That it is the mail, and not the server, is believed when another one can be read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from relay.core import letter
from relay.net.imap import Mailbox, MailboxError, Selected

T = TypeVar("T")
Fetch = Callable[[Mailbox, list[int]], Awaitable[dict[int, T]]]
"""Asks something of these mails."""

Another = Callable[[], Awaitable[Mailbox]]
"""A connection in place of one that was lost. Raises MailboxError, and what the tokens raise (TokenError)."""

Unread = dict[int, MailboxError]
"""Mail that the server does not show."""

LONGEST = 60.0  # s after which a look is over, at the next mail; then others have their turn
CONNECTIONS = 20  # that one look takes in place of lost ones: nine find one mail among two hundred
OTHERS = 3  # mails that are asked for to know whether the server reads any
ENDED = ("lost", "protocol")  # what becomes of a connection over a mail

log = logging.getLogger("postferry.watch")


@dataclass(slots=True)
class Legible:
    """The connection of a look, and the folder that is selected there."""

    account: str
    mailbox: Mailbox
    another: Another
    selected: Selected | None = None
    begun: float = 0.0
    renewed: int = 0

    def begin(self) -> None:
        self.begun, self.renewed = time.monotonic(), 0

    @property
    def ago(self) -> float:
        """Seconds since the look began."""
        return time.monotonic() - self.begun

    async def select(self, path: str) -> Selected:
        self.selected = await self.mailbox.select(path, readonly=True)
        return self.selected

    async def fetched(self, uids: list[int], fetch: Fetch[T], *, stuck: bool) -> dict[int, T]:
        """Of all of them; in the end of those alone that the server can read. One that can read none is away.

        `stuck`: it was tried often enough, for a trouble of the server's own may pass.
        """
        if not uids:
            return {}
        unread: Unread = {}
        try:
            return await fetch(self.mailbox, uids)
        except MailboxError as fault:
            if not self._passes_over(fault, stuck):
                raise
            found = await self._apart(uids, fetch, fault, unread)
            if not found and not await self._reads_others(uids):
                raise
        for uid, error in unread.items():
            self._tell(uid, error)
        return found

    async def _some(self, uids: list[int], fetch: Fetch[T], unread: Unread) -> dict[int, T]:
        try:
            return await fetch(self.mailbox, uids)
        except MailboxError as fault:
            if not self._passes_over(fault, stuck=True):
                raise
            return await self._apart(uids, fetch, fault, unread)

    async def _apart(self, uids: list[int], fetch: Fetch[T], fault: MailboxError, unread: Unread) -> dict[int, T]:
        """Halved, until those are found that the server has and cannot read."""
        if not self.mailbox.alive:
            await self._connect(fault)
        if len(uids) == 1:
            unread[uids[0]] = fault
            return {}
        if self.ago >= LONGEST:
            raise fault
        half = len(uids) // 2
        first = await self._some(uids[:half], fetch, unread)
        return first | await self._some(uids[half:], fetch, unread)

    async def _connect(self, fault: MailboxError) -> None:
        """Opens the same folder over another connection."""
        assert self.selected is not None
        if self.renewed >= CONNECTIONS:
            raise fault
        self.renewed += 1
        self.mailbox, before = await self.another(), self.selected
        if (await self.select(before.path)).uidvalidity != before.uidvalidity:
            raise fault  # the UIDs mean other mail now

    async def _reads_others(self, uids: list[int]) -> bool:
        """Whether it reads any other mail of the folder. Nothing is read of that but its first byte."""
        newest = await self.mailbox.since(1, len(uids) + OTHERS)
        others = [uid for uid in newest if uid not in uids][-OTHERS:]
        return bool(others and await self._some(others, first_bytes, {}))

    def _passes_over(self, fault: MailboxError, stuck: bool) -> bool:
        """A folder beside INBOX ends no look by what it refuses."""
        assert self.selected is not None
        if fault.kind == "refused":
            return stuck or self.selected.path != "INBOX"
        return stuck and fault.step == "fetch" and fault.kind in ENDED

    def _tell(self, uid: int, fault: Exception) -> None:
        assert self.selected is not None
        told = (uid, self.selected.path, self.account, fault)
        log.warning("mail %d in %s of %s cannot be read: %s", *told, extra={"account": self.account})


async def content(mailbox: Mailbox, uids: list[int]) -> dict[int, bytes]:
    """Of the only one, as much as is read of a report; nothing where it is gone."""
    found = await mailbox.content(uids[0], letter.MOST)
    return {} if found is None else {uids[0]: found}


async def first_bytes(mailbox: Mailbox, uids: list[int]) -> dict[int, bytes]:
    """Each one's first byte: enough to see that it can be read."""
    found = {uid: await mailbox.content(uid, 1) for uid in uids}
    return {uid: byte for uid, byte in found.items() if byte is not None}
