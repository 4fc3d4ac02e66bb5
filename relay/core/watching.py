"""How a mailbox is watched: when it is looked at next, in which folders, what is new there, and what may be a report.

A folder is known by its UIDVALIDITY and UIDNEXT (RFC 3501 2.3.1.1): while the first stands, mail with a UID from the
second on is new. Nothing is missed: what was not looked at yet stays in `Seen.left`, whatever else comes meanwhile.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from relay.core import backoff, letter, phrases, words
from relay.core.folders import Folder, Use, special
from relay.core.report import Report

SILENT = 3 * 86400.0  # s after its last mail from which on an account is looked at most rarely
FIRST_WAIT = 60.0  # s after the first failure of a mailbox, doubled each time
MOST_AWAY = 3600.0  # ... up to here for one that cannot be reached
MOST_REFUSED = 6 * 3600.0  # ... and for one that refuses us: until somebody mends it
SPREAD = 0.2  # of a wait, to either side: thousands of mailboxes must not be due together
LOOK_BACK = timedelta(days=2)  # how old mail may be that was there before we first looked
BEHIND = 1000  # UIDs before UIDNEXT that a look back reaches
STEP = 200  # mails whose header is asked for at once
STEPS = 10  # ... of one folder, in one look; then others have their turn
WIDER = 8  # times: of a range of UIDs without mail, the next
PATIENCE = 3  # looks that fail at the same mail before it is passed over
RANGES = 8  # ranges left that are kept apart; more are put together

FIELDS = (
    *("From", "Return-Path", "Subject", "Content-Type", "Auto-Submitted", "X-Failed-Recipients"),
    *("Precedence", "X-Autoreply", "X-Autorespond"),
)
"""What of a header tells whether it may be a report's: all that is fetched of other people's mail."""

_REPORT_TYPE = re.compile(r"multipart/report|message/|text/rfc822|[\s\S]*report-type", re.IGNORECASE)
Chance = Callable[[], float]
"""A number in [0, 1)."""


# -- when --------------------------------------------------------------------------------------------------------------


def wait(sent: float | None, *, least: float, most: float, rng: Chance) -> float:
    """Seconds until the next look, where the account last sent mail `sent` seconds ago; None: not for long.

    Reports come soon or late: each time that the silence is so many times longer, so is the wait.
    """
    most = max(least, most)
    if sent is None or sent >= SILENT or most == least:
        return _spread(most, rng)
    share = max(0.0, math.log(max(sent, least) / least) / math.log(SILENT / least))
    return _spread(least * (most / least) ** share, rng)


def retry(failures: int, *, refused: bool, least: float, rng: Chance) -> float:
    """Seconds until a mailbox is looked at again after so many failures in a row, from 1."""
    first, most = min(FIRST_WAIT, least), MOST_REFUSED if refused else MOST_AWAY
    return backoff.wait(failures, first=first, most=most, rng=rng)


def _spread(seconds: float, rng: Chance) -> float:
    return seconds * (1 - SPREAD + 2 * SPREAD * rng())


# -- where -------------------------------------------------------------------------------------------------------------


def paths(folders: Iterable[Folder]) -> list[str]:
    """The folders that reports come to: INBOX, which every mailbox has (RFC 3501 5.1), and the one for junk."""
    junk = special(folders).get(Use.JUNK)
    return ["INBOX", junk.folder.path] if junk else ["INBOX"]


# -- what --------------------------------------------------------------------------------------------------------------

Range = tuple[int, int]
"""UIDs from the first on, up to before the second."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a folder was looked at: up to `uidnext`, but for `left`, of which the newest come last."""

    uidvalidity: int
    uidnext: int
    left: tuple[Range, ...] = ()
    back: bool = False  # it is new to us: of what is left, the youngest few alone are looked at
    tries: tuple[int, int] = (0, 0)  # looks that failed for a mail, and where they stood; new mail changes nothing

    @classmethod
    def stored(cls, value: Any) -> Seen | None:
        """As `told` stored it; None for what nobody can read, and the folder is new to us again."""
        try:
            left = tuple((int(low), int(high)) for low, high in value.get("left", ()))
            times, at = value.get("tries", (0, 0))
            tries = int(times), int(at)
            return cls(int(value["uidvalidity"]), int(value["uidnext"]), left, bool(value.get("back")), tries)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"uidvalidity": self.uidvalidity, "uidnext": self.uidnext}
        if self.left:
            told["left"] = [list(one) for one in self.left]
        if self.tries[0]:
            told |= {"tries": list(self.tries), "back": self.back}
        return told

    def after(self, at: int) -> Seen:
        """Once the newest of what was left was looked at, down to this UID. Of a folder new to us that is all."""
        *older, (low, _) = self.left
        left = (*older, (low, at)) if low < at else tuple(older)
        return replace(self, left=left, back=False, tries=self.tries if left else (0, 0))

    def stumbled(self) -> Seen:
        """Once a look failed for a mail of the newest that is left."""
        times, at = self.tries
        return replace(self, tries=(times + 1 if at == self._at else 1, self._at))

    @property
    def stuck(self) -> bool:
        """It was tried often enough."""
        return self.tries[0] >= PATIENCE and self.tries[1] == self._at

    @property
    def _at(self) -> int:
        return 0 if self.back or not self.left else self.left[-1][1]


