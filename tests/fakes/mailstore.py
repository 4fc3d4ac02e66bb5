"""What a mailbox holds, for tests/fakes/mailbox.py: folders and mail as providers keep them, odd ways included."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imapclient import imap_utf7  # type: ignore[import-untyped]

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DELETED = "\\Deleted"
Layout = Sequence[tuple[str, str]]
"""(path, flags of LIST)."""

PLAIN: Layout = (
    ("INBOX", ""),
    ("Drafts", "\\Drafts"),
    ("Junk", "\\Junk"),
    ("Sent", "\\Sent"),
    ("Trash", "\\Trash"),
)
UNFLAGGED: Layout = tuple((path, "") for path, _ in PLAIN)
WRONG: Layout = (("INBOX", "\\Sent"), ("Drafts", "\\Sent \\Trash"), ("Sent", "\\Junk"), ("Trash", "\\Noselect \\Trash"))
FOREIGN: Layout = (
    ("INBOX", ""),
    ("Отправленные", "\\Sent"),
    ("Gelöschte & andere", "\\Trash"),
    ('a "quoted\\" name', ""),
    ("日本語/送信済み", ""),
)
EXCHANGE: Layout = tuple((path, "") for path in ("INBOX", "Drafts", "Junk Email", "Sent Items", "Deleted Items"))


def gmail_layout(root: str = "[Gmail]", words: str = "All Mail,Drafts,Sent Mail,Spam,Trash") -> Layout:
    """Gmail's, in any language: `gmail_layout(words="Alle Nachrichten,Entwürfe,Gesendet,Spam,Papierkorb")`."""
    uses = ("\\All", "\\Drafts", "\\Sent", "\\Junk", "\\Trash")
    paths = [f"{root}/{word}" for word in words.split(",")]
    return (("INBOX", ""), (root, "\\Noselect \\HasChildren"), *zip(paths, uses, strict=True))


GMAIL = gmail_layout()
GMAIL_GERMAN = gmail_layout("[Google Mail]", "Alle Nachrichten,Entwürfe,Gesendet,Spam,Papierkorb")


def prefixed(layout: Layout = UNFLAGGED) -> Layout:
    """All below INBOX, as Courier and old Dovecots have it."""
    return [(path if path == "INBOX" else f"INBOX.{path}", flags) for path, flags in layout]


@dataclass(eq=False, slots=True)
class Mail:
    r"""One mail, of however many folders. \Deleted is no flag of it, but of its place in a folder."""

    content: bytes
    flags: set[str] = field(default_factory=set)
    date: datetime = DATE
    findable: int = 0  # the command from which SEARCH HEADER knows it
    broken: bool = False  # the server cannot read it: FETCH tells of the others, and ends with NO
    deadly: str = "none"  # the server hangs up at a FETCH of what begins so: BODY.PEEK[HEADER, BODY.PEEK[]

    @property
    def header(self) -> bytes:
        head, end, _ = self.content.partition(b"\r\n\r\n")
        return head + end

    def field(self, name: str) -> str:
        """Unfolded; "" where there is none."""
        found = re.search(rb"(?im)^%s[ \t]*:((?:.*\r?\n?)(?:[ \t].*\r?\n?)*)" % name.encode(), self.header)
        return " ".join(found[1].decode("utf-8", "replace").split()) if found else ""


class Folder:
    """Mail by UID. `crowd`: so many are there from the start, made when they are looked at."""

    def __init__(self, path: str, attributes: str, uidvalidity: int, crowd: int = 0) -> None:
        self.path, self.attributes, self.uidvalidity = path, attributes, uidvalidity
        self.uidnext = crowd + 1
        self.uids = list(range(1, crowd + 1))
        self.deleted: set[int] = set()
        self._mails: dict[int, Mail] = {}

    @property
    def name(self) -> str:
        return str(imap_utf7.encode(self.path), "ascii")

    def mail(self, uid: int) -> Mail:
        if uid not in self._mails:
            self._mails[uid] = Mail(b"Message-ID: <%d@crowd>\r\nSubject: one of many\r\n\r\nHi\r\n" % uid)
        return self._mails[uid]

    def flags(self, uid: int) -> set[str]:
        return self.mail(uid).flags | ({DELETED} if uid in self.deleted else set())

    def put(self, mail: Mail) -> int:
        uid, self.uidnext = self.uidnext, self.uidnext + 1
        insort(self.uids, uid)
        self._mails[uid] = mail
        return uid

    def holds(self, uid: int) -> bool:
        at = bisect_left(self.uids, uid)
        return at < len(self.uids) and self.uids[at] == uid

    def find(self, mail: Mail) -> int | None:
        return next((uid for uid, one in self._mails.items() if one is mail), None)

    def remove(self, uid: int) -> None:
        if self.holds(uid):
            del self.uids[bisect_left(self.uids, uid)]
            self._mails.pop(uid, None)
            self.deleted.discard(uid)

    def renumber(self) -> None:
        """Another UIDVALIDITY, and the UIDs of today mean other mail tomorrow."""
        mails = [self.mail(uid) for uid in reversed(self.uids)]
        self.uidvalidity += 1
        self.uids, self._mails, self.deleted, self.uidnext = [], {}, set(), 1
        for mail in mails:
            self.put(mail)


