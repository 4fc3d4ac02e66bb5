"""What figures of opens say about people: engagement, addresses that look fake, and the best time to send.

A claim is made only with its evidence: intervals decide, and a slot that was picked among many is held to more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt
from statistics import NormalDist

UNOPENED = 2  # messages that everybody is taken to have left unopened: one of one is no 100 %
RATE, REPEATS = 0.85, 0.15  # the weights of messages opened, and of looking at them again
HALF = 3  # further looks that are worth half of REPEATS
LASTING = 0.4  # of the score, whatever the time; the rest fades
HALF_LIFE = 60  # days since the last open after which half of that rest is left

FEW = 3  # messages from which nothing follows
YOUNG = timedelta(hours=24)  # mail that is no older may still be opened

FEWEST = 20  # deliveries in a slot, and outside it, before the two are compared
DOUBT, LITTLE_DOUBT = 0.05, 0.001  # how often chance alone may make any slot look fair, or strong
OWN_FAIR, OWN_STRONG = 5, 20  # a person's opens before anything is said of that person's habits
PRIOR = 10  # opens of the account's usual day that are mixed into a person's own
SHOWN = 3  # slots that are called best


def percent(part: int, whole: int) -> float:
    """With two decimals; 0.0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one recipient. `tracked` of `sent`; `opened` of `tracked`; `opens` are fetches."""

    sent: int
    tracked: int
    opened: int
    opens: int
    failed: int = 0
    bounced: int = 0
    any_opened: int = 0  # machines' opens included
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    last_opened_at: datetime | None = None


def engagement(of: Figures, now: datetime) -> int | None:
    """0 to 100; None without tracked mail, of which nothing can be known.

        100 * (0.85 * rate + 0.15 * repeats) * fresh * delivered
        rate      = opened / (tracked + 2)
        repeats   = further / (further + 3),  further = opens - opened
        fresh     = 0.4 + 0.6 * 0.5 ** (days since the last open / 60)
        delivered = 1 - (failed + bounced) / (sent + failed)

    8 of 10 opened, 12 opens, the last 30 days ago, and one more that failed: (0.85 * 0.667 + 0.15 * 0.571) * 0.824
    * 0.909 = 0.489, so 49. Who opens more, oftener or later scores no less; who lets more lie, or fails, no more.
    """
    if not of.tracked:
        return None
    rate = of.opened / (of.tracked + UNOPENED)
    further = max(of.opens - of.opened, 0)
    repeats = further / (further + HALF)
    delivered = max(1 - (of.failed + of.bounced) / (of.sent + of.failed), 0)
    return round(100 * min((RATE * rate + REPEATS * repeats) * _fresh(of.last_opened_at, now) * delivered, 1))


def _fresh(last: datetime | None, now: datetime) -> float:
    if last is None:
        return LASTING
    days = max((now - last).total_seconds(), 0) / 86400
    return LASTING + (1 - LASTING) * float(0.5 ** (days / HALF_LIFE))


def doubts(of: Figures, now: datetime) -> list[str]:
    """Why an address that never opened anything may be a person's all the same: what is known, in words."""
    found = ["Pictures may be blocked, or the mail read as plain text: then no open is ever seen."]
    if machines := of.any_opened - of.opened:
        found.append(
            f"Machines fetched the pictures of {_messages(machines)}, as Apple Mail does for its users whether they"
            " read or not: the mailbox is most likely real."
        )
    if of.tracked <= FEW:
        found.append(f"Only {_messages(of.tracked)} could show an open: too few to tell.")
    if of.sent > of.tracked:
        found.append(f"{_messages(of.sent - of.tracked).capitalize()} had no pixel: whether it was read is not known.")
    if of.last_sent_at and now - of.last_sent_at < YOUNG:
        found.append("The last message is younger than a day.")
    if not of.failed and not of.bounced:
        found.append("The mail server took every message, and none came back.")
    return found


def _messages(number: int) -> str:
    return f"{number} message{'s' if number != 1 else ''}"


class Confidence(StrEnum):
    """How sure it is that a slot of the day or week is better than the others."""

    NONE = "none"  # too little mail, or no better than the rest
    WEAK = "weak"  # better so far, and chance may well explain it
    FAIR = "fair"  # chance makes any slot look so once in 20 times
    STRONG = "strong"  # ... once in 1,000 times

    @property
    def rank(self) -> int:
        return list(Confidence).index(self)