def news(before: Seen | None, uidvalidity: int, uidnext: int) -> Seen:
    """What there is to look at, in `left`, now that the server tells of this.

    A folder that is new to us, or whose UIDs begin anew (another UIDVALIDITY, or a UIDNEXT that went back, which no
    server may and some do), is looked back at: reports that are met again are known by their keys.
    """
    uidnext = max(1, uidnext)
    anew = before is None or before.uidvalidity != uidvalidity or uidnext < before.uidnext
    if before is None or anew or (before.back and before.left):
        behind = (max(1, uidnext - BEHIND), uidnext)
        tries = (0, 0) if before is None or anew else before.tries
        return Seen(uidvalidity, uidnext, (behind,) if behind[0] < uidnext else (), back=True, tries=tries)
    left = list(before.left)
    if before.uidnext < uidnext:
        left.append((before.uidnext, uidnext))
    while len(left) > RANGES:  # what lies between the two oldest is looked at twice
        left[:2] = [(left[0][0], left[1][1])]
    return replace(before, uidnext=uidnext, left=tuple(left), back=False)


Folders = dict[str, Seen | None]
"""The folders that are looked at, by their paths; None: it was not yet."""


def stored(folders: Mapping[str, Any]) -> Folders:
    """The folders of a mailbox as they were stored."""
    return {path: Seen.stored(value) for path, value in folders.items()}


def told(folders: Mapping[str, Seen | None]) -> dict[str, Any]:
    """The folders of a mailbox as they are to be stored."""
    return {path: seen.told() if seen else None for path, seen in folders.items()}


# -- which -------------------------------------------------------------------------------------------------------------


def candidate(header: bytes) -> bool:
    """Whether a mail with this header (FIELDS of it) may be a report or an auto-reply: one sign is enough.

    What makes sure of it (core/report.py) reads the whole mail.
    """
    fields = letter.fields_of(words.text_of(header[: letter.HEADER].replace(b"\r\n", b"\n").lstrip(b"\n")))
    sender, subject = fields.get("from"), words.decode(fields.get("subject"))
    return (
        "@" not in sender
        or fields.get("return-path").replace(" ", "").lower() in ("<>", "<mailer-daemon>")
        or bool(_REPORT_TYPE.match(fields.get("content-type")))
        or bool(fields.get("x-failed-recipients") or fields.get("x-autoreply") or fields.get("x-autorespond"))
        or fields.get("auto-submitted").lower().startswith(("auto-replied", "auto-generated"))
        or fields.get("precedence").lower() in ("auto_reply", "auto-reply")
        or "staff@hotmail" in sender.lower()
        or any(sign.search(subject) for sign in (phrases.FAILURE_SUBJECT, phrases.AWAY, phrases.COMPLAINT))
        or bool(phrases.PLAINLY.match(subject))
        or bool(phrases.MACHINE_SENDER.search(sender))
    )


def key(content: bytes, report: Report) -> str:
    """Tells the same report when it is met again: in another folder, or under other UIDs.

    By its Message-ID and whom it reports, since there are servers that give all reports of one message the same; by
    its bytes where it has none.
    """
    fields = letter.fields_of(words.text_of(content[: letter.HEADER].replace(b"\r\n", b"\n").lstrip(b"\n")))
    told = sorted(f"{one.recipient.lower()} {one.action}" for one in report.recipients)
    name = fields.get("message-id").encode() or hashlib.sha256(content).digest()
    return hashlib.sha256(b"\0".join([name, report.kind.encode(), *(one.encode() for one in told)])).hexdigest()
