"""The original below what is answered or forwarded: as text with marks, and as HTML in a quotation of its own."""

from __future__ import annotations

import html as markup
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, tzinfo

from relay.core.address import Mailbox
from relay.core.cleaning import LONGEST, Replaced, clean
from relay.core.original import Original

LINE = 76  # characters after which a paragraph that is quoted is broken
LONGEST_TEXT = 512 << 10  # characters
MOST_NAMED = 50  # mailboxes in the header of what is forwarded
FORWARDED = "---------- Forwarded message ----------"
CUT = "[…]"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WORDS = re.compile(rf"(\S{{{LINE + 1},}}|.{{1,{LINE}}})(?:\s|$)")
_BAR = "margin:0 0 0 .8ex;border-left:1px solid #ccc;padding-left:1ex"
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)
_AS_TYPED = "white-space:pre-wrap"


def answered_text(mine: str, original: Original, zone: tzinfo | None) -> str:
    """My text, and the original's below, each line behind a mark."""
    quoted = "\n".join(_marked(line) for line in _lines(_shortened(original.readable)))
    return _above(mine, f"{attribution(original, zone)}\n\n{quoted}\n")


def forwarded_text(mine: str, original: Original, zone: tzinfo | None) -> str:
    """My text, and below a header of the most needed fields the original's, as it is."""
    head = "\n".join(f"{name}: {value}" for name, value in _header(original, zone))
    body = _shortened(original.readable)
    return _above(mine, f"{FORWARDED}\n{head}\n\n{body}\n")


def answered_html(mine: str, original: Original, zone: tzinfo | None, replaced: Replaced) -> str:
    """My HTML, and the original's in a quotation, which nothing in it can end."""
    said = markup.escape(attribution(original, zone))
    quoted = f'<blockquote type="cite" style="{_BAR}">{_html(original, replaced)}</blockquote>'
    return _inside(mine, f"<br><div>{said}<br></div>{quoted}")


def forwarded_html(mine: str, original: Original, zone: tzinfo | None, replaced: Replaced) -> str:
    head = "<br>".join(f"{name}: {markup.escape(value)}" for name, value in _header(original, zone))
    return _inside(mine, f"<br><div>{FORWARDED}<br>{head}<br><br></div><div>{_html(original, replaced)}</div>")


def as_html(text: str) -> str:
    """Text that keeps its lines."""
    return f'<div style="{_AS_TYPED}">{markup.escape(text)}</div>'


def attribution(original: Original, zone: tzinfo | None) -> str:
    """`On Thu, 31 Jan 2030 at 09:30, Ada Lovelace <ada@example.com> wrote:`"""
    who = _named(original.sender[:1]) or "somebody"
    return f"On {moment(original.date, zone)}, {who} wrote:" if original.date else f"{who} wrote:"


def moment(date: datetime, zone: tzinfo | None) -> str:
    """In the time of the zone, else as its writer had it; without strftime, which speaks the process's language."""
    with suppress(OverflowError, ValueError):  # at the edge of the calendar
        date = date.astimezone(zone) if zone else date
    day = f"{_DAYS[date.weekday()]}, {date.day} {_MONTHS[date.month - 1]} {date.year}"
    return f"{day} at {date.hour:02}:{date.minute:02}"


def _header(original: Original, zone: tzinfo | None) -> list[tuple[str, str]]:
    fields = [
        ("From", _named(original.sender)),
        ("Date", moment(original.date, zone) if original.date else ""),
        ("Subject", original.subject),
        ("To", _named(original.to)),
        ("Cc", _named(original.cc)),
    ]
    return [(name, value) for name, value in fields if value]


def _named(boxes: Sequence[Mailbox]) -> str:
    shown = [f"{box.name} <{box.address}>" if box.name else f"<{box.address}>" for box in boxes[:MOST_NAMED]]
    return ", ".join(shown + [CUT] * (len(boxes) > MOST_NAMED))


def _lines(text: str) -> list[str]:
    """Paragraphs on one line are broken into lines; whatever is quoted already stays as it is."""
    lines: list[str] = []
    for line in text.split("\n"):
        if len(line) <= LINE or line.startswith(">"):
            lines.append(line.rstrip())
        else:
            lines += [piece.rstrip() for piece in _WORDS.findall(line)]
    return lines


def _marked(line: str) -> str:
    """The marks of several levels stand side by side (RFC 3676 4.5)."""
    return f">{line}" if line.startswith(">") or not line else f"> {line}"


def _html(original: Original, replaced: Replaced) -> str:
    if not original.html:
        return as_html(_shortened(original.text))
    return clean(original.html, replaced) + (CUT if len(original.html) > LONGEST else "")


def _shortened(text: str) -> str:
    text = text.strip("\n").rstrip()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}\n{CUT}"


def _above(mine: str, below: str) -> str:
    return f"{mine.rstrip()}\n\n{below}" if mine.strip() else below


def _inside(mine: str, below: str) -> str:
    """Before the end of my page, where it has one."""
    end = max((found.start() for found in _BODY_END.finditer(mine)), default=len(mine))
    return mine[:end] + below + mine[end:]
