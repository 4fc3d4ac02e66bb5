"""One message's Sent copy, over one connection: found, written, looked at, and only then the others removed.

Whatever ends it midway leaves the copies that were there, and a record of where ours was about to be written; the next
try goes on from what it finds. No mail is removed that does not have this message's Message-ID at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.core import copytext, sentcopy
from relay.core.model import Copy
from relay.core.sentcopy import Candidate, Intent, Plan, Wanted
from relay.core.sentfolders import Layout
from relay.net.imap import Mailbox, MailboxError
from relay.store import db, sentcopies
from relay.store.sentcopies import Owed

SEEN, DELETED = "\\Seen", "\\Deleted"
RECENT = 200  # mails above the place where ours was about to be written that are looked at
JUDGED = 20  # copies, the newest, that are looked into for a pixel: all others are the provider's
FIRST = 128 * 1024  # bytes of a mail in which a pixel nearly always is
LARGE = 256 * 1024  # bytes that are looked through beside the event loop
ROUNDS = 10  # in one try, where there are more copies than are found at once
MANY = 100


class Lost(Exception):
    """Somebody else has this copy by now."""


class CopyError(Exception):
    """It cannot be done now; the text says why."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it. `again`: look again for late ones; `files`: what was learned of the provider."""

    intent: Intent | None
    there: bool
    again: bool
    filed: bool
    files: bool | None


async def make(mailbox: Mailbox, layout: Layout, folder: str) -> str:
    """A folder for sent mail, where there is none; `folder` is what somebody set. Its path."""
    *tries, last = layout.new(folder)
    for path in tries:
        try:
            await mailbox.create(path)
        except MailboxError as fault:
            if fault.kind != "refused":
                raise
        else:
            return path
    await mailbox.create(last)
    return last


