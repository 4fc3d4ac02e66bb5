"""Rows as CSV (RFC 4180) that a spreadsheet opens as what it is: text stays text, whoever wrote it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from relay.core.options import spelled

TYPE = "text/csv"
JSON = "application/json"

# A cell that begins so is run as a formula, though blanks, marks that are not seen or a wide form come first. Where
# semicolons or tabs part the cells (a spreadsheet decides by its country), a cell begins in the middle of ours.
# Quotes there are no quotes of ours: they are taken off, and what they held begins the cell.
_BLANK = r"(?![\t\r\n])[\s\"\x00-\x1f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
_SIGN = r"[=+\-@\uff1d\uff0b\uff0d\uff20\u2212\ufe62\ufe63\ufe66\ufe6b]"
_FORMULA = re.compile(rf"(?:\A|(?<=[;\t\r\n]))(?=(?:{_BLANK})*+{_SIGN})|\A(?=[\t\r\n])")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+\Z")
_QUOTED = re.compile(r'[",;\t\r\n]|\A\s|\s\Z')


def line(values: Iterable[Any]) -> str:
    """One line, with its line end. Numbers stay numbers, None is empty, what is nested is JSON."""
    return ",".join(map(cell, values)) + "\r\n"


def cell(value: Any) -> str:
    """One cell, quoted where it must be."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case datetime():
            return spelled(value)
        case date():
            return value.isoformat()
        case str():
            text = harmless(value)
        case _:
            text = harmless(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def harmless(text: str) -> str:
    """The text, with an apostrophe before whatever a spreadsheet would take for a formula."""
    return _FORMULA.sub("'", text)


class Broken(Exception):
    """What is no CSV; `line` says where that showed."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def meant(cell: str) -> str:
    """What a cell of ours says: without the apostrophe that `harmless` put before it."""
    bare = cell[1:]
    return bare if cell.startswith("'") and harmless(bare).startswith("'") else cell


def read(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not empty, with its number from 1: where it ends. Raises Broken.

    Cells are parted by commas, or by semicolons or tabs where the first line has those and no comma.
    """
    first = text[:4096].partition("\n")[0]
    parts = next((mark for mark in ",;\t" if mark in first), ",")
    lines = csv.reader(_LINE.findall(text), delimiter=parts, strict=True)
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise Broken(lines.line_num, str(error)) from None
        if any(cell.strip() for cell in cells):
            yield lines.line_num, cells


def wanted(accept: str) -> bool:
    """Whether a client that sends this Accept rather has CSV than JSON. It must say so: `*/*` is no wish."""
    weights = _weights(accept)
    csv = weights.get(TYPE, 0.0)
    return csv > 0 and csv >= weights.get(JSON, 0.0)


def _weights(accept: str) -> Mapping[str, float]:
    """{"text/csv": 0.8} of an Accept field (RFC 9110, 12.5.1); what cannot be read weighs nothing."""
    found = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((value.removeprefix("q=") for value in parameters if value.startswith("q=")), "1")
        found[kind] = float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0
    return found
