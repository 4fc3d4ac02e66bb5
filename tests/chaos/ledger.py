"""The two ledgers, and what must hold between them. Pure: it can be shown that each rule can fail."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

REPORTED = frozenset({"bounced", "complained"})
ENDS = frozenset({"sent", "failed", "cancelled"}) | REPORTED


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
        """The last word on it was no, and there was never a yes."""
        return bool(self.answers) and self.answers[-1] is Answer.REFUSED and not self.acknowledged


@dataclass(frozen=True)
class Taken:
    """A copy that upstream took. `doubtful`: something happened that may have kept us from knowing it (doubt.py)."""

    account: str
    recipient: str
    at: float  # s
    doubtful: bool = False


@dataclass(frozen=True)
class Fate:
    """What the store says in the end of one delivery."""

    account: str
    recipient: str
    queue_id: str
    state: str
    reason: str
    unknowns: tuple[float, ...]  # when attempts were recorded of which nobody knows whether they arrived; s


@dataclass(frozen=True)
class Filed:
    """A mail in the mailbox of an account that has one."""

    message_id: str
    flaws: tuple[str, ...] = ()  # what is wrong with it


@dataclass(frozen=True)
class Books:
    """Everything that was written down."""

    handed: Sequence[Handed]
    taken: Sequence[Taken]
    fates: Sequence[Fate]
    per_minute: Mapping[str, int]  # accounts with a limit
    events: frozenset[str] = frozenset()
    posted: frozenset[str] = frozenset()
    owed: frozenset[str] = frozenset()  # Message-IDs of what was sent for accounts that have a mailbox
    filed: Sequence[Filed] = ()
    reported: Mapping[str, str] = field(default_factory=dict)  # recipient -> the state that reports of them make
    told: Mapping[tuple[str, str], int] = field(default_factory=dict)  # recipient, state -> events that tell it
    refused: str = "nobody"  # how recipients begin whom upstream refuses
    window: float = 60.0  # s
    apart: float = 0.1  # s that two clocks of one machine may differ


def reconcile(books: Books) -> list[str]:
    """Every broken promise, one line each."""
    return [fault for rule in RULES for fault in rule(books)]


def something_was_done(books: Books) -> Iterator[str]:
    """A run in which nothing is promised keeps all promises."""
    if not any(mail.acknowledged for mail in books.handed):
        yield "idle: not one mail was acknowledged"
    if not books.events:
        yield "idle: there is not one event"


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
    """Before a copy is repeated, an attempt is recorded as unknown."""
    unknowns: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for fate in books.fates:
        unknowns[fate.account, fate.recipient] += fate.unknowns
    for (account, recipient), copies in _several(books.taken):
        told = sorted(unknowns[account, recipient])
        for place, copy in enumerate(copies[1:]):
            if len(told) <= place or told[place] > copy.at + books.apart:
                yield f"doubled: {recipient} of {account} came again, with {place} attempts told as unknown before that"
                break


def copies_are_excused(books: Books) -> Iterator[str]:
    """Copies beyond one are no more than what could be in doubt, recipient by recipient."""
    for (account, recipient), copies in _several(books.taken):
        excused = sum(copy.doubtful for copy in copies)
        if len(copies) - 1 > excused:
            yield f"doubled: {recipient} of {account} was taken {len(copies)} times, {excused} of them in doubt"


def dead_letters_were_refused(books: Books) -> Iterator[str]:
    """What upstream would have taken is no dead letter: bad weather alone fails nobody."""
    for fate in books.fates:
        if fate.state == "failed" and not fate.recipient.startswith(books.refused):
            yield f"given up: {fate.recipient} of {fate.account} failed: {fate.reason}"


def one_key_is_one_mail(books: Books) -> Iterator[str]:
    """However often it was handed over with its key."""
    fates = _by_recipient(books.fates)
    for mail in books.handed:
        known = {fate.queue_id for name in mail.recipients for fate in fates[mail.account, name]}
        if len(known | mail.queue_ids) > 1:
            yield f"stored twice: {mail.recipients[0]} of {mail.account} is {', '.join(sorted(known | mail.queue_ids))}"


def within_limits(books: Books) -> Iterator[str]:
    """No account was over its limit in any sliding window."""
    for account, most in books.per_minute.items():
        inside = fullest(books, account)
        if inside > most:
            yield f"over its limit: {account} sent {inside} within {books.window:g} s, {most} are allowed"


def fullest(books: Books, account: str) -> int:
    """The most copies of this account in any sliding window."""
    times = sorted(copy.at for copy in books.taken if copy.account == account)
    return max((bisect_left(times, at + books.window) - place for place, at in enumerate(times)), default=0)


def events_are_posted(books: Books) -> Iterator[str]:
    """Every event has its webhook."""
    if missing := books.events - books.posted:
        yield f"untold: {len(missing)} of {len(books.events)} events were never posted, e.g. {min(missing)}"


def each_is_filed_once(books: Books) -> Iterator[str]:
    """One clean copy in the mailbox of each mail that was sent to anybody, and nothing else."""
    copies = Counter(copy.message_id for copy in books.filed)
    for message_id in sorted(books.owed | set(copies)):
        if message_id not in books.owed:
            yield f"filed, and not sent: {message_id}"
        elif copies[message_id] != 1:
            yield f"filed {copies[message_id]} times: {message_id}"
    yield from (f"filed {flaw}: {copy.message_id}" for copy in books.filed for flaw in copy.flaws)


def reports_are_believed(books: Books) -> Iterator[str]:
    """Who bounced is bounced, who complained has complained, and one event says so; nobody else has."""
    became = {(fate.recipient, fate.state) for fate in books.fates if fate.state in REPORTED}
    reported = set(books.reported.items())
    for recipient, state in sorted(reported | became | set(books.told)):
        told = books.told.get((recipient, state), 0)
        if (recipient, state) not in reported:
            yield f"{state} without a report: {recipient}"
        elif (recipient, state) not in became:
            yield f"a report was lost: {recipient} did not become {state}"
        elif told != 1:
            yield f"{state} was told {told} times: {recipient}"


RULES = (
    something_was_done,
    acknowledged_is_sent_or_dead,
    refused_is_not_sent,
    copies_are_known,
    copies_are_excused,
    dead_letters_were_refused,
    one_key_is_one_mail,
    within_limits,
    events_are_posted,
    each_is_filed_once,
    reports_are_believed,
)


def _wanted(handed: Iterable[Handed]) -> Iterator[tuple[str, str]]:
    for mail in handed:
        if mail.acknowledged:
            for recipient in mail.recipients:
                yield recipient, mail.account


def _copies(taken: Iterable[Taken]) -> Counter[tuple[str, str]]:
    return Counter((copy.account, copy.recipient) for copy in taken)


def _several(taken: Iterable[Taken]) -> Iterator[tuple[tuple[str, str], list[Taken]]]:
    """Recipients with more copies than one, and these in their order."""
    found: defaultdict[tuple[str, str], list[Taken]] = defaultdict(list)
    for copy in taken:
        found[copy.account, copy.recipient].append(copy)
    for key, copies in found.items():
        if len(copies) > 1:
            yield key, sorted(copies, key=lambda copy: copy.at)


def _by_recipient(fates: Sequence[Fate]) -> defaultdict[tuple[str, str], list[Fate]]:
    found: defaultdict[tuple[str, str], list[Fate]] = defaultdict(list)
    for fate in fates:
        found[fate.account, fate.recipient].append(fate)
    return found
