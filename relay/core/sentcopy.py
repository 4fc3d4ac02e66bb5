"""What becomes of a message's Sent copy, given the copies of it that were found in the mailbox: a plan, as a value.

A plan removes nothing unless one clean copy stays or is written first, so that a crash anywhere leaves at least one;
and it is made anew from what is found then, so that it ends with exactly one however often it is begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from relay.core.tenant import Copy


@dataclass(frozen=True, slots=True)
class Intent:
    """Where our copy is about to be written: it gets `uidnext` or a higher UID. Once it is known: `uid`."""

    path: str
    uidvalidity: int
    uidnext: int
    uid: int | None = None

    def covers(self, path: str, uidvalidity: int, uid: int) -> bool:
        """A clean mail there is the one that we wrote."""
        if (path, uidvalidity) != (self.path, self.uidvalidity):
            return False
        return uid >= self.uidnext if self.uid is None else uid == self.uid

    def written(self, uidvalidity: int, uid: int) -> Intent:
        return replace(self, uidvalidity=uidvalidity, uid=uid)


def dump(intent: Intent | None) -> dict[str, Any] | None:
    """As JSON."""
    return asdict(intent) if intent else None


def load(told: Mapping[str, Any] | None) -> Intent | None:
    """What `dump` made."""
    return Intent(**told) if told else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mail with the message's Message-ID, where sent mail is kept. `addresses`: its From, To and Cc, as stored."""

    path: str
    uid: int
    ours: bool = False  # it is where we wrote it
    pixel: bool = False  # it carries one of ours
    bcc: bool = False  # it names everybody whom the sender gave in Bcc
    seen: bool = False
    deleted: bool = False
    cut: bool = False  # it cannot be all of the message
    addresses: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a message's copy, and what is known of it."""

    path: str  # where it belongs
    policy: Copy = Copy.AUTO
    files: bool | None = None  # the provider files what is sent by itself; None: nobody knows
    bcc: bool = False  # the sender gave some
    expected: int = 1  # as many copies as the provider can have filed: one for each time that it took the message
    filed: bool = False  # a copy of the provider's was met before
    begun: bool = False  # ours was about to be written before
    written: bool = False  # ... and was there
    last: bool = False  # nobody looks again after this time


@dataclass(frozen=True, slots=True)
class Plan:
    """`keep` stays, or else ours is written (`append`), with From, To and Cc of `like`; then `remove` goes.

    `files`: what was learned of the provider, None for nothing.
    """

    keep: Candidate | None = None
    append: bool = False
    like: Candidate | None = None
    remove: tuple[Candidate, ...] = ()
    again: bool = False  # look again, for copies that come late
    files: bool | None = None


def policy(account: Copy, option: str | None) -> Copy:
    """The message's own, else the account's. Older messages may have other words for some."""
    words = {"always": Copy.APPEND, "never": Copy.NONE, **{copy.value: copy for copy in Copy}}
    return words.get(option or "", account)


def plan(wanted: Wanted, found: Sequence[Candidate]) -> Plan:
    """What to do now."""
    if wanted.policy is Copy.NONE:
        return Plan()
    return _appended(wanted, found) if wanted.policy is Copy.APPEND else _replaced(wanted, found)


def clean(wanted: Wanted, one: Candidate) -> bool:
    """All of it; no pixel that it shows anybody; and whom the sender gave in Bcc, which a server may drop from ours."""
    return not one.cut and not one.pixel and (one.bcc or one.ours or not wanted.bcc)


def _appended(wanted: Wanted, found: Sequence[Candidate]) -> Plan:
    """One of ours, whatever else is there. One that its owner has moved meanwhile is not written again."""
    keep = _best([one for one in _clean(wanted, found) if one.ours], None)
    return Plan(keep=keep, append=keep is None and not wanted.written)


def _replaced(wanted: Wanted, found: Sequence[Candidate]) -> Plan:
    theirs = [one for one in found if not one.ours and not one.deleted]
    like = max((one for one in theirs if one.addresses), key=lambda one: one.uid, default=None)
    keep = _best(_clean(wanted, found), like)
    append = _lacks(wanted, found) if keep is None else _outdated(wanted, keep, like)
    keep = None if append else keep
    return Plan(
        keep=keep,
        append=append,
        like=like,
        remove=tuple(one for one in found if one != keep) if append or keep else (),
        again=not wanted.last and _may_come(wanted, theirs),
        files=True if theirs else False if wanted.last and not wanted.filed else None,
    )


def _clean(wanted: Wanted, found: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in found if one.path == wanted.path and not one.deleted and clean(wanted, one)]


def _best(among: Sequence[Candidate], like: Candidate | None) -> Candidate | None:
    """With the addresses as the provider writes them; the newest.

    Not ours first: of two messages with one Message-ID each would keep its own, and remove the other's.
    """

    def rank(one: Candidate) -> tuple[bool, int]:
        return like is None or one.addresses == like.addresses, one.uid

    return max(among, key=rank, default=None)


def _lacks(wanted: Wanted, found: Sequence[Candidate]) -> bool:
    """No copy will do: ours is to be written. Unless the provider's is on its way, or ours was moved by its owner."""
    if any(not one.deleted for one in found):
        return True
    if wanted.written:
        return False
    return wanted.last or wanted.begun or wanted.policy is Copy.REPLACE or not wanted.files


def _outdated(wanted: Wanted, keep: Candidate, like: Candidate | None) -> bool:
    """Ours was written before anybody knew how the provider writes the addresses. Told once: it may rewrite ours."""
    return like is not None and not wanted.filed and keep.addresses != like.addresses


def _may_come(wanted: Wanted, theirs: Sequence[Candidate]) -> bool:
    """Copies of the provider's that are not there yet."""
    if wanted.policy is Copy.AUTO and wanted.files is False and not theirs and not wanted.filed:
        return False
    here = Counter(one.path for one in theirs)
    return max(here.values(), default=0) < wanted.expected
