"""Whether a process reaches the world, by what it missed."""

from __future__ import annotations

from relay.reach import ENOUGH, FRESH, Reach


def test_several_different_ones_are_missed_until_one_answers() -> None:
    reach = Reach(lambda: 0.0)
    for _ in range(9):
        reach.missed("a:25")
    assert not reach.cut
    for name in range(ENOUGH):
        reach.missed(f"{name}:25")
    assert reach.cut
    reach.reached()
    assert not reach.cut


def test_what_was_missed_long_ago_counts_no_more() -> None:
    """Where nobody gets through any more, nobody says that others do."""
    now = [0.0]
    reach = Reach(lambda: now[0])
    for name in range(ENOUGH):
        reach.missed(f"{name}:25")
    now[0] = FRESH
    assert not reach.cut


def test_what_was_missed_long_ago_is_forgotten() -> None:
    """Tenants may name ever new upstreams."""
    now = 0.0
    reach = Reach(lambda: now)
    for name in range(100):
        reach.missed(f"{name}:25")
        now += FRESH / 10
    assert len(reach._missed) == 10
