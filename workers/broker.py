"""The dramatiq broker: what a lease travels through, from the scheduler to a worker."""

from __future__ import annotations

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from relay.core.model import Priority
from relay.settings import Settings

ANSWER_SECONDS = 5
QUEUES = {Priority.HIGH: "high", Priority.NORMAL: "normal", Priority.BULK: "bulk"}


class BrokerAway(Exception):
    """Redis cannot be reached, or is not ready."""


AWAY = (BrokerAway, BrokerConnectionError, redis.RedisError)
"""The same in everybody's words."""


def connect(settings: Settings) -> RedisBroker:
    """A broker with a queue for each priority and no middleware: leases do what retries and time limits would.

    A killed worker's messages come back by heartbeat and maintenance, but nothing depends on it.
    """
    client = redis.Redis.from_url(
        settings.redis_url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )
    broker: RedisBroker = RedisBroker(  # type: ignore[no-untyped-call]
        client=client,
        middleware=[],
        namespace="postferry",
        heartbeat_timeout=15_000,
        maintenance_chance=200_000,
    )
    for queue in QUEUES.values():
        broker.declare_queue(queue)
    broker.delay_queues.clear()  # nothing is delayed here: without them a worker has half as many threads that poll
    return broker


def fault(url: str) -> str:
    """What the library finds wrong with a URL before it dials; "" for nothing. What may be a password is left out."""
    try:
        with redis.Redis.from_url(url) as client:
            client.connection_pool.make_connection()
    except (ValueError, TypeError):
        return "has a parameter after ? that is unknown, or a value that it cannot have"
    return ""


def enqueue(broker: RedisBroker, lease: int, priority: Priority) -> None:
    """Hands a lease to the workers. Raises BrokerAway."""
    queue = QUEUES[priority]
    message: Message[None] = Message(
        queue_name=queue, actor_name=actor_name(priority), args=(lease,), kwargs={}, options={}
    )
    try:
        broker.enqueue(message)
    except redis.RedisError as error:
        raise BrokerAway(str(error)) from error


def actor_name(priority: Priority) -> str:
    """Each priority has an actor, since it is the actor's priority that orders the leases a worker holds."""
    return f"deliver_{priority.label}"
