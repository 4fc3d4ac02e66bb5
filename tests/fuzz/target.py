"""A fuzz target: what may be done to some bytes, and what must hold whatever they are."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

STRETCHED = 100_000  # bytes that a stretched input comes to
MARK = b"\xfe"  # around what is repeated
MOST_CPU = 4.0  # s for one input; instrumented code is slow, and what is not linear takes minutes
LONG = "-long"


class TooSlow(AssertionError):
    """An input that takes more time than its size explains."""


@dataclass(frozen=True)
class Target:
    """`check` raises what is wrong with the bytes; its first line of documentation says what it holds to.

    Each has a twin of the same name and `-long`, whose inputs are stretched: they show what large ones cost.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes] = ()
    longest: int = 4096
    share: float = 1  # of the time, beside the others
    long: bool = False

    def run(self, data: bytes) -> None:
        """The check, within its time. Raises what is wrong."""
        given = stretched(data) if self.long else data
        begun = time.process_time()
        self.check(given)
        taken = time.process_time() - begun
        if taken > MOST_CPU:
            raise TooSlow(f"{taken:.1f} s for {len(given)} bytes")

    @property
    def own_seeds(self) -> list[bytes]:
        """Those with something to stretch, or those without."""
        return [seed for seed in self.seeds() if (seed.count(MARK) == 2) is self.long]


HOMES = {
    "session": "sessions",
    "splice": "splices",
    "report": "reading",
    "original": "reading",
    "address": "addresses",
    "tokens": "tokens",
    "tidy": "tidying",
    "thread": "quoting",
    "cleaning": "quoting",
}
"""Targets by name, and the file that each is in: a driver must instrument what it imports, so it imports one alone."""

NAMES = tuple(name + twin for name in HOMES for twin in ("", LONG))


def named(name: str) -> Target:
    """The target, or its twin. Raises KeyError."""
    short = name.removesuffix(LONG)
    module = importlib.import_module(f"tests.fuzz.{HOMES[short]}")
    target = next(target for target in module.TARGETS if target.name == short)
    return replace(target, name=name, share=target.share / 4, long=True) if name != short else target


def one_line(text: str) -> None:
    """It stands on one line, can be stored, and is Unicode."""
    assert len(text.splitlines()) <= 1, f"more than one line: {text!r}"
    assert "\0" not in text, f"a NUL: {text!r}"
    text.encode()


def stretched(data: bytes) -> bytes:
    """What stands between two marks, many times."""
    before, _, rest = data.partition(MARK)
    middle, second, after = rest.partition(MARK)
    if not second or not middle:
        return data
    return before + middle * max(1, (STRETCHED - len(before) - len(after)) // len(middle)) + after
