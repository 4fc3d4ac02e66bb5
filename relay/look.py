"""One look at one mailbox: what is new in its folders, which of it may be reports, and what they tell, recorded.

Of other people's mail a few fields of the header are fetched, and of what may be a report at most 1 MiB. How far it is
is stored only after what was found is committed: a crash repeats, and what is met again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from relay import bounces, legible, metrics
from relay.core import bounce, complaint, report, watching
from relay.core.bounce import Reported
from relay.core.errors import StoreAway
from relay.core.place import Place, spell
from relay.core.report import Kind
from relay.core.watching import STEP, Folders, Seen
from relay.legible import LONGEST, Legible
from relay.net.imap import Brief, Mailbox, MailboxError, Selected, Status
from relay.store import db, mailboxes
from relay.store.bounces import Early
from relay.store.mailboxes import Due

T = TypeVar("T")

EARLY = 10.0  # s that a report waits for the record of what it is about
AGAIN = 0.5  # s between two looks for it
READERS = 2  # threads that read reports

log = logging.getLogger("postferry.watch")


class Lost(Exception):
    """The mailbox is not ours any more: its settings were changed, or its account is gone."""


class Reader:
    """Reads mail apart from the event loop, a few at a time: one that takes long keeps others waiting, and no more."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="report")

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Look:
    """A claimed mailbox that is open. `due` and `folders` go on as it does."""

    pool: db.Pool
    reader: Reader
    legible: Legible
    due: Due
    folders: Folders
    listed: bool = False  # its folders were asked for
    mails: int = 0  # that were read

    @property
    def mailbox(self) -> Mailbox:
        return self.legible.mailbox

    async def whole(self) -> bool:
        """Looks at every folder, for a while. True: there is more. Raises MailboxError, StoreAway and Lost."""
        self.legible.begin()
        self.mails = 0
        if not (self.due.listed or self.listed):
            await self._list()
        return any([await self._tried(path) for path in self.folders])

    async def mark(self) -> None:
        """Stores how far it is, and that all is well so far. Raises Lost and StoreAway."""
        async with db.connection(self.pool) as conn:
            due = await mailboxes.mark(conn, self.due, self.told(), ago=self.ago, listed=self.listed)
        if due is None:
            raise Lost
        self.due = due

    def told(self) -> Mapping[str, object]:
        return watching.told(self.folders)

    @property
    def ago(self) -> float:
        """Seconds since it began."""
        return self.legible.ago

    def knows(self, selected: Selected) -> bool:
        """There is nothing in the folder that was not looked at."""
        seen = self.folders.get(selected.path)
        return not watching.news(seen, selected.uidvalidity, selected.uidnext).left

    async def _list(self) -> None:
        wanted = watching.paths(await self.mailbox.folders())
        known = {path: self.folders.get(path) for path in wanted}
        self.folders.clear()
        self.folders.update(known)
        self.listed = True

    async def _tried(self, path: str) -> bool:
        """A folder that is gone, or not for us, is one less; within a day it is asked which there are."""
        try:
            return await self._folder(path)
        except MailboxError as fault:
            if fault.kind != "refused" or path == "INBOX":
                raise
        return False

    async def _folder(self, path: str) -> bool:
        """Looks at a folder, at first by what is cheap (STATUS). True: there is more."""
        before = self.folders[path]
        if (status := await self._status(path)) is not None:
            seen = watching.news(before, status.uidvalidity, status.uidnext)
            if not seen.left:
                self.folders[path] = seen
                return False
        selected = await self.legible.select(path)
        seen = watching.news(before, selected.uidvalidity, selected.uidnext)
        for step in range(watching.STEPS):
            if not seen.left or (step and self.ago >= LONGEST):
                break
            if step:
                await self.mark()
            seen = await self._step(path, seen)
        self.folders[path] = seen
        return bool(seen.left)

    async def _status(self, path: str) -> Status | None:
        """None: there are servers that do not tell UIDNEXT so, and have to be asked in another way."""
        try:
            status = await self.mailbox.status(path)
        except MailboxError as fault:
            if fault.kind != "unsupported":
                raise
            return None
        return status if status.uidnext else None

    async def _step(self, path: str, seen: Seen) -> Seen:
        """The newest of what is left, the newest mail first; stored or not, `folders` tells how far it is."""
        now = seen
        try:
            uids, start = await self._newest(seen)
            for uid, brief in await self._candidates(uids, seen):
                if self.mails and self.ago >= LONGEST:
                    start = uid + 1
                    break
                await self._mail(Place(path, seen.uidvalidity, uid), brief.date, stuck=now.stuck)
                if not seen.back:
                    self.folders[path] = now = seen.after(uid)
        except MailboxError as fault:
            if fault.step == "fetch":
                self.folders[path] = now.stumbled()
            raise
        self.folders[path] = after = seen.after(start)
        return after

    async def _newest(self, seen: Seen) -> tuple[list[int], int]:
        """UIDs of the newest mail that is left, and the UID from which on they are all that there are."""
        low, high = seen.left[-1]
        if high == seen.uidnext:
            uids = await self.mailbox.since(low, STEP)
            return uids, low if seen.back else _down_to(low, uids)
        width = STEP
        while True:
            start = max(low, high - width)
            uids = await self.mailbox.since(start, STEP, high)
            if uids or start == low:
                return uids, _down_to(start, uids)
            width *= watching.WIDER

    async def _candidates(self, uids: list[int], seen: Seen) -> list[tuple[int, Brief]]:
        """What may be reports, the newest first; of a folder new to us the young alone. What is gone is left out."""
        headers = await self.legible.fetched(uids, _headers, stuck=seen.stuck)
        found = await self.reader.run(lambda: [uid for uid, one in headers.items() if watching.candidate(one)])
        briefs = await self.legible.fetched(found, Mailbox.briefs, stuck=seen.stuck)
        since = datetime.now(UTC) - watching.LOOK_BACK
        return sorted(
            ((uid, brief) for uid, brief in briefs.items() if not seen.back or brief.date >= since),
            reverse=True,
            key=_uid,
        )

    async def _mail(self, place: Place, date: datetime, *, stuck: bool) -> None:
        """One that may be a report. What nobody can make anything of is told of, and keeps nothing else waiting."""
        self.mails += 1
        metrics.REPORT_CANDIDATES.inc()
        content = (await self.legible.fetched([place.uid], legible.content, stuck=stuck)).get(place.uid)
        if content is None:
            return
        try:
            kind, reported = await self.reader.run(lambda: _read(content, spell(place), date))
            if reported is not None:
                await self._record(reported)
        except (StoreAway, Lost):
            raise
        except Exception as error:
            kind, told = Kind.NONE, (place.uid, place.path, self.due.account, error)
            log.error(
                "mail %d in %s of %s cannot be read: %s", *told, extra={"account": self.due.account}, exc_info=error
            )
        metrics.REPORTS.labels(kind.value).inc()

    async def _record(self, reported: Reported) -> None:
        """A server may report a mail before the worker has recorded that it took it: that is waited for a while."""
        until = time.monotonic() + EARLY
        while True:
            try:
                async with db.connection(self.pool) as conn:
                    await bounces.record(conn, self.due.account, reported, patient=time.monotonic() < until)
                return
            except LookupError:
                raise Lost from None
            except Early:
                await asyncio.sleep(AGAIN)


def _read(content: bytes, place: str, date: datetime) -> tuple[Kind, Reported | None]:
    """What it is, and, of a bounce or complaint, what is to be recorded."""
    found = report.read(content)
    if found.kind not in (Kind.BOUNCE, Kind.COMPLAINT):
        return found.kind, None
    if not complaint.meant(found.feedback):
        return Kind.NONE, None
    at = min(date, datetime.now(UTC))  # servers, and whoever moves mail about, may date it as they like
    return found.kind, bounce.reported(found, source="imap", key=watching.key(content, found), place=place, at=at)


async def _headers(mailbox: Mailbox, uids: list[int]) -> dict[int, bytes]:
    return await mailbox.headers(uids, watching.FIELDS)


def _down_to(start: int, uids: list[int]) -> int:
    """Of as many as were asked for, there may be more before the first."""
    return uids[0] if len(uids) >= STEP else start


def _uid(one: tuple[int, Brief]) -> int:
    return one[0]
