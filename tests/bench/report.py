"""What the reader sees: progress while it runs, a picture of each figure, the table, bench.json."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.bars import Figure

WIDTH = 36  # of the longest bar
MET = {True: "met", False: "NOT MET", None: "-"}


class Progress:
    """One line that changes on a terminal; elsewhere, only what ends with a line feed."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self.terminal:
            line = f"  {text.rstrip()}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="\n" if text.endswith("\n") else "", file=sys.stderr, flush=True)
        elif text.endswith("\n"):
            print(f"  {text.rstrip()}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def heading(machine: dict[str, Any], postfix: str) -> str:
    """What ran, where and when."""
    m = machine
    return "\n".join(
        [
            f"Postferry bench, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {m['commit']}; Postfix: {postfix}",
            f"{m['cores']} cores ({m['cpu']}), {m['memory_mb'] / 1024:.0f} GB, {m['kernel']}, Python {m['python']}",
            f"{m['filesystem']} on {m['disk']}: fsync {m['fsync_ms_p50']:.2f} ms median, "
            f"{m['fsync_ms_p99']:.2f} ms p99; load average {m['load_before']:.1f} before the start",
            "",
        ]
    )


def picture(figure: Figure) -> str:
    """A figure as bars, one for each contender."""
    longest = max(figure.medians.values())
    lines = [f"{figure.title}" + (f"   [{figure.bar.text}: {MET[figure.met]}]" if figure.bar else "")]
    for who, value in figure.medians.items():
        length = round(value / longest * WIDTH) if longest else 0
        spread = figure.values[who]
        rounds = f"  ({number(min(spread))} to {number(max(spread))})" if len(spread) > 1 else ""
        lines.append(f"  {who:<18} {number(value) + figure.unit:>11}  {'█' * max(length, 1)}{rounds}")
    if figure.cpu:
        used = " · ".join(f"{role} {microseconds:.0f}" for role, microseconds in figure.cpu.items())
        lines.append(f"  {'CPU us per copy':<18} {used}")
    return "\n".join([*lines, *(f"  {note}" for note in figure.notes), ""])


def table(figures: Sequence[Figure]) -> str:
    """All figures, one line each, and whether they reach their bar."""
    rows = [("", "ours", "other", "ratio", "bar", "")]
    for figure in figures:
        ours, *others = (number(value) + figure.unit for value in figure.medians.values())
        ratio = f"{figure.ratio:.2f}x" if figure.ratio is not None else ""
        bar = figure.bar.text if figure.bar else ""
        rows.append(
            (figure.title, ours, others[0] if others else "", ratio, bar, MET[figure.met] if figure.bar else "")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<>>><<", widths, strict=True))
    return "\n".join(shape.format(*row).rstrip() for row in rows)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write(file: Path, figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """bench.json: everything the table says, and each round."""
    rows = []
    for figure in figures:
        row = {
            name: getattr(figure, name)
            for name in ("name", "title", "unit", "values", "notes", "cpu", "disturbed", "details")
        }
        bar = figure.bar.text if figure.bar else None
        rows.append(row | {"medians": figure.medians, "ratio": figure.ratio, "bar": bar, "met": figure.met})
    whole = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **about, "figures": rows}
    file.write_text(json.dumps(whole, indent=2) + "\n")
