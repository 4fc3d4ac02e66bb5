"""Slows those who guess tokens: so many refusals a minute from one address, then none are looked up."""

from __future__ import annotations

from collections.abc import Callable

from api.problems import too_many

MOST = 20  # refused tokens ...
SECONDS = 60  # ... in so long, from one address
REMEMBERED = 10_000  # addresses


class Throttle:
    """Counts refused tokens by client address, in windows that begin with the first of them.

    An address over the limit is answered 429 unless its token was known here a moment ago: many clients can share an
    address, and one that guesses must not shut the others out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[float, int]] = {}

    def check(self, address: str) -> None:
        """Raises the 429 when this address has no tries left."""
        begun, count = self._window(address)
        if count >= MOST:
            left = max(1, round(begun + SECONDS - self._clock()))
            words = f"Too many refused tokens from this address; try again in {left} seconds"
            raise too_many(words, code="TooManyRefusals", most=MOST, seconds=left)

    def count(self, address: str) -> None:
        """One more refused token."""
        begun, count = self._window(address)
        self._refused[address] = (begun, count + 1)
        if len(self._refused) > REMEMBERED:
            del self._refused[next(iter(self._refused))]

    def _window(self, address: str) -> tuple[float, int]:
        now = self._clock()
        begun, count = self._refused.get(address, (now, 0))
        return (begun, count) if now - begun < SECONDS else (now, 0)
