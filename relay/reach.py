"""Whether this process reaches the world: upstreams that it does not reach, and others have reached a moment ago."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

ENOUGH = 3  # different ones in a row; of fewer one may be full, or have an address here that is none
FRESH = 60.0  # s that one counts: where nobody gets through any more, it is the upstreams after all

log = logging.getLogger("postferry.deliver")


class Reach:
    """What one process knows of it. A single host, which nobody else sends beside, never takes itself for cut off."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._missed: dict[str, float] = {}  # by their labels; when
        self._told = False

    @property
    def cut(self) -> bool:
        """It reaches none of several that others reach."""
        since = self._clock() - FRESH
        return sum(at > since for at in self._missed.values()) >= ENOUGH

    def missed(self, upstream: str) -> None:
        """Others reach this one, and we do not."""
        now = self._clock()
        self._missed = {other: at for other, at in self._missed.items() if at > now - FRESH} | {upstream: now}
        if self.cut and not self._told:
            self._told = True
            log.error(
                "this host seems cut off: it reaches no upstream, and others do; it takes few leases until it does"
            )

    def reached(self) -> None:
        """Somebody answered."""
        if self._told:
            log.warning("this host reaches upstreams again")
        self._missed.clear()
        self._told = False
