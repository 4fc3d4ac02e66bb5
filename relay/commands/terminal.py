"""What a person at the terminal sees: colour where there is one, tables, marks, and errors that say what to do."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TextIO

USAGE, DATA, UNAVAILABLE, SOFTWARE, TEMPFAIL, NOPERM, CONFIG = 64, 65, 69, 70, 75, 77, 78  # sysexits.h
DEFAULT_DATA = ".postferry"
FOLDER = ContextVar("FOLDER", default=DEFAULT_DATA)
"""The data folder that the command runs over."""
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "36"}


class Stop(Exception):
    """The command cannot go on: what is wrong, what to do about it, and the exit code."""

    def __init__(self, message: str, advice: str = "", code: int = DATA) -> None:
        super().__init__(message)
        self.message, self.advice, self.code = message, advice, code


def paint(text: str, colour: str, out: TextIO | None = None) -> str:
    """`text` in a colour where `out` (stdout) is a terminal that wants it, else as it is."""
    out = out or sys.stdout
    wanted = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if wanted else text


MARKS = {
    "ok": ("✓", "green"),
    "failed": ("✗", "red"),
    "warning": ("!", "yellow"),
    "skipped": ("-", "dim"),
    "busy": ("…", "blue"),
}


def mark(state: str, out: TextIO | None = None) -> str:
    """✓ ✗ ! - …, or `ok`, `failed` … where the terminal has no such characters."""
    out = out or sys.stdout
    sign, colour = MARKS[state]
    try:
        sign.encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        sign = state
    return paint(sign, colour, out)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; the last one as long as it is. Numbers stand right."""
    texts = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *texts]) for i in range(len(head))]
    right = [
        bool(texts) and all(row[i].replace(".", "").isdigit() or row[i] in ("", "-") for row in texts)
        for i in range(len(head))
    ]

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, right, strict=True)
        return "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in pairs
        ).rstrip()

    return "\n".join([paint(line([name.upper() for name in head]), "dim"), *(line(row) for row in texts)])


def clean(text: str) -> str:
    """Somebody else's text on one line: an upstream's reply must not steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def note(text: str) -> None:
    """A remark beside the result: on stderr, so that stdout can be piped."""
    print(text, file=sys.stderr)


def complain(message: str, advice: str = "") -> None:
    """An error, and what to do about it."""
    print(f"{paint('postferry:', 'red', sys.stderr)} {message}", file=sys.stderr)
    for line in advice.splitlines():
        print(f"  {line}", file=sys.stderr)


def paste(command: str) -> str:
    """A command to paste, over the same data folder as the one that tells it."""
    folder = FOLDER.get()
    return f"postferry {command}" + ("" if folder == DEFAULT_DATA else f" --data {shlex.quote(folder)}")


def nearest(word: str, words: Collection[str]) -> str:
    """`; did you mean 'list'?` for a slip of the pen, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, words, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def span(seconds: float) -> str:
    """12 ms, 3.4 s, 5 min, 2 h, 3 days."""
    for most, unit, size in ((1, "ms", 0.001), (100, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < most:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "s" else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


class Help(argparse.HelpFormatter):
    """Paragraphs fill the line, what is indented (tables, examples) stays as it is, headings stand out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(shutil.get_terminal_size().columns, 100) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith("  ") else textwrap.fill(line, width) for line in lines)

    def start_section(self, heading: str | None) -> None:
        super().start_section(paint(heading, "bold") if heading else heading)


class Parser(argparse.ArgumentParser):
    """argparse whose errors end with 64 and the way to the help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "formatter_class": Help, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        complain(message, f"see: {self.prog} --help")
        sys.exit(USAGE)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What is left over is told here, where it was not understood, and not by the command above."""
        known, over = super().parse_known_args(args, namespace)
        if over:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            near = nearest(over[0].partition("=")[0], options) if over[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(map(clean, over))}{near}")
        return known, over

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = nearest(str(value), choices)
            if isinstance(action, argparse._SubParsersAction):
                there = f"there are: {', '.join(choices)}"
                raise argparse.ArgumentError(None, f"there is no command {value!r}{near or ';'} {there}") from None
            error.message += near
            raise


def seconds(text: str) -> float:
    """For `type=`: how long to wait; 0 looks once."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def count(text: str) -> int:
    """For `type=`: how many, one at least."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


Run = Callable[[argparse.Namespace], int]


def describe(parser: argparse.ArgumentParser, run: Run, text: str, *examples: str) -> None:
    """Give a command its description, its examples, `--data`, and the function that does it."""
    parser.description = text
    parser.epilog = f"{paint('examples', 'bold')}:\n" + "\n".join(map(example, examples))
    parser.add_argument(
        "--data", metavar="DIR", default=DEFAULT_DATA, help=f"data folder of `postferry up` (default {DEFAULT_DATA})"
    )
    parser.set_defaults(run=run)


def example(command: str) -> str:
    """As a shell reads it, on lines of 80 characters: broken in front of an option or what is done with the output."""
    first, *rest = re.findall(r"(?:'[^']*'|[^' ]| (?!--|[|>] ))+", command)
    lines = [f"  postferry {first}"]
    for piece in rest:
        if len(lines[-1]) + len(piece) > 77:  # with the blank before it and what is behind it
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {piece}"
    return "\n".join(lines)


def choose(parser: argparse.ArgumentParser) -> Any:
    """A command with subcommands: where to add them. Called without one, it shows them."""

    def show(args: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return USAGE

    parser.set_defaults(run=show)
    return parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