class SentCopy:
    """`wanted`: but for what is known of our own copy. `claim`: seconds of the claim, from each record on."""

    def __init__(
        self,
        pool: db.Pool,
        mailbox: Mailbox,
        layout: Layout,
        owed: Owed,
        wanted: Wanted,
        content: bytes,
        *,
        claim: float,
    ) -> None:
        self._pool, self._mailbox, self._layout = pool, mailbox, layout
        self._owed, self._content, self._claim = owed, content, claim
        self._intent = sentcopy.load(owed.place)
        written = bool(self._intent and self._intent.uid)
        self._wanted = replace(wanted, filed=owed.filed, begun=bool(self._intent), written=written)
        self._filed = owed.filed
        self._own = copytext.pixels(content) if owed.tracked else frozenset()  # quoted ones: no business of ours
        self._validities: dict[str, int] = {}
        self._received: bool | None = None  # the message came in as well: INBOX has it

    async def place(self) -> Done:
        """Leaves one. Raises CopyError, MailboxError, Lost, StoreAway."""
        for _ in range(ROUNDS):
            made = await self._round()
            if len(made.remove) < MANY:
                break
        there = made.keep is not None or self._wanted.written
        return Done(self._intent, there, made.again, self._filed, True if self._filed else made.files)

    async def _round(self) -> Plan:
        found = await self._look()
        made = sentcopy.plan(self._wanted, found)
        self._filed |= made.files is True
        keep = await self._write(made, found) if made.append else made.keep
        if keep is not None:
            await self._only(keep, [one for one in made.remove if one != keep])
        if made.append:
            self._wanted = replace(self._wanted, written=True)
        self._wanted = replace(self._wanted, filed=self._filed)
        return made

    # -- What is there --------------------------------------------------------------------------------------------

    async def _look(self) -> list[Candidate]:
        """In the folder where it belongs; where the provider files; and among all mail, what was never received."""
        here = self._wanted.path
        if self._wanted.policy is Copy.APPEND:
            return [one for one, _ in await self._candidates(here)] if self._intent else []
        found = [one for one, _ in await self._candidates(here)]
        if self._layout.sent not in (None, here):
            found += [one for one, _ in await self._candidates(self._layout.sent or "")]
        if self._owed.tracked and self._layout.all not in (None, here, self._layout.sent):
            found += await self._strays(self._layout.all or "")
        return found

    async def _strays(self, path: str) -> list[Candidate]:
        """Only with a pixel: ours is among all mail too, and a server that changed it would make it look like theirs.

        What the sender received, being a recipient himself, is his.
        """
        told = await self._candidates(path)
        found = [one for one, header in told if one.pixel and not copytext.delivered(header)]
        return found if found and not await self._came_in() else []

    async def _came_in(self) -> bool:
        if self._received is None:
            await self._mailbox.select("INBOX", readonly=True)
            self._received = bool(await self._mailbox.find(self._owed.message_id))
        return self._received

    async def _candidates(self, path: str) -> list[tuple[Candidate, bytes]]:
        """The copies in a folder, with their headers. Some servers find new mail late: there, where ours was written
        counts."""
        selected = await self._mailbox.select(path)
        validity = self._validities[path] = selected.uidvalidity
        uids = set(await self._mailbox.find(self._owed.message_id))
        intent = self._intent
        if intent is not None and (intent.path, intent.uidvalidity) == (path, validity):
            uids |= {intent.uid} if intent.uid else set(await self._mailbox.since(intent.uidnext, RECENT))
        headers = await self._named(uids)
        return [(one, headers[one.uid]) for one in await self._judged(path, headers)]

    async def _named(self, uids: Collection[int]) -> dict[int, bytes]:
        """Of these mails those that have the message's Message-ID, with their headers."""
        headers = await self._mailbox.headers(uids, copytext.LOOKED_AT) if uids else {}
        return {uid: one for uid, one in headers.items() if copytext.has_id(one, self._owed.message_id)}

    async def _judged(self, path: str, headers: Mapping[int, bytes]) -> list[Candidate]:
        briefs = await self._mailbox.briefs(headers) if headers else {}
        newest = sorted(briefs)[-JUDGED:]
        found = []
        for uid, brief in sorted(briefs.items()):
            flags = {flag.lower() for flag in brief.flags}
            pixel = self._owed.tracked and (uid not in newest or await self._has_pixel(uid, brief.size))
            one = Candidate(
                path,
                uid,
                pixel=pixel,
                bcc=copytext.names_all(headers[uid], self._owed.bcc),
                seen=SEEN.lower() in flags,
                deleted=DELETED.lower() in flags,
                addresses=copytext.addresses(headers[uid]),
            )
            found.append(replace(one, ours=self._is_ours(one)))
        return found

    def _is_ours(self, one: Candidate) -> bool:
        intent = self._intent
        if intent is None or one.pixel or not intent.covers(one.path, self._validities[one.path], one.uid):
            return False
        return intent.uid is not None or one.bcc

    async def _has_pixel(self, uid: int, size: int) -> bool:
        """One of ours that is not in the message as it was given to us."""
        if await self._pixels(await self._mailbox.content(uid, FIRST)) - self._own:
            return True
        most = 2 * len(self._content) + LARGE  # a pixel stands no farther behind than that, however it was rewritten
        return size > FIRST and bool(await self._pixels(await self._mailbox.content(uid, most)) - self._own)

    async def _pixels(self, raw: bytes | None) -> frozenset[bytes]:
        if raw is None or len(raw) < LARGE:
            return copytext.pixels(raw or b"")
        return await asyncio.to_thread(copytext.pixels, raw)

    # -- Ours is written ------------------------------------------------------------------------------------------

    async def _write(self, made: Plan, found: Sequence[Candidate]) -> Candidate:
        """And found to be there. A Gmail that takes it for the one it has is given it again without that one."""
        like = made.like.addresses if made.like else await self._from_trash()
        content = copytext.write(self._content, self._owed.bcc, like)
        known = {one.uid for one in found if one.path == self._wanted.path}
        written = await self._append(content, known)
        if self._trashes and (written.pixel or written.uid in known):
            await self._drop(self._wanted.path, known | {written.uid})
            known = set()
            written = await self._append(content, known)
        if written.pixel or written.uid in known:
            raise CopyError("the mailbox takes our copy for the one that the provider filed, and does not store it")
        self._intent = Intent(written.path, self._validities[written.path], written.uid, written.uid)
        await self._record(self._filed)
        return written

    async def _append(self, content: bytes, known: Collection[int]) -> Candidate:
        """What it is about to do is on record before it is done."""
        mailbox, path = self._mailbox, self._wanted.path
        before = await mailbox.select(path)
        self._intent = Intent(path, before.uidvalidity, before.uidnext)
        await self._record(self._owed.filed)
        told = await mailbox.append(path, content, flags=(SEEN,), date=self._owed.created_at)
        after = await mailbox.select(path)
        self._validities[path] = after.uidvalidity
        if after.uidvalidity != before.uidvalidity:
            raise CopyError("the folder was made anew while the copy was written")
        uid = told.uid if told and told.uidvalidity == after.uidvalidity else await self._newest(known)
        headers = await self._named([uid])
        brief = (await mailbox.briefs([uid])).get(uid)
        if uid not in headers or brief is None or 2 * brief.size < len(content):
            raise CopyError("the copy that was written is not in its folder as it was written")
        pixel = mailbox.gmail and self._owed.tracked and await self._has_pixel(uid, brief.size)
        bcc = copytext.names_all(headers[uid], self._owed.bcc)
        return Candidate(
            path, uid, ours=True, pixel=pixel, bcc=bcc, seen=True, addresses=copytext.addresses(headers[uid])
        )

    async def _newest(self, known: Collection[int]) -> int:
        """Where the server does not tell. It was selected anew."""
        assert self._intent is not None
        uids = {*await self._mailbox.since(self._intent.uidnext, RECENT)} - {*known}
        found = await self._named(uids)
        if not found:
            raise CopyError("the copy that was written cannot be found")
        return max(found)

    async def _record(self, filed: bool) -> None:
        place = sentcopy.dump(self._intent)
        async with db.connection(self._pool) as conn:
            if not place or not await sentcopies.record(conn, self._owed, place, filed=filed, seconds=self._claim):
                raise Lost

    # -- The others go --------------------------------------------------------------------------------------------

    async def _only(self, keep: Candidate, others: Sequence[Candidate]) -> None:
        """`keep` was seen to be there. A crash in between is mended by the next try: Trash may hold what it began."""
        if not keep.seen:
            await self._mailbox.select(keep.path)
            await self._mailbox.flag([keep.uid], SEEN)
        for path in dict.fromkeys(one.path for one in others):
            await self._drop(path, {one.uid for one in others if one.path == path})
        if self._trashes and self._wanted.policy is not Copy.APPEND and (others or self._owed.place):
            await self._empty_trash()

    @property
    def _trashes(self) -> bool:
        """Gmail: only in Trash mail is deleted, elsewhere it loses a label."""
        return self._mailbox.gmail and self._layout.trash is not None

    async def _drop(self, path: str, uids: Collection[int]) -> None:
        selected = await self._mailbox.select(path)
        if selected.uidvalidity != self._validities[path]:
            raise CopyError("the folder was made anew while copies were looked for")
        there = list(await self._named(uids))
        if not there:
            return
        if self._trashes and path != self._layout.trash and not await self._in_inbox(path):
            await self._to_trash(there)
        else:
            await self._expunge(path, there)

    async def _in_inbox(self, path: str) -> bool:
        """A mail under several labels would leave the INBOX too."""
        came_in = await self._came_in()
        await self._mailbox.select(path)
        return came_in

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

    async def _from_trash(self) -> bytes:
        """How the provider wrote the addresses, where its copy is in Trash already."""
        found = await self._in_trash() if self._trashes and self._owed.place else []
        return max(found, key=lambda one: one.uid).addresses if found else b""

    async def _in_trash(self) -> list[Candidate]:
        """What we brought there: the provider's, never what was received, nor a clean one."""
        told = await self._candidates(self._layout.trash or "")
        return [
            one
            for one, header in told
            if not sentcopy.clean(self._wanted, replace(one, ours=False)) and not copytext.delivered(header)
        ]

    async def _empty_trash(self) -> None:
        uids = [one.uid for one in await self._in_trash()]
        if uids:
            await self._mailbox.flag(uids, DELETED)
            await self._mailbox.expunge(uids)
