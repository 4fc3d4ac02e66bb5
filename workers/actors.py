"""The actors: a lease's id in, one call."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from workers import broker as brokers


def declare(broker: RedisBroker, deliver: Callable[[int], None]) -> None:
    """One actor for each priority; a worker takes the leases of the smaller one first."""
    for priority, queue in brokers.QUEUES.items():
        name = brokers.actor_name(priority)
        dramatiq.actor(broker=broker, actor_name=name, queue_name=queue, priority=int(priority))(deliver)
