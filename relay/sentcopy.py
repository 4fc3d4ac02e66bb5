"""One message's Sent copy, over one connection: found, written, looked at, and only then the others removed.

Whatever ends it midway leaves the copies that were there, and a record of where ours was about to be written; the next
try goes on from what it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from relay.copyclearing import Clearing, CopyError
from relay.copyfinder import RECENT, SEEN, Finder
from relay.core import copytext, sentcopy
from relay.core.sentcopy import Candidate, Intent, Plan, Wanted
from relay.core.sentfolders import Layout, lay_out
from relay.net.imap import Mailbox, MailboxError
from relay.store import db, sentcopies
from relay.store.sentcopies import Owed

CLAIM = 60.0  # s that a claim lasts, unless it is renewed
ROUNDS = 10  # in one try, where there are more copies than are found at once
MANY = 100
ANOTHER = "the mailbox has another mail with this Message-ID, and stores no second one beside it"


class Lost(Exception):
    """Somebody else has this copy by now."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it. `again`: look again for late ones; `files`: what was learned of the provider."""

    intent: Intent | None
    there: bool
    again: bool
    filed: bool
    files: bool | None


async def make(mailbox: Mailbox, layout: Layout, folder: str) -> str:
    """A folder for sent mail, where there is none; `folder` is what somebody set. Its path.

    It may be refused since another process has just made it: then that one is it.
    """
    paths = layout.new(folder)
    for path in paths:
        try:
            await mailbox.create(path)
            return path
        except MailboxError as fault:
            if fault.kind != "refused":
                raise
            there = lay_out(await mailbox.folders()).home(folder)
            if there is not None:
                return there
            if path == paths[-1]:
                raise
    raise AssertionError("unreachable")


class SentCopy:
    """`wanted` comes without what is known of our own copy: that is added here."""

    def __init__(
        self,
        pool: db.Pool,
        mailbox: Mailbox,
        layout: Layout,
        owed: Owed,
        wanted: Wanted,
        content: bytes,
    ) -> None:
        self._pool, self._mailbox, self._layout = pool, mailbox, layout
        self._owed, self._content = owed, content
        self._finder = Finder(mailbox, layout, owed, content)
        self._clearing = Clearing(mailbox, layout, self._finder)
        intent = self._finder.intent
        written = bool(intent and intent.uid)
        self._wanted = replace(wanted, filed=owed.filed, begun=bool(intent), written=written)

    async def place(self) -> Done:
        """Leaves one copy. Raises CopyError, MailboxError, Lost, StoreAway."""
        for _ in range(ROUNDS):
            made = await self._round()
            if len(made.remove) < MANY:
                break
        there = made.keep is not None or self._wanted.written
        filed = self._wanted.filed
        return Done(self._finder.intent, there, made.again, filed, True if filed else made.files)

    async def _round(self) -> Plan:
        found = await self._finder.look(self._wanted)
        made = sentcopy.plan(self._wanted, found)
        filed = self._wanted.filed or made.files is True
        keep = await self._write(made, found, filed) if made.append else made.keep
        if keep is not None:
            await self._clearing.only(self._wanted, keep, [one for one in made.remove if one != keep])
        self._wanted = replace(self._wanted, written=self._wanted.written or made.append, filed=filed)
        return made

    async def _write(self, made: Plan, found: Sequence[Candidate], filed: bool) -> Candidate:
        """Our copy, written and found. A Gmail may take it for the one that it has: that goes, and ours comes again."""
        trashed = await self._finder.trashed(self._wanted) if self._clearing.trashes and self._wanted.begun else ()
        newest = made.like or max(trashed, key=lambda one: one.uid, default=None)
        like = newest.addresses if newest else b""
        content = copytext.write(self._content, self._owed.bcc, like)
        known = {one.uid for one in found if one.path == self._wanted.path}
        written = await self._append(content, known)
        if self._clearing.trashes and (written.pixel or written.uid in known):
            await self._clearing.drop(self._wanted.path, known | {written.uid})
            known = set()
            written = await self._append(content, known)
        if written.pixel or written.uid in known:
            raise CopyError("the mailbox takes our copy for the one that the provider filed, and does not store it")
        self._finder.intent = Intent(written.path, self._finder.validities[written.path], written.uid, written.uid)
        await self._record(filed)
        return written

    async def _append(self, content: bytes, known: Collection[int]) -> Candidate:
        """What it is about to do is on record before it is done."""
        mailbox, path = self._mailbox, self._wanted.path
        before = await mailbox.select(path)
        self._finder.intent = Intent(path, before.uidvalidity, before.uidnext)
        await self._record(self._owed.filed)
        told = await mailbox.append(path, content, flags=(SEEN,), date=self._owed.created_at)
        after = await mailbox.select(path)
        self._finder.validities[path] = after.uidvalidity
        if after.uidvalidity != before.uidvalidity:
            raise CopyError("the folder was made anew while the copy was written")
        uid = told.uid if told and told.uidvalidity == after.uidvalidity else await self._newest(known)
        if uid < before.uidnext and uid not in known:
            raise CopyError(ANOTHER)
        return await self._seen(uid)

    async def _seen(self, uid: int) -> Candidate:
        """What was written, as it is there: servers may rewrite it, and store less than all of it."""
        header = (await self._finder.named([uid])).get(uid, b"")
        brief = (await self._mailbox.briefs([uid])).get(uid)
        if not header or brief is None or self._finder.is_cut(brief.size):
            raise CopyError("the copy that was written is not in its folder as it was written")
        if self._mailbox.gmail and not self._finder.is_same(brief.date, header):
            raise CopyError(ANOTHER)
        return Candidate(
            self._wanted.path,
            uid,
            ours=True,
            pixel=self._mailbox.gmail and self._owed.tracked and bool(await self._finder.pixel(uid, brief.size)),
            bcc=copytext.names_all(header, self._owed.bcc),
            seen=True,
            addresses=copytext.addresses(header),
        )

    async def _newest(self, known: Collection[int]) -> int:
        """The UID of what was just written, where the server does not tell it. The folder was selected anew."""
        assert self._finder.intent is not None
        uids = {*await self._mailbox.since(self._finder.intent.uidnext, RECENT)} - {*known}
        found = await self._finder.named(uids)
        if not found:
            raise CopyError("the copy that was written cannot be found")
        return max(found)

    async def _record(self, filed: bool) -> None:
        place = sentcopy.dump(self._finder.intent)
        async with db.connection(self._pool) as conn:
            if not place or not await sentcopies.record(conn, self._owed, place, filed=filed, seconds=CLAIM):
                raise Lost