class Store:
    """An ordinary mailbox. A command counts as one `tick`."""

    def __init__(
        self, layout: Layout, crowd: int = 0, lag: int = 0, rewrite: bool = False, keeps: int | None = None
    ) -> None:
        self.lag, self.rewrite, self.keeps = lag, rewrite, keeps
        self.folders = {
            path: Folder(path, flags, 1000 + at, crowd if path == "INBOX" else 0)
            for at, (path, flags) in enumerate(layout)
        }
        self.ticks = 0
        self._late: list[tuple[int, Callable[[], object]]] = []

    def tick(self) -> None:
        self.ticks += 1
        due = [work for at, work in self._late if at <= self.ticks]
        self._late = [(at, work) for at, work in self._late if at > self.ticks]
        for work in due:
            work()

    def later(self, ticks: int, work: Callable[[], object]) -> None:
        self._late.append((self.ticks + ticks, work))

    def put(self, folder: Folder, mail: Mail) -> int:
        """As the provider delivers."""
        mail.findable = self.ticks + self.lag
        return folder.put(mail)

    def append(self, folder: Folder, mail: Mail) -> int:
        """As a client stores."""
        if self.rewrite:
            mail.content = rewritten(mail.content)
        mail.content = mail.content[: self.keeps]
        return self.put(folder, mail)

    def copy(self, folder: Folder, uids: Iterable[int], target: Folder) -> list[int]:
        copies = (Mail(one.content, set(one.flags), one.date) for one in map(folder.mail, uids))
        return [self.put(target, mail) for mail in copies]

    def move(self, folder: Folder, uids: Collection[int], target: Folder) -> list[int]:
        found = self.copy(folder, uids, target)
        for uid in uids:
            folder.remove(uid)
        return found

    def mark(self, folder: Folder, uid: int, add: set[str], take: set[str]) -> None:
        mail = folder.mail(uid)
        mail.flags = (mail.flags | add) - take - {DELETED}
        if DELETED in add:
            folder.deleted.add(uid)
        if DELETED in take:
            folder.deleted.discard(uid)

    def expunge(self, folder: Folder, uids: Iterable[int]) -> None:
        for uid in folder.deleted.intersection(uids):
            folder.remove(uid)


class Labels(Store):
    r"""Gmail's: a mail is one object under several labels. Only in Trash and Spam it is deleted for good.

    `dedupe`: an APPEND of a mail whose Message-ID is there gives the one that is there. `hasty`: what is \Deleted is
    expunged at once, as it is by Gmail unless its user wants it otherwise.
    """

    def __init__(self, layout: Layout, *, dedupe: bool = False, hasty: bool = True, **more: int) -> None:
        super().__init__(layout, **more)
        self.dedupe, self.hasty = dedupe, hasty
        self.all, self.trash, self.spam = (self._flagged(flag) for flag in ("\\All", "\\Trash", "\\Junk"))

    def _flagged(self, flag: str) -> Folder:
        return next(folder for folder in self.folders.values() if flag in folder.attributes.split())

    def _final(self, folder: Folder) -> bool:
        return folder in (self.trash, self.spam)

    def put(self, folder: Folder, mail: Mail) -> int:
        mail.findable = self.ticks + self.lag
        return self._label(folder, mail)

    def _label(self, folder: Folder, mail: Mail) -> int:
        if self._final(folder):
            for other in self.folders.values():
                if other is not folder and (there := other.find(mail)) is not None:
                    other.remove(there)
        else:
            for final in (self.trash, self.spam):
                if (there := final.find(mail)) is not None:
                    final.remove(there)
            if self.all.find(mail) is None and folder is not self.all:
                self.all.put(mail)
        there = folder.find(mail)
        return folder.put(mail) if there is None else there

    def append(self, folder: Folder, mail: Mail) -> int:
        id = mail.field("Message-ID")
        for uid in self.all.uids if self.dedupe and id else ():
            if self.all.mail(uid).field("Message-ID") == id:
                return self._label(folder, self.all.mail(uid))
        return super().append(folder, mail)

    def copy(self, folder: Folder, uids: Iterable[int], target: Folder) -> list[int]:
        return [self._label(target, mail) for mail in [folder.mail(uid) for uid in uids]]

    def move(self, folder: Folder, uids: Collection[int], target: Folder) -> list[int]:
        found = self.copy(folder, uids, target)
        if folder is not self.all and folder is not target:
            for uid in uids:
                folder.remove(uid)
        return found

    def mark(self, folder: Folder, uid: int, add: set[str], take: set[str]) -> None:
        super().mark(folder, uid, add, take)
        if self.hasty:
            self.expunge(folder, [uid])

    def expunge(self, folder: Folder, uids: Iterable[int]) -> None:
        """Takes the label away; nothing at all in All Mail."""
        if folder is self.all:
            folder.deleted.difference_update(list(uids))
        else:
            super().expunge(folder, uids)


def rewritten(content: bytes) -> bytes:
    """As Exchange stores what it is given: another order of the header, long fields folded, a line of its own."""
    head, end, rest = content.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", head)
    folded = [re.sub(rb"(?i)^(message-id): *(?=\S)", rb"\1:\r\n ", one) for one in sorted(fields)]
    return b"\r\n".join([b"Received: from x by y with mapi; Fri, 2 Jan 2026 03:04:05 +0000", *folded]) + end + rest
