"""Redis being away, told to operators: at once, and again every minute while it lasts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from workers import broker

log = logging.getLogger("postferry.redis")

AGAIN = 60.0  # s
THEIRS = ("dramatiq.worker.Worker", *(f"dramatiq.worker.ConsumerThread({queue})" for queue in broker.QUEUES.values()))
"""The loggers on which dramatiq tells of every try: that of each queue, every three seconds, as critical."""


class Outage:
    """What one process says of it. As a filter it takes dramatiq's lines about it, and says the same seldom."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = float("-inf")
        self._lock = threading.Lock()  # each of dramatiq's queues has a thread

    def tell(self, error: BaseException) -> None:
        with self._lock:
            if self._clock() < self._quiet_until:
                return
            self._quiet_until = self._clock() + AGAIN
        log.warning(
            "Redis cannot be reached, or refuses us: %s. Mail is accepted, and waits until it is back; "
            "is it running, and does REDIS_URL name it?",
            str(error).rstrip("."),
        )

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.args if isinstance(record.args, tuple) else ()
        for error in (*told, record.exc_info[1] if record.exc_info else None):
            if isinstance(error, broker.AWAY):
                self.tell(error)
                return False
        return True

    def listen(self) -> None:
        """To dramatiq, from now on."""
        for name in THEIRS:
            logging.getLogger(name).addFilter(self)
