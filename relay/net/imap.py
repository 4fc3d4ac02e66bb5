"""A tenant's mailbox over IMAP: connected to a judged address, under TLS, logged in. Each has a thread of its own.

    mailbox = await connect(imap, allowed=settings.allow_networks, seconds=30)
    try:
        print(await mailbox.folders())
        await mailbox.select("INBOX", readonly=True)
        for uid in await mailbox.find("<7@example.com>"):
            print(await mailbox.content(uid, 1 << 20))
    finally:
        await mailbox.close()

All of it raises MailboxError and nothing else, is bounded in time and in size, and is not misled by what a server says
unasked. UIDs are those of the folder that is selected, and of its UIDVALIDITY.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from relay.core.folders import Folder
from relay.core.networks import Network
from relay.core.tenant import Imap
from relay.net import guard, imapappend, imapfolders, imapidle, imapmail, imapsearch
from relay.net.dial import DialError, Passed, dial, unwatched
from relay.net.imapanswers import Appended, Brief, Selected, Status
from relay.net.imapconnection import Connection, MailboxError

__all__ = ["Appended", "Brief", "Mailbox", "MailboxError", "Selected", "Status", "connect"]


async def connect(
    imap: Imap,
    *,
    allowed: Sequence[Network],
    seconds: float,
    resolver: guard.Resolver | None = None,
    passed: Passed = unwatched,
) -> Mailbox:
    """The mailbox, logged in. Raises MailboxError.

    `seconds`: for each look-up, connection, handshake and answer; `allowed`: private networks that may be dialled;
    `passed` is told of the steps resolve, connect, tls, greeting and login, those that are taken.
    """
    reached: list[str] = []

    def on(step: str) -> None:
        reached.append(step)
        passed(step)

    try:
        sock = await dial(imap.host, imap.port, allowed, seconds, resolver=resolver, passed=on)
    except DialError as fault:
        raise MailboxError("connect" if reached else "resolve", fault.kind, str(fault)) from fault
    mailbox = Mailbox(imap, sock, seconds)
    try:
        await mailbox.open(passed)
    except BaseException:
        mailbox.abort()
        raise
    return mailbox


class Mailbox(Connection):
    """A connection that is logged in. One call at a time; a call that is cancelled ends the connection.

    `capabilities`: in upper case. `uids` may be any number; those that are gone are passed over.
    """

    @property
    def gmail(self) -> bool:
        """Folders are labels here, and a mail is one however many it has."""
        return "X-GM-EXT-1" in self.capabilities

    async def folders(self) -> list[Folder]:
        """Every folder, as the server lists them."""
        return await self.ask("folders", imapfolders.listed)

    async def create(self, path: str) -> None:
        """Makes a folder, and what lies above it."""
        await self.ask("create", imapmail.create, path)

    async def status(self, path: str) -> Status:
        """What is known of a folder without selecting it: cheap."""
        return await self.ask("status", imapmail.status, path)

    async def select(self, path: str, *, readonly: bool = False) -> Selected:
        """The folder that all below are about. When it fails none is selected."""
        return await self.ask("select", imapmail.select, path, readonly)

    async def find(self, message_id: str) -> list[int]:
        """UIDs of the mail with this Message-ID, ascending; with or without its angle brackets."""
        return await self.ask("search", imapsearch.find, message_id)

    async def since(self, uid: int, most: int, below: int | None = None) -> list[int]:
        """UIDs from this one on, or up to before `below`, ascending: the newest `most` of them."""
        return await self.ask("search", imapsearch.since, uid, most, below)

    async def deleted(self) -> list[int]:
        r"""UIDs of the mail that is \Deleted, whoever wanted that."""
        return await self.ask("search", imapsearch.deleted)

    async def headers(self, uids: Collection[int], names: Collection[str] = ()) -> dict[int, bytes]:
        """The whole header of each, or the fields of these names; as it is stored, each cut at 64 KiB."""
        return await self.ask("fetch", imapmail.headers, uids, names)

    async def briefs(self, uids: Collection[int]) -> dict[int, Brief]:
        """Size, flags and date of each."""
        return await self.ask("fetch", imapmail.briefs, uids)

    async def content(self, uid: int, most: int) -> bytes | None:
        r"""The first `most` bytes of it, which does not make it \Seen; None: it is gone."""
        return await self.ask("fetch", imapmail.content, uid, most)

    async def append(
        self, path: str, content: bytes, *, flags: Collection[str] = (), date: datetime
    ) -> Appended | None:
        """Stores a mail, byte for byte; None: it did, and does not tell where (no UIDPLUS).

        A refusal's `code` may be TRYCREATE (no such folder), OVERQUOTA or TOOBIG. `date`: aware.
        """
        return await self.ask("append", imapappend.append, path, content, flags, date)

    async def flag(self, uids: Collection[int], *flags: str) -> None:
        """Adds the flags."""
        await self.ask("flag", imapmail.flag, uids, flags)

    async def copy(self, uids: Collection[int], path: str) -> None:
        """Copies them into another folder. A refusal's `code` may be TRYCREATE."""
        await self.ask("copy", imapmail.copy, uids, path)

    async def move(self, uids: Collection[int], path: str) -> None:
        """Moves them into another folder. `unsupported` without MOVE (RFC 6851)."""
        await self.ask("move", imapmail.move, uids, path)

    async def expunge(self, uids: Collection[int]) -> None:
        r"""Removes those of them that are \Deleted, and no others. `unsupported` without UIDPLUS (RFC 4315)."""
        await self.ask("expunge", imapmail.expunge, uids)

    async def expunge_all(self) -> None:
        r"""Removes all mail that is \Deleted, the user's own too: see `deleted` first."""
        await self.ask("expunge", imapmail.expunge_all)

    async def idle(self, seconds: float) -> bool:
        """Waits so long at most, 29 minutes in any case, for mail to come or go; whether some did.

        What did since the folder was selected or last searched counts too. `unsupported` without IDLE (RFC 2177).
        """
        return await self.ask("idle", imapidle.wait, seconds)

    async def noop(self) -> None:
        """Asks whether the other side is still there."""
        await self.ask("noop", imapmail.noop)
