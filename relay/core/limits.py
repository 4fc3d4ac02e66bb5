"""How many deliveries an account may send now, and which window holds the rest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What the claim knows of an account. `windows`: (seconds, limit, used) for each sliding limit that is set."""

    account: str
    connections: int  # still free
    most: int  # deliveries one lease may hold
    in_flight: int  # claimed, outcome not known yet
    windows: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """The window that is full: `need` of its slots must leave it before one more delivery may go."""

    seconds: int
    need: int


def share(free: int) -> int:
    """Leases that any one account may have, of so many that are free: a quarter, or five, whatever it asks for.

    The fuller a worker's hands, the fewer: some stay free for accounts that have none, though several have servers that
    hang.
    """
    return max(5, free // 4)


def room(usage: Usage) -> int:
    """Deliveries that may be claimed now. What is in flight holds a slot of every window."""
    if usage.connections <= 0:
        return 0
    free = (limit - used - usage.in_flight for _, limit, used in usage.windows)
    return max(0, min([usage.most, *free]))


def held_by(usage: Usage) -> list[Held]:
    """The windows that are full. The last of them to free a slot lets mail flow again."""
    return [
        Held(seconds, used + usage.in_flight - limit + 1)
        for seconds, limit, used in usage.windows
        if used + usage.in_flight >= limit
    ]
