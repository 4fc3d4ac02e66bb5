"""Mail to an account about its own mail, in words: somebody opened it, or nobody did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from html import escape

from relay.core.model import Opener

OPENED, UNOPENED = "opened", "unopened"
LONGEST_SUBJECT = 200  # characters of the subject that is told of
HEADERS = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
"""RFC 3834 5: nobody's machine shall answer. Exchange asks for a header of its own."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told: of one delivery, by one of the kinds OPENED and UNOPENED."""

    kind: str
    delivery: int
    recipient: str
    name: str  # of the recipient; "" is unknown
    subject: str
    sent_at: datetime | None  # None: its reader was quicker than our commit, or the reply was lost
    opened_at: datetime | None  # the first open that counts
    opener: Opener | None
    client: str
    country: str
    city: str


@dataclass(frozen=True, slots=True)
class Words:
    """A mail's pieces; `html` says what `text` says."""

    subject: str
    text: str
    html: str


def write(notice: Notice, *, account: str, days: int, record: str, tz: tzinfo) -> Words:
    """`days`: after how many a mail counts as unopened. `record`: the URL of all that is known.

    It wants a token, so that it is named for programs and is no link to click on.
    """
    who = _line(f"{notice.name} <{notice.recipient}>" if notice.name else notice.recipient)
    about = _line(notice.subject)[:LONGEST_SUBJECT] or "(no subject)"
    if notice.kind == OPENED:
        subject, says = f"Opened: {about}", f"{who} opened your mail “{about}”."
        because = f"Account {account} asks for a mail when one of its mails is opened for the first time."
    else:
        within = "1 day" if days == 1 else f"{days} days"
        subject, says = f"Not opened: {about}", f"Within {within} nobody was seen to open your mail “{about}” to {who}."
        because = (
            f"Account {account} asks for a mail when one of its mails stays unopened. Some mail programs show no "
            "pictures, and then nobody is seen: it may have been read all the same."
        )
    facts = [(name, value) for name, value in _facts(notice, tz) if value]
    text = "\n".join(
        [says, "", *(f"{name}: {value}" for name, value in facts), "", f"More over the API: {record}", "", because, ""]
    )
    return Words(subject, text, _html(says, facts, record, because))


def _facts(notice: Notice, tz: tzinfo) -> list[tuple[str, str]]:
    sent = ("Sent", _moment(notice.sent_at, tz))
    if notice.kind != OPENED:
        return [sent]
    return [("Opened", _moment(notice.opened_at, tz)), ("With", _line(notice.client)), ("Where", _where(notice)), sent]


def _where(notice: Notice) -> str:
    if notice.opener is Opener.PROXY:
        return f"hidden by {_line(notice.client) or 'the mail provider'}, which fetches pictures for its users"
    return ", ".join(part for part in (_line(notice.city), notice.country) if part)


def _moment(at: datetime | None, tz: tzinfo) -> str:
    if at is None:
        return ""
    local = at.astimezone(tz)
    return f"{local:%A}, {local.day} {local:%B %Y, %H:%M} ({tz})"


def _line(text: str) -> str:
    """What strangers wrote, on one line and without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _html(says: str, facts: list[tuple[str, str]], record: str, because: str) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in facts)
    return (
        f'<html><body>\n<p>{escape(says)}</p>\n<table cellpadding="4">\n{rows}</table>\n'
        f"<p><small>More over the API: {escape(record)}</small></p>\n"
        f"<p><small>{escape(because)}</small></p>\n</body></html>\n"
    )
