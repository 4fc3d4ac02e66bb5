"""A figure, and how good it has to be."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Values = dict[str, list[float]]
"""What was measured, by who was measured: one value a round."""


@dataclass
class Figure:
    """One figure of the table. `values` has a list for each contender; the first is ours."""

    name: str
    title: str
    unit: str
    values: Values
    bar: Bar | None = None
    notes: list[str] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)  # microseconds of CPU per copy, by role
    disturbed: float = 0.0  # share of the machine that others used in the worst round
    details: dict[str, Any] = field(default_factory=dict)  # for the JSON alone

    @property
    def medians(self) -> dict[str, float]:
        return {who: statistics.median(rounds) for who, rounds in self.values.items() if rounds}

    @property
    def ratio(self) -> float | None:
        """Ours against the other's."""
        ours, *others = self.medians.values()
        return ours / others[0] if others and others[0] else None

    @property
    def met(self) -> bool | None:
        """None: there is no bar, or nothing to hold it against."""
        return self.bar.judge(self) if self.bar else None


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach."""

    text: str
    judge: Callable[[Figure], bool | None]


def _ours(figure: Figure) -> float:
    return next(iter(figure.medians.values()))


def times_postfix(least: float) -> Bar:
    return Bar(f"at least {least:g}x Postfix", lambda figure: None if figure.ratio is None else figure.ratio >= least)


def at_least(least: float) -> Bar:
    return Bar(f"at least {least:,.0f}", lambda figure: _ours(figure) >= least)


def under(most: float) -> Bar:
    return Bar(f"under {most:,.0f}", lambda figure: _ours(figure) < most)


def flat_within(most: float) -> Bar:
    """Ours beside very much against ours beside little."""
    return Bar(f"within {most:g}x of few", lambda figure: None if figure.ratio is None else figure.ratio <= most)


def adds_under(most: float) -> Bar:
    """What ours has over the other."""

    def judge(figure: Figure) -> bool | None:
        ours, *others = figure.medians.values()
        return ours - others[0] < most if others else None

    return Bar(f"adds under {most:g}", judge)


def under_each(few: float, many: float) -> Bar:
    """Beside few, and beside very many where that was measured."""

    def judge(figure: Figure) -> bool | None:
        return all(value < most for value, most in zip(figure.medians.values(), (few, many), strict=False))

    return Bar(f"under {few:,.0f}, {many:,.0f}", judge)
