"""How much of what is still arriving is kept in memory: of everybody together, and of each tenant."""

from __future__ import annotations

from collections import Counter

MESSAGES = 16  # largest messages' worth


class Arrivals:
    """What one process keeps. A tenant may have half of what the others leave, so that no one of them takes it all."""

    def __init__(self, largest: int) -> None:
        self._most = MESSAGES * largest
        self._of: Counter[str] = Counter()
        self.held = 0

    def of(self, tenant: str | None) -> Arriving:
        """For one message or body. None: whoever speaks for the installation, and may have all that is left."""
        return Arriving(self, tenant)

    def keep(self, tenant: str | None, more: int) -> bool:
        """So many bytes more, or fewer; whether there is room for them."""
        self.held += more
        if tenant is None:
            return self.held <= self._most
        self._of[tenant] += more
        if not self._of[tenant]:
            del self._of[tenant]
        return self.held + self._of[tenant] <= self._most


class Arriving:
    """How much of one has arrived."""

    def __init__(self, arrivals: Arrivals, tenant: str | None) -> None:
        self._arrivals, self._tenant, self._held = arrivals, tenant, 0

    def __enter__(self) -> Arriving:
        return self

    def __exit__(self, *_: object) -> None:
        self.holds(0)

    def holds(self, size: int) -> bool:
        """Whether there is room for so much of it."""
        more, self._held = size - self._held, size
        return self._arrivals.keep(self._tenant, more)
