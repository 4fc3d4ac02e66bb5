"""From what a report says of a recipient to what it means: a category, what to do, whether the address is at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from relay.core import advice
from relay.core.address import spellings
from relay.core.advice import Advice
from relay.core.complaint import arf, headers
from relay.core.prose import ADDRESS, Told
from relay.core.report import Kind, Report

LONGEST = 2000  # characters of a diagnostic that are kept
WORDS = 100_000  # characters of all diagnostics of a report that rules are held against: it takes 8 us each
ENOUGH = 200  # of one, however many there are
MOST = 1000  # recipients of one report that are looked at: what names more is no report about our mail
_UNHELD = re.compile("[\x00\ud800-\udfff]")  # what PostgreSQL cannot hold
_ADDRESSES = re.compile(rf"<[^<>\s]{{0,400}}@[^<>\s]{{0,400}}>|{ADDRESS.pattern}")
_PATHS = re.compile(r"(https?:/{0,2}\s?/{0,2}[\w.-]{1,200})\S*", re.IGNORECASE)
_CONTINUED = re.compile(r"(?<=\s)[245]\d\d-(?:[245]\.\d{1,3}\.\d{1,3})?\s")
_ENHANCED = re.compile(r"(?<![\d.])#?([245]\.\d{1,3}\.\d{1,3})(?![.]?\d)")
_CODE = re.compile(r"(?<![\w.:/-])([45])\d\d(?=[ -]|$)")
_TYPE = re.compile(r"(?:smtp|x-[\w-]{1,30})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a report says of one recipient, and what we make of it.

    `action` and `status` as in RFC 3464, "" is not told; `source` is what the diagnostic is written in: `smtp`,
    `x-...`, or `text`. `suppresses`: no mail will ever arrive there, whoever sends it.
    """

    recipient: str
    action: str = ""
    status: str = ""
    diagnostic: str = ""
    mta: str = ""
    source: str = "text"
    category: str = ""
    advice: Advice = Advice.REVIEW
    suppresses: bool = False
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)  # the recipient in every spelling

    def __post_init__(self) -> None:
        """Here, and not where it is matched: a thousand of them take their time."""
        object.__setattr__(self, "names", spellings(self.recipient))

    @property
    def failed(self) -> bool:
        """It tells of a failure. What is delayed, delivered, relayed or expanded has not failed."""
        return self.action == "failed"


@dataclass(frozen=True, slots=True)
class Reported:
    """A report that was read, to be recorded once (`store.bounces.record`).

    `key` tells the same report met again, within the account; `place` is the id of the report's own message in the
    mailbox, where it has one; `message_id` the original's, as the report names it; `at` when the report came, None is
    now. `arf` and `headers` are told of complaints: the feedback report's fields, and the original's.
    """

    kind: Kind
    source: str  # imap, mailgun
    key: str
    message_id: str = ""
    recipients: tuple[Finding, ...] = ()
    place: str | None = None
    at: datetime | None = None
    arf: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)


def judge(told: Told, most: int = LONGEST) -> Finding:
    """What a report's words about a recipient mean, by the first so many of them."""
    status, said = _held(told.status, 20), _held(told.diagnostic)
    rule = _rule(_searched(status, said[:most]))
    category, what = (rule.category, rule.advice) if rule else advice.OTHER
    failed = told.action == "failed"
    return Finding(
        recipient=_held(told.recipient, 320),
        action="failed" if told.given_up else told.action,
        status=status,
        diagnostic=said,
        mta=_held(told.mta, 255),
        source=told.source.lower() if _TYPE.fullmatch(told.source) else "text",
        category=category,
        advice=what,
        suppresses=failed and category in advice.SUPPRESSING and _final(status, said),
    )


def reported(
    report: Report, *, source: str, key: str, place: str | None = None, at: datetime | None = None
) -> Reported:
    """A bounce or a complaint that was read, with what it means."""
    recipients = report.recipients[:MOST]
    most = max(ENOUGH, WORDS // max(len(recipients), 1))
    return Reported(
        kind=report.kind,
        source=source,
        key=key,
        message_id=_held(report.message_id, 998),
        recipients=tuple(judge(told, most) for told in recipients),
        place=place,
        at=at,
        arf=arf(report.feedback, report.original) if report.kind is Kind.COMPLAINT else {},
        headers=headers(report.original) if report.kind is Kind.COMPLAINT else {},
    )


def _rule(text: str) -> advice.Rule | None:
    return next((rule for rule in advice.RULES if rule.regex.search(text)), None)


def _searched(status: str, said: str) -> str:
    """What rules are held against: a telling status, and the words without the names of people and pages."""
    words = _CONTINUED.sub(" ", _PATHS.sub(r"\1", _ADDRESSES.sub("", said)))
    return f"{_telling(status, words)} {words}"


def _telling(status: str, words: str) -> str:
    """The first status that says more than that it failed: the words' own, which a server meant for this failure."""
    found = [*_ENHANCED.findall(words), status]
    return next((one for one in found if one and not one.endswith(".0.0")), status)


def _final(status: str, said: str) -> bool:
    """It is for good, by the reply that is quoted; else by the status. A report without either says so in words."""
    found = _CODE.search(said) or _ENHANCED.search(said)
    return (found[1] if found else status)[:1] in ("5", "")


def held(value: Any) -> Any:
    """What PostgreSQL can hold of data that others wrote."""
    match value:
        case str():
            return _UNHELD.sub(" ", value)
        case Mapping():
            return {held(name): held(one) for name, one in value.items()}
        case list() | tuple():
            return [held(one) for one in value]
    return value


def _held(text: str, most: int = LONGEST) -> str:
    """On one line, within bounds, of what PostgreSQL can hold."""
    return " ".join(held(text[: 4 * most]).split())[:most]
