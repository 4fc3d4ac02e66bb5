"""CSV that reads back as it was, and that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.sheet import Broken, cell, harmless, line, meant, read, wanted

CELLS: list[tuple[Any, str]] = [
    (None, ""),
    (True, "true"),
    (False, "false"),
    (-5, "-5"),
    (1.25, "1.25"),
    ("", ""),
    ("plain", "plain"),
    ("Grüße 日本", "Grüße 日本"),
    ("a,b", '"a,b"'),
    ('say "x"', '"say ""x"""'),
    ("two\r\nlines", '"two\r\nlines"'),
    ("a;b", '"a;b"'),
    (" padded", '" padded"'),
    (datetime(2026, 11, 20, 9, 30, tzinfo=UTC), "2026-11-20T09:30:00.000Z"),
    (date(2026, 11, 20), "2026-11-20"),
    ({"person": 2}, '"{""person"":2}"'),
]

FORMULAS = [
    ("=1+1", "'=1+1"),
    ("+49 30 1", "'+49 30 1"),
    ("-5", "'-5"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t'=1"),
    ("\rx", "'\rx"),
    ("\nx", "'\nx"),
    ("  =1", "'  =1"),
    ("\N{NO-BREAK SPACE}=1", "'\N{NO-BREAK SPACE}=1"),
    ("\N{ZERO WIDTH NO-BREAK SPACE}=1", "'\N{ZERO WIDTH NO-BREAK SPACE}=1"),
    ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
    ("\N{FULLWIDTH COMMERCIAL AT}x", "'\N{FULLWIDTH COMMERCIAL AT}x"),
    ("x;=1", "x;'=1"),
    ("x; =1", "x;' =1"),
    ("x\t=1", "x\t'=1"),
    ("x\n=1", "x\n'=1"),
]
HARMLESS = ["ada@example.com", "1-2", "a = b", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "'=1", "", "2026-11-20"]

ACCEPTS = [
    ("text/csv", True),
    ("TEXT/CSV; header=present", True),
    ("text/csv;q=0.5, */*;q=0.1", True),
    ("application/json, text/csv", True),
    ("application/json, text/csv;q=0.9", False),
    ("text/csv;q=0", False),
    ("text/csv;q=much", False),
    ("*/*", False),
    ("text/*", False),
    ("application/json", False),
    ("", False),
]


@pytest.mark.parametrize(("value", "text"), CELLS)
def test_a_cell_is_written(value: Any, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(("text", "safe"), FORMULAS)
def test_a_formula_becomes_text(text: str, safe: str) -> None:
    assert harmless(text) == safe


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_formula_stays(text: str) -> None:
    assert harmless(text) == text


@given(st.lists(st.text(), min_size=2))
def test_a_line_reads_back(values: list[str]) -> None:
    written = line(values)
    assert written.endswith("\r\n")
    values = [value.replace("\0", "") for value in values]  # Python's reader leaves them out, not we
    assert next(csv.reader([written.replace("\0", "")])) == [harmless(value) for value in values]


@given(st.text(alphabet=";\t\r\n =+-@x\ufeff＝"))
def test_no_cell_of_any_reading_begins_a_formula(text: str) -> None:
    """Whether a spreadsheet parts cells at commas, semicolons, tabs or line ends."""
    for part in harmless(text).replace(";", "\n").replace("\t", "\n").replace("\r", "\n").split("\n"):
        assert not part.lstrip(" \ufeff").startswith(("=", "+", "-", "@", "＝"))


@given(st.text(alphabet='";,\t\r\n =x\xad'), st.sampled_from(",;\t"))
def test_no_cell_begins_a_formula_once_its_quotes_are_off(text: str, parted_at: str) -> None:
    written = line(["a", text, "z"])
    rows = csv.reader(io.StringIO(written, newline=""), delimiter=parted_at)
    assert not [part for row in rows for part in row if part.lstrip(" \xad\t\r\n").startswith("=")]


def test_a_long_row_of_blanks_is_read_once() -> None:
    assert harmless((" " * 1000 + ";") * 1000).count("'") == 0


@pytest.mark.parametrize(("accept", "csv_is_wanted"), ACCEPTS)
def test_who_asks_for_csv_gets_it(accept: str, csv_is_wanted: bool) -> None:
    assert wanted(accept) is csv_is_wanted


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20), min_size=1, max_size=4))
def test_what_we_write_is_read_as_it_was_written(texts: list[str]) -> None:
    ours = [harmless(text) for text in texts]
    found = list(read(line(["a"] * len(texts)) + line(texts)))[1:]
    assert found == ([(found[0][0], ours)] if any(text.strip() for text in ours) else [])


@pytest.mark.parametrize("text", ["=1+1", "+49 30", "-", "@home", "plain", "", "it's", "'", "'quoted'"])
def test_a_cell_is_meant_as_it_was(text: str) -> None:
    assert meant(harmless(text)) == text


def test_lines_are_numbered_as_an_editor_does() -> None:
    text = 'a;b\r\n\r\n"two\nlines";x\n;\nlast;'
    assert list(read(text)) == [(1, ["a", "b"]), (4, ["two\nlines", "x"]), (6, ["last", ""])]


@pytest.mark.parametrize(("text", "at"), [('a,b\n"x', 2), ('a,b\n"x"y\n', 2), ("a\n" + "x" * 200_000, 2)])
def test_what_is_no_csv_is_told_with_its_line(text: str, at: int) -> None:
    with pytest.raises(Broken) as broken:
        list(read(text))
    assert broken.value.line == at
