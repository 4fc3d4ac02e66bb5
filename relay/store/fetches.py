"""Pixel fetches, as they came."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from relay.store.db import Connection

LONGEST_AGENT = 1000


@dataclass(frozen=True, slots=True)
class Fetch:
    delivery: int
    method: str
    address: str
    user_agent: str


async def insert(conn: Connection, batch: Sequence[Fetch]) -> int:
    """Keep those whose delivery is still there; tells how many."""
    result = await conn.execute(
        """
        insert into fetches (delivery_id, account_id, method, address, user_agent)
        select f.delivery, account_id, f.method, f.address::inet, f.agent
        from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) as f(delivery, method, address, agent)
        join deliveries on deliveries.id = f.delivery
        """,
        (
            [fetch.delivery for fetch in batch],
            [fetch.method for fetch in batch],
            [_address(fetch.address) for fetch in batch],
            [_agent(fetch.user_agent) for fetch in batch],
        ),
    )
    return result.rowcount


def _address(text: str) -> str | None:
    """What `inet` can hold, without an interface's name."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def _agent(text: str) -> str:
    """Bytes that are no UTF-8 arrive as surrogates, which the database does not take; neither does it take NUL."""
    return text[:LONGEST_AGENT].encode(errors="replace").decode().replace("\0", "?")
