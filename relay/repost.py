"""Post events again: those that are named, those of a time, those that failed; or a test. Bounded for each call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relay import subscribe
from relay.core import endpoint as settings_of
from relay.core.account import Faulty
from relay.core.errors import Refused
from relay.core.vault import Vault
from relay.store import replays
from relay.store.db import Connection
from relay.store.endpoints import Endpoint
from relay.store.postlog import Filter

AT_ONCE = 10_000  # postings after which a call ends
STEPS = 20  # ... or statements, each of which looks through as many events
BEGINNING = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is posted again: the events of `ids`; or what failed for good; or, by default, the events of a time.

    `types` empty: whatever the endpoint is subscribed to. The end of the time is not included.
    """

    ids: tuple[int, ...] = ()
    failed: bool = False
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


async def repost(
    conn: Connection, vault: Vault, id: int, account: str | None, wish: Wish, now: datetime, after: Any = None
) -> tuple[int, Any]:
    """How many postings it made or revived, and where to go on (`after` of the next call); None: that was all.

    Raises Refused: 404, or 409 while the endpoint is disabled; Faulty for types that it does not take.
    """
    total = 0
    for _ in range(STEPS):
        async with conn.transaction():
            count, after = await _step(conn, await _ready(conn, vault, id, account), wish, now, after)
        total += count
        if after is None or total >= AT_ONCE:
            break
    return total, after


async def absent(conn: Connection, vault: Vault, id: int, account: str | None, wish: Wish) -> list[int]:
    """The named events that this endpoint cannot be posted: not there, another account's, not subscribed to."""
    return await replays.absent(conn, await subscribe.found(conn, vault, id, account), wish.ids) if wish.ids else []


async def test(conn: Connection, vault: Vault, id: int, account: str | None) -> tuple[int, int]:
    """Have a test event posted to this endpoint alone: ids of event and posting. Raises Refused as `repost`."""
    return await replays.test(conn, await _ready(conn, vault, id, account))


async def _ready(conn: Connection, vault: Vault, id: int, account: str | None) -> Endpoint:
    one = await subscribe.found(conn, vault, id, account, lock=True)
    if not one.active:
        why = f" ({one.reason})" if one.reason else ""
        raise Refused(f"This endpoint is disabled{why}; enable it first", status=409, code="EndpointDisabled")
    return one


async def _step(conn: Connection, one: Endpoint, wish: Wish, now: datetime, after: Any) -> tuple[int, Any]:
    if wish.ids:
        return await replays.named(conn, one, wish.ids), None
    types = _types(one, wish.types)
    if wish.failed:
        span = Filter(one.id, state="failed", since=wish.since, until=wish.until)
        return await replays.failed(conn, one, types if wish.types else (), span, after)
    return await replays.between(conn, one, types, wish.since or BEGINNING, wish.until or now, after)


def _types(one: Endpoint, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The types that are wanted; those of the endpoint when none are named."""
    try:
        types: tuple[str, ...] = settings_of.READERS["events"](wanted)
    except ValueError as fault:
        raise Faulty([("events", str(fault))], "The replay") from None
    others = [name for name in types if one.events and name not in one.events]
    if others:
        raise Faulty([("events", f"has {others[0]}, which this endpoint is not subscribed to")], "The replay")
    return types or one.events
