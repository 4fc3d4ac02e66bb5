"""Series of a soak, and whether each stays as flat as it has to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench import proof, report

EDGE = 0.2  # of what is judged: the beginning and the end that are held against each other
MEMORY, SMALL = 1.05, 2.0  # times, or MB more: a role of 8 MB may not be blamed for one
SLOWER = {"p50": (1.25, 5.0), "p99": (1.5, 20.0)}  # times, or ms more
BOUNDED, ROOM = 1.5, 4.0  # times, or MB more, of what has to stay small
DEAD, AUTOVACUUM = 0.2, 50_000  # of the table's rows, or rows


@dataclass
class Series:
    """What was seen, and when (seconds from the beginning)."""

    kind: str
    name: str
    unit: str
    at: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        self.at.append(at)
        self.values.append(value)

    def after(self, warm: float) -> list[float]:
        return [value for at, value in zip(self.at, self.values, strict=True) if at >= warm] or self.values[-1:]


@dataclass(frozen=True)
class Line:
    """One series judged: how it was when warm, and at the end."""

    what: str
    first: str
    last: str
    change: str
    bar: str
    met: bool | None
    picture: str

    def row(self) -> proof.Row:
        return (self.what, self.first, self.last, self.change, self.bar, report.MET[self.met], self.picture)


HEAD = Line("", "warm", "at the end", "change", "bar", None, "from the beginning")


def judged(series: Sequence[Series], warm: float) -> list[Line]:
    """The head of the table, and a line for each."""
    rows = next((one for one in series if one.kind == "rows"), None)
    lines = [_line(one, warm, max(rows.after(warm)) if rows else 0.0) for one in series]
    return [_Head(*vars(HEAD).values()), *sorted(lines, key=lambda line: line.met is None)]


class _Head(Line):
    def row(self) -> proof.Row:
        return (self.what, self.first, self.last, self.change, self.bar, "", self.picture)


def _line(one: Series, warm: float, rows: float) -> Line:
    values = one.after(warm)
    edge = max(int(len(values) * EDGE), 1)
    first, last = statistics.mean(values[:edge]), statistics.mean(values[-edge:])
    bar, met = _verdict(one, first, last, values, rows)
    change = f"{last / first - 1:+.1%}" if first >= 1 else ""
    what = f"{one.kind} {one.name}".strip()
    return Line(what, _spoken(first, one.unit), _spoken(last, one.unit), change, bar, met, proof.chart(one.values))


def _spoken(value: float, unit: str) -> str:
    return f"{value:,.0f} rows" if unit == "rows" else f"{report.number(value)} {unit}".replace(" /s", "/s")


def _verdict(one: Series, first: float, last: float, values: list[float], rows: float) -> tuple[str, bool | None]:
    """What it has to keep to, and whether it does. PostgreSQL fills the cache that it is given: it is told alone."""
    match one.kind, one.name:
        case "memory", name if name != "postgres":
            return f"{MEMORY - 1:.0%} or {SMALL:.0f} MB more", last <= max(first * MEMORY, first + SMALL)
        case "latency", name:
            times, more = SLOWER[name]
            return f"{times}x or {more:.0f} ms more", last <= max(first * times, first + more)
        case "size", "leases" | "tallies" | "indexes of the queue":
            most = max(values[len(values) // 2 :])
            return f"never {BOUNDED}x or {ROOM:.0f} MB more", most <= max(first * BOUNDED, first + ROOM)
        case "dead", "deliveries":
            return f"{DEAD:.0%} of the rows, or {AUTOVACUUM:,}", max(values) <= max(DEAD * rows, AUTOVACUUM)
        case "dead", _:
            return f"{AUTOVACUUM:,}", max(values) <= AUTOVACUUM
    return "", None