@dataclass(frozen=True, slots=True)
class Slot:
    """One hour of the day, or day of the week: tracked mail sent then, how much of it was opened, opens that came."""

    deliveries: int = 0
    opened: int = 0
    opens: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A slot by its place in the given sequence. `worth` is what slots are ranked by, from 0 to 1."""

    place: int
    slot: Slot
    worth: float
    confidence: Confidence


def by_rate(slots: Sequence[Slot]) -> list[Judged]:
    """An account's slots: was mail that was sent then opened more often than the rest?

    Worth is the lower end of the open rate's 95 % interval (Wilson 1927), so that one of one is not the best. Sure is
    it by the lower end of the difference to all other slots together (Newcombe 1998, method 10), at a level divided by
    the number of slots (Bonferroni): among 24 hours one always looks good.
    """
    deliveries, opened = sum(slot.deliveries for slot in slots), sum(slot.opened for slot in slots)
    found = []
    for place, slot in enumerate(slots):
        rest = Slot(deliveries - slot.deliveries, opened - slot.opened)
        worth = wilson(slot.opened, slot.deliveries, NormalDist().inv_cdf(0.975))[0]
        found.append(Judged(place, slot, worth, _compared(slot, rest, len(slots))))
    return found


def _compared(slot: Slot, rest: Slot, choices: int) -> Confidence:
    if min(slot.deliveries, rest.deliveries) < FEWEST:
        return Confidence.NONE
    if slot.opened * rest.deliveries <= rest.opened * slot.deliveries:
        return Confidence.NONE
    for confidence, doubt in ((Confidence.STRONG, LITTLE_DOUBT), (Confidence.FAIR, DOUBT)):
        if difference(slot, rest, _deviations(doubt, choices))[0] > 0:
            return confidence
    return Confidence.WEAK


def by_opens(slots: Sequence[Slot], account: Sequence[int]) -> list[Judged]:
    """A recipient's slots: when does that person look? `account`: opens of all its mail in each slot.

    Worth is the slot's share of the person's opens, drawn towards the account's as by ten opens of a usual day. Sure is
    it where Wilson's lower end of the person's own share, at a level divided by the number of slots, is above an even
    share.
    """
    opens, usual = sum(slot.opens for slot in slots), sum(account)
    found = []
    for place, (slot, expected) in enumerate(zip(slots, account, strict=True)):
        prior = (expected + 1) / (usual + len(slots))
        worth = (slot.opens + PRIOR * prior) / (opens + PRIOR)
        found.append(Judged(place, slot, worth, _habit(slot.opens, opens, len(slots))))
    return found


def _habit(own: int, opens: int, choices: int) -> Confidence:
    if not own:
        return Confidence.NONE
    steps = ((Confidence.STRONG, LITTLE_DOUBT, OWN_STRONG), (Confidence.FAIR, DOUBT, OWN_FAIR))
    for confidence, doubt, least in steps:
        if opens >= least and wilson(own, opens, _deviations(doubt, choices))[0] > 1 / choices:
            return confidence
    return Confidence.WEAK


def best(judged: Sequence[Judged]) -> list[Judged]:
    """The slots to send in, best first: up to three that are sure; else the one that looks best; else none."""
    ranked = sorted(judged, key=lambda one: (-one.worth, one.place))
    sure = [one for one in ranked if one.confidence.rank >= Confidence.FAIR.rank]
    return sure[:SHOWN] or [one for one in ranked if one.confidence is Confidence.WEAK][:1]


def wilson(part: int, whole: int, deviations: float) -> tuple[float, float]:
    """The interval of a proportion (Wilson 1927), `deviations` wide to each side; (0, 1) of nothing."""
    if not whole:
        return 0.0, 1.0
    rate, square = part / whole, deviations**2
    centre = rate + square / (2 * whole)
    spread = deviations * sqrt(rate * (1 - rate) / whole + square / (4 * whole**2))
    low, high = ((centre + side * spread) / (1 + square / whole) for side in (-1, 1))
    return min(max(low, 0.0), rate), max(min(high, 1.0), rate)


def difference(one: Slot, other: Slot, deviations: float) -> tuple[float, float]:
    """The interval of the difference of two open rates (Newcombe 1998, method 10). Both have deliveries."""
    rate, others = one.opened / one.deliveries, other.opened / other.deliveries
    low, high = wilson(one.opened, one.deliveries, deviations)
    others_low, others_high = wilson(other.opened, other.deliveries, deviations)
    gap = rate - others
    return (
        gap - sqrt((rate - low) ** 2 + (others_high - others) ** 2),
        gap + sqrt((high - rate) ** 2 + (others - others_low) ** 2),
    )


def _deviations(doubt: float, choices: int) -> float:
    """Standard deviations that chance passes, upwards, in any of so many slots with probability `doubt`."""
    return NormalDist().inv_cdf(1 - doubt / choices)
