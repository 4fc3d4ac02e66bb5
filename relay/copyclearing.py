"""The other copies of a message go, once one is there for certain: these and no other mail.

No mail is removed that does not have this message's Message-ID at that moment; nor one that was there before it, or has
another subject (`Finder.is_same`): ids are chosen by whoever submits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from relay.copyfinder import DELETED, SEEN, Finder
from relay.core.sentcopy import Candidate, Wanted
from relay.core.sentfolders import Layout
from relay.core.tenant import Copy
from relay.net.imap import Mailbox


class CopyError(Exception):
    """It cannot be done now, or never (`hopeless`); the text says why."""

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class Clearing:
    """Of one message. `trashes`: it is a Gmail, where mail is deleted in Trash, and loses a label elsewhere."""

    def __init__(self, mailbox: Mailbox, layout: Layout, finder: Finder) -> None:
        self._mailbox, self._layout, self._finder = mailbox, layout, finder
        self.trashes = mailbox.gmail and layout.trash is not None

    async def only(self, wanted: Wanted, keep: Candidate, others: Sequence[Candidate]) -> None:
        """`keep` stays. A crash in between is mended by the next try: Trash may hold what this one began."""
        if not keep.seen or others:
            await self._select(keep.path)
            if not await self._finder.named([keep.uid]):
                raise CopyError("the copy that was to stay is gone")
        if not keep.seen:
            await self._mailbox.flag([keep.uid], SEEN)
        for path in dict.fromkeys(one.path for one in others):
            await self.drop(path, {one.uid for one in others if one.path == path})
        if self.trashes and wanted.policy is not Copy.APPEND and (others or wanted.begun):
            await self._empty_trash(wanted)

    async def drop(self, path: str, uids: Collection[int]) -> None:
        """Away from this folder; on a Gmail to Trash, unless it is in INBOX too, which it would leave as well."""
        received = self.trashes and await self._finder.came_in()
        await self._select(path)
        there = list(await self._finder.named(uids))
        if there and self.trashes and path != self._layout.trash and not received:
            await self._to_trash(there)
        elif there:
            await self._expunge(path, there)

    async def _select(self, path: str) -> None:
        selected = await self._mailbox.select(path)
        if selected.uidvalidity != self._finder.validities[path]:
            raise CopyError("the folder was made anew while copies were looked for")

    async def _to_trash(self, uids: Collection[int]) -> None:
        assert self._layout.trash is not None
        if "MOVE" in self._mailbox.capabilities:
            await self._mailbox.move(uids, self._layout.trash)
        else:
            await self._mailbox.copy(uids, self._layout.trash)

    async def _expunge(self, path: str, uids: Collection[int]) -> None:
        r"""These and no others: what the mailbox's owner has \Deleted is his. Else they stay, marked as \Deleted."""
        mailbox = self._mailbox
        words = mailbox.capabilities
        if "UIDPLUS" not in words and "MOVE" in words and self._layout.trash not in (None, path):
            await self._to_trash(uids)
            return
        await mailbox.flag(uids, DELETED)
        if "UIDPLUS" in words:
            await mailbox.expunge(uids)
        elif set(await mailbox.deleted()) <= set(uids):
            await mailbox.expunge_all()

    async def _empty_trash(self, wanted: Wanted) -> None:
        uids = [one.uid for one in await self._finder.trashed(wanted)]
        if uids:
            await self._mailbox.flag(uids, DELETED)
            await self._mailbox.expunge(uids)
