"""How long to wait before a delivery is tried again."""

from __future__ import annotations

from collections.abc import Callable

SPREAD = 0.25  # a crowd that failed together must not come back together
MOST_DOUBLINGS = 60


def wait(attempt: int, *, first: float, most: float, rng: Callable[[], float], floor: float | None = None) -> float:
    """Seconds after try number `attempt` (from 1): `first`, doubled each time up to `most`, spread by a quarter.

    `rng` gives numbers in [0, 1). `floor` is what the reply itself asks for (greylisting, throttling): never
    sooner, and it may be longer than `most`.
    """
    doubled = min(most, first * 2.0 ** min(max(attempt - 1, 0), MOST_DOUBLINGS))
    spread = min(most, doubled * (1 - SPREAD + 2 * SPREAD * rng()))
    return max(spread, (floor or 0.0) * (1 + SPREAD * rng()))
