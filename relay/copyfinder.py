"""Which copies of a message a mailbox has: looked for by its Message-IDs, looked at one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from relay.core import copytext, provider, sentcopy
from relay.core.sentcopy import Candidate, Intent, Wanted
from relay.core.sentfolders import Layout
from relay.core.tenant import Copy
from relay.net.imap import Mailbox
from relay.store.sentcopies import Owed

SEEN, DELETED = "\\Seen", "\\Deleted"
RECENT = 200  # mails above the place where ours was about to be written that are looked at
JUDGED = 20  # copies, the newest, that are looked into for a pixel: all others are the provider's
FIRST = 128 * 1024  # bytes of a mail in which a pixel nearly always is
LARGE = 256 * 1024  # bytes that are looked through beside the event loop
SHRINKS = 6  # times: quoted-printable of a foreign alphabet becomes another encoding on servers that rewrite mail
CLOCKS = timedelta(minutes=5)  # that other people's clocks may be behind ours


class Finder:
    """Of one message. `intent`: where ours was about to be written, or is; `validities`: of the folders seen."""

    def __init__(self, mailbox: Mailbox, layout: Layout, owed: Owed, content: bytes) -> None:
        self._mailbox, self._layout, self._owed = mailbox, layout, owed
        self.intent: Intent | None = sentcopy.load(owed.place)
        self.validities: dict[str, int] = {}
        self._size = len(content)
        self._most = 2 * self._size + LARGE  # a pixel stands no farther behind than that, however it was rewritten
        self._own = copytext.pixels(content) if owed.tracked else frozenset()  # quoted ones: no business of ours
        self._subject = copytext.subject(content)
        self._ids = provider.message_ids(owed.message_id, owed.replies)
        self._received: bool | None = None  # the message came in as well: INBOX has it

    async def look(self, wanted: Wanted) -> list[Candidate]:
        """In the folder where it belongs; where the provider files; and among all mail, what was never received."""
        here = wanted.path
        if wanted.policy is Copy.APPEND:
            return [one for one, _ in await self._candidates(here)] if self.intent else []
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
        return found if found and not await self.came_in() else []

    async def came_in(self) -> bool:
        if self._received is None:
            await self._mailbox.select("INBOX", readonly=True)
            self._received = bool(await self._named())
        return self._received

    async def _candidates(self, path: str) -> list[tuple[Candidate, bytes]]:
        """The copies in a folder, with their headers. Some servers find new mail late: there, where ours was written
        counts."""
        selected = await self._mailbox.select(path)
        validity = self.validities[path] = selected.uidvalidity
        uids = await self._named()
        intent = self.intent
        if intent is not None and (intent.path, intent.uidvalidity) == (path, validity):
            uids |= {intent.uid} if intent.uid else set(await self._mailbox.since(intent.uidnext, RECENT))
        headers = await self.named(uids)
        return [(one, headers[one.uid]) for one in await self._judged(path, headers)]

    async def _named(self) -> set[int]:
        return {uid for id in self._ids for uid in await self._mailbox.find(id)}

    async def named(self, uids: Collection[int]) -> dict[int, bytes]:
        """Of these mails those that have a Message-ID of the message, with their headers."""
        headers = await self._mailbox.headers(uids, copytext.LOOKED_AT) if uids else {}
        return {uid: one for uid, one in headers.items() if any(copytext.has_id(one, id) for id in self._ids)}

    async def _judged(self, path: str, headers: Mapping[int, bytes]) -> list[Candidate]:
        briefs = await self._mailbox.briefs(headers) if headers else {}
        newest = sorted(briefs)[-JUDGED:]
        found = []
        for uid, brief in sorted(briefs.items()):
            if not self._is_copy(path, uid, brief.date, headers[uid]):
                continue
            flags = {flag.lower() for flag in brief.flags}
            pixel = self._owed.tracked and (uid not in newest or await self.pixel(uid, brief.size))
            if pixel is None:
                continue
            one = Candidate(
                path,
                uid,
                pixel=pixel,
                bcc=copytext.names_all(headers[uid], self._owed.bcc),
                seen=SEEN.lower() in flags,
                deleted=DELETED.lower() in flags,
                cut=self.is_cut(brief.size),
                addresses=copytext.addresses(headers[uid]),
            )
            found.append(replace(one, ours=self._is_ours(one)))
        return found

    def _is_copy(self, path: str, uid: int, date: datetime, header: bytes) -> bool:
        """Where we wrote ours; elsewhere what was filed. What came to INBOX was received.

        Gmail may show an older mail under the name of one that was just written there.
        """
        intent = self.intent
        if intent is not None and not self._mailbox.gmail and intent.covers(path, self.validities[path], uid):
            return intent.uid is not None or self.is_same(None, header)
        return path.upper() != "INBOX" and self.is_same(date, header)

    def is_same(self, date: datetime | None, header: bytes) -> bool:
        """Whether a mail with its Message-ID may be this message.

        Whoever submits one may give it the id of another mail, which lay there before, or has another subject: that
        one is none of ours to remove.
        """
        young = date is None or date >= self._owed.created_at - CLOCKS
        return young and copytext.subject(header) == self._subject

    def is_cut(self, size: int) -> bool:
        """A mail of so many bytes cannot be all of the message."""
        return SHRINKS * size < self._size

    def _is_ours(self, one: Candidate) -> bool:
        intent = self.intent
        if intent is None or one.pixel or not intent.covers(one.path, self.validities[one.path], one.uid):
            return False
        return intent.uid is not None or one.bcc

    async def pixel(self, uid: int, size: int) -> bool | None:
        """One of ours that is not in the message as it was given to us. None: the mail is gone."""
        for most in (FIRST, self._most):
            raw = await self._mailbox.content(uid, most)
            if raw is None:
                return None
            if await _pixels(raw) - self._own:
                return True
            if size <= most:
                break
        return False

    async def trashed(self, wanted: Wanted) -> list[Candidate]:
        """What we brought there: the provider's, never what was received, nor a clean one."""
        told = await self._candidates(self._layout.trash or "")
        return [
            one
            for one, header in told
            if not sentcopy.clean(wanted, replace(one, ours=False)) and not copytext.delivered(header)
        ]


async def _pixels(raw: bytes) -> frozenset[bytes]:
    return copytext.pixels(raw) if len(raw) < LARGE else await asyncio.to_thread(copytext.pixels, raw)
