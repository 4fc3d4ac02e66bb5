"""Waits double, spread, and keep what the reply asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.backoff import wait

MIDDLE, LOWEST, HIGHEST = (lambda: 0.5), (lambda: 0.0), (lambda: 0.999999)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(0, 60), (1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (50, 3600), (100_000, 3600)]
)
def test_each_wait_is_twice_the_last_up_to_the_most(attempt: int, seconds: float) -> None:
    assert wait(attempt, first=60, most=3600, rng=MIDDLE) == pytest.approx(seconds)


def test_waits_are_spread_by_a_quarter() -> None:
    assert wait(1, first=60, most=3600, rng=LOWEST) == pytest.approx(45)
    assert wait(1, first=60, most=3600, rng=HIGHEST) == pytest.approx(75, abs=0.01)


def test_the_spread_never_passes_the_most() -> None:
    assert wait(20, first=60, most=3600, rng=HIGHEST) == 3600


def test_the_floor_is_kept_and_spread_upwards() -> None:
    assert wait(1, first=60, most=3600, rng=LOWEST, floor=300) == 300
    assert wait(1, first=60, most=3600, rng=HIGHEST, floor=300) == pytest.approx(375, abs=0.01)


def test_the_floor_may_be_longer_than_the_most() -> None:
    assert wait(1, first=60, most=3600, rng=LOWEST, floor=7200) == 7200


def test_a_floor_below_the_backoff_changes_nothing() -> None:
    assert wait(5, first=60, most=3600, rng=MIDDLE, floor=10) == pytest.approx(960)


SECONDS = st.floats(0.001, 1e6)


@given(st.integers(0, 10**9), SECONDS, SECONDS, st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e6))
def test_no_wait_is_shorter_than_what_the_reply_asks_for_or_longer_than_anything_allows(
    attempt: int, first: float, most: float, chance: float, floor: float | None
) -> None:
    seconds = wait(attempt, first=first, most=most, rng=lambda: chance, floor=floor)
    assert (floor or 0.0) <= seconds <= max(most, 1.25 * (floor or 0.0))
    assert seconds >= min(first, most) * 0.75 * (1 - 1e-9)


@given(st.integers(1, 200), SECONDS, SECONDS, st.floats(0, 1, exclude_max=True))
def test_a_later_try_never_waits_for_less(attempt: int, first: float, most: float, chance: float) -> None:
    waits = [wait(one, first=first, most=most, rng=lambda: chance) for one in (attempt, attempt + 1)]
    assert waits[0] <= waits[1]
