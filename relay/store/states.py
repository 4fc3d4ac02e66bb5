"""The states after sending, as SQL asks for them: written out, since indexes are partial."""

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
