"""How many may go now: a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.limits import Held, Usage, held_by, room


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage("a", connections=1, most=50, in_flight=0), 50),
        (Usage("a", connections=0, most=50, in_flight=50), 0),
        (Usage("a", connections=5, most=50, in_flight=0, windows=((60, 10, 0),)), 10),
        (Usage("a", connections=5, most=50, in_flight=4, windows=((60, 10, 3),)), 3),
        (Usage("a", connections=5, most=50, in_flight=4, windows=((60, 10, 3), (86400, 8, 3))), 1),
        (Usage("a", connections=5, most=50, in_flight=4, windows=((60, 10, 6),)), 0),
        (Usage("a", connections=5, most=50, in_flight=0, windows=((60, 3, 9),)), 0),  # the limit was lowered
        (Usage("a", connections=5, most=1, in_flight=0, windows=((60, 10, 0),)), 1),
    ],
)
def test_room_is_the_narrowest_of_connections_lease_and_windows(usage: Usage, expected: int) -> None:
    assert room(usage) == expected


@pytest.mark.parametrize(
    ("windows", "in_flight", "expected"),
    [
        (((60, 10, 10),), 0, [Held(60, 1)]),
        (((60, 10, 7),), 5, [Held(60, 3)]),
        (((60, 10, 9),), 0, []),
        (((60, 2, 2), (3600, 9, 2)), 0, [Held(60, 1)]),
    ],
)
def test_full_windows_say_how_many_slots_must_leave_them(
    windows: tuple[tuple[int, int, int], ...], in_flight: int, expected: list[Held]
) -> None:
    assert held_by(Usage("a", 1, 50, in_flight, windows)) == expected


WINDOWS = st.lists(
    st.tuples(st.sampled_from([60, 3600, 86400]), st.integers(1, 100), st.integers(0, 120)), max_size=3
).map(tuple)
USAGES = st.builds(Usage, st.just("a"), st.integers(-1, 5), st.integers(0, 60), st.integers(0, 120), WINDOWS)


@given(USAGES)
def test_what_is_claimed_passes_no_window_and_leaves_none_of_its_room(usage: Usage) -> None:
    claimed = room(usage)
    held = [used + usage.in_flight for _, _, used in usage.windows]
    assert 0 <= claimed <= usage.most
    assert all(
        claimed == 0 or count + claimed <= limit for count, (_, limit, _) in zip(held, usage.windows, strict=True)
    )
    if usage.connections > 0 and claimed < usage.most:
        assert any(count + claimed >= limit for count, (_, limit, _) in zip(held, usage.windows, strict=True))


@given(USAGES)
def test_nothing_goes_exactly_while_a_window_is_full(usage: Usage) -> None:
    could = usage.connections > 0 and usage.most > 0
    assert (could and room(usage) == 0) is (could and bool(held_by(usage)))


@given(USAGES)
def test_when_the_slots_that_are_needed_have_left_one_more_may_go(usage: Usage) -> None:
    needs = {one.seconds: one.need for one in held_by(usage)}
    assert all(need > 0 for need in needs.values())
    freed = tuple(
        (seconds, limit, max(0, limit - 1 - usage.in_flight) if used + usage.in_flight >= limit else used)
        for seconds, limit, used in usage.windows
    )
    left = [used + usage.in_flight - limit + 1 for _, limit, used in usage.windows if used + usage.in_flight >= limit]
    assert [one.need for one in held_by(usage)] == left
    if usage.in_flight == 0 and usage.connections > 0 and usage.most > 0:
        assert room(replace(usage, windows=freed)) >= 1
