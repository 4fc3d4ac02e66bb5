"""What SQL of several files says alike: the states after sending, written out as indexes are partial; first counts."""

from __future__ import annotations

from collections.abc import Iterable

from relay.core.model import DELIVERED as TAKEN
from relay.core.model import State


def _among(states: Iterable[State]) -> str:
    return f"in ({', '.join(repr(state.value) for state in states)})"


DELIVERED = _among(TAKEN)
"""Upstream took it."""

DONE = _among((*TAKEN, State.FAILED))
"""It has an outcome."""

FIRST_COUNT = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
"""Where the count of an account's row begins, by which somebody at work knows his own: past all that an account of the
same id, removed meanwhile, can have come to."""
