"""A list of addresses as CSV, read line by line: what may be taken, and what each other line is refused for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from relay.core import address, sheet
from relay.core.errors import Refused
from relay.core.model import Reason

MOST_LINES = 200_000
LONGEST_DETAIL = 1000
COLUMNS = ("address", "reason", "detail")
ADDRESS = ("address", "email", "recipient")  # as other senders' lists call it
REASONS: Sequence[Reason] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class Entry:
    """An address to be suppressed, and why."""

    address: str
    reason: Reason = "manual"
    detail: str = ""


@dataclass(slots=True)
class Roll:
    """What a file has: entries, faults as (line number, why), and the names of columns that mean nothing here."""

    entries: list[Entry] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def entry(to: str, reason: str = "", detail: str = "") -> Entry:
    """What is given, if it can be taken. Raises Refused."""
    why: Reason | None = next((one for one in REASONS if one == (reason or "manual").lower()), None)
    if why is None:
        raise Refused(f"The reason must be {', '.join(REASONS[:-1])} or {REASONS[-1]}", key="reason")
    if len(detail) > LONGEST_DETAIL:
        raise Refused(f"The detail is longer than {LONGEST_DETAIL} characters", key="detail")
    return Entry(address.envelope(to, "address"), why, detail)


def read(content: bytes) -> Roll:
    """The whole file, in UTF-8; its first line names the columns. Never raises."""
    roll = Roll()
    try:
        lines = sheet.read(content.decode("utf-8-sig"))
        number, names = next(lines, (1, []))
        columns = _columns(names, roll)
        if "address" not in columns.values():
            roll.faults.append((number, "The first line must name the columns, one of them address"))
            return roll
        for number, cells in lines:
            if len(roll.entries) + len(roll.faults) == MOST_LINES:
                roll.faults.append((number, f"More than {MOST_LINES} lines are not taken at once; split the file"))
                break
            _take(roll, number, columns, len(names), cells)
    except UnicodeDecodeError as error:
        roll.faults.append((content.count(b"\n", 0, error.start) + 1, "The file is not UTF-8 here"))
    except sheet.Broken as broken:
        roll.faults.append((broken.line, f"The file is not CSV from here on: {broken}"))
    return roll


def _columns(names: Sequence[str], roll: Roll) -> Mapping[int, str]:
    """Which cell of a line means what."""
    columns: dict[int, str] = {}
    for place, name in enumerate(names):
        word = "address" if name.strip().lower() in ADDRESS else name.strip().lower()
        if word in COLUMNS and word not in columns.values():
            columns[place] = word
        else:
            roll.ignored.append(name.strip())
    return columns


def _take(roll: Roll, number: int, columns: Mapping[int, str], width: int, cells: Sequence[str]) -> None:
    given = {word: sheet.meant(cells[place]).strip() for place, word in columns.items() if place < len(cells)}
    try:
        if len(cells) > width:
            raise Refused(f"There are {len(cells)} cells, where the first line names {width}")
        roll.entries.append(entry(given.pop("address", ""), **given))
    except Refused as refused:
        roll.faults.append((number, refused.message))
