"""The transition table against the design's lines."""

from __future__ import annotations

import pytest

from relay.core.model import TRANSITIONS, Priority, State, sources
from relay.core.tenant import Limits


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_only_failed_mail_comes_back_from_an_end() -> None:
    ends = {state for state in State if not TRANSITIONS[state] & {State.LEASED, State.CANCELLED}} - {State.LEASED}
    assert {state for state in ends if TRANSITIONS[state] - ends} == {State.FAILED}


def test_what_is_leased_cannot_be_cancelled() -> None:
    assert State.LEASED not in sources(State.CANCELLED)


@pytest.mark.parametrize("name", ["HIGH", " bulk ", "normal"])
def test_priorities_are_read_kindly(name: str) -> None:
    assert Priority.named(name).label == name.strip().lower()


def test_an_unknown_priority_names_the_known() -> None:
    with pytest.raises(ValueError, match="high, normal or bulk"):
        Priority.named("urgent")


def test_windows_are_those_that_are_set() -> None:
    assert Limits(per_minute=3, per_day=9).windows == ((60, 3), (86400, 9))
