"""The two ledgers, and what must hold between them. Pure: it can be shown that each rule can fail."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

ENDS = frozenset({"sent", "failed", "cancelled", "bounced", "complained"})


class Answer(StrEnum):
    """What a sender was told of one try to hand its mail over."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"  # for good: nothing of it may go out
    DOUBTFUL = "doubtful"  # for now, or no answer at all: it may have been stored


@dataclass
class Handed:
    """A mail that somebody handed over. Tries with one idempotency key are one mail; others are one each."""

    account: str
    recipients: tuple[str, ...]
    answers: list[Answer] = field(default_factory=list)
    queue_ids: set[str] = field(default_factory=set)

    @property
    def acknowledged(self) -> bool:
        return Answer.ACKNOWLEDGED in self.answers

    @property
    def refused(self) -> bool:
        return bool(self.answers) and set(self.answers) == {Answer.REFUSED}


@dataclass(frozen=True)
class Taken:
    """A copy that upstream took. `told`: it said so, and was not cut off before."""

    account: str
    recipient: str
    at: float  # s
    told: bool = True


@dataclass(frozen=True)
class Fate:
    """What the store says in the end of one delivery."""

    account: str
    recipient: str
    queue_id: str
    state: str
    reason: str
    unknowns: int  # attempts of which nobody knows whether they arrived


@dataclass(frozen=True)
class Books:
    """Everything that was written down."""

    handed: Sequence[Handed]
    taken: Sequence[Taken]
    fates: Sequence[Fate]
    per_minute: Mapping[str, int]  # accounts with a limit
    in_doubt: int  # connections to upstreams that were open at the crashes, and replies that upstream kept to itself
    events: frozenset[str] = frozenset()
    posted: frozenset[str] = frozenset()
    window: float = 60.0  # s


def reconcile(books: Books) -> list[str]:
    """Every broken promise, one line each."""
    return [fault for rule in RULES for fault in rule(books)]


def acknowledged_is_sent_or_dead(books: Books) -> Iterator[str]:
    """Every acknowledged delivery was taken at least once, or is a dead letter with a reason."""
    copies = _copies(books.taken)
    fates = _by_recipient(books.fates)
    for recipient, account in _wanted(books.handed):
        found = fates[account, recipient]
        if not found:
            yield f"lost: {recipient} of {account} was acknowledged, and the store knows nothing of it"
        for fate in found:
            if fate.state not in ENDS:
                yield f"unfinished: {recipient} of {account} is {fate.state}"
            elif fate.state == "sent" and not copies[account, recipient]:
                yield f"lost: {recipient} of {account} is said to be sent, and upstream never took it"
            elif fate.state == "failed" and not fate.reason:
                yield f"silent: {recipient} of {account} failed without a reason"


def refused_is_not_sent(books: Books) -> Iterator[str]:
    """Nothing that was refused was taken."""
    copies = _copies(books.taken)
    for mail in books.handed:
        for recipient in mail.recipients if mail.refused else ():
            if copies[mail.account, recipient]:
                yield f"refused, and sent: {recipient} of {mail.account}"


def copies_are_known(books: Books) -> Iterator[str]:
    """A copy beyond one has an attempt recorded as unknown, and there are no more than could be in doubt."""
    unknowns: Counter[tuple[str, str]] = Counter()
    for fate in books.fates:
        unknowns[fate.account, fate.recipient] += fate.unknowns
    beyond = 0
    for (account, recipient), copies in _copies(books.taken).items():
        beyond += copies - 1
        if copies - 1 > unknowns[account, recipient]:
            told = unknowns[account, recipient]
            yield f"doubled: {recipient} of {account} was taken {copies} times, with {told} attempts told as unknown"
    if beyond > books.in_doubt:
        yield f"doubled: {beyond} copies beyond one, and only {books.in_doubt} could be in doubt"


def one_key_is_one_mail(books: Books) -> Iterator[str]:
    """However often it was handed over with its key."""
    fates = _by_recipient(books.fates)
    for mail in books.handed:
        known = {fate.queue_id for name in mail.recipients for fate in fates[mail.account, name]}
        if len(known | mail.queue_ids) > 1:
            yield f"stored twice: {mail.recipients[0]} of {mail.account} is {', '.join(sorted(known | mail.queue_ids))}"


def within_limits(books: Books) -> Iterator[str]:
    """No account was over its limit in any sliding window."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for copy in books.taken:
        times[copy.account].append(copy.at)
    for account, most in books.per_minute.items():
        ordered = sorted(times[account])
        for place, at in enumerate(ordered):
            inside = bisect_left(ordered, at + books.window) - place
            if inside > most:
                yield f"over its limit: {account} sent {inside} within {books.window:g} s, {most} are allowed"
                break


def events_are_posted(books: Books) -> Iterator[str]:
    """Every event has its webhook."""
    if missing := books.events - books.posted:
        yield f"untold: {len(missing)} of {len(books.events)} events were never posted, e.g. {min(missing)}"


RULES = (
    acknowledged_is_sent_or_dead,
    refused_is_not_sent,
    copies_are_known,
    one_key_is_one_mail,
    within_limits,
    events_are_posted,
)


def _wanted(handed: Iterable[Handed]) -> Iterator[tuple[str, str]]:
    for mail in handed:
        if mail.acknowledged:
            for recipient in mail.recipients:
                yield recipient, mail.account


def _copies(taken: Iterable[Taken]) -> Counter[tuple[str, str]]:
    return Counter((copy.account, copy.recipient) for copy in taken)


def _by_recipient(fates: Sequence[Fate]) -> defaultdict[tuple[str, str], list[Fate]]:
    found: defaultdict[tuple[str, str], list[Fate]] = defaultdict(list)
    for fate in fates:
        found[fate.account, fate.recipient].append(fate)
    return found
