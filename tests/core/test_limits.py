"""How many may go now: a table."""

from __future__ import annotations

import pytest

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
