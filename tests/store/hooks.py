"""Events, and tries of their postings, as the relay writes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from relay.store.db import Connection


async def told(
    conn: Connection, account: str, type: str = "messageSent", at: datetime | None = None, **data: Any
) -> int:
    """An event; its postings come with it. Its id."""
    cursor = await conn.execute(
        "insert into events (account_id, type, data, at) values (%s, %s, %s, coalesce(%s, clock_timestamp()))"
        " returning id",
        (account, type, Jsonb(data or {"queueId": "x"}), at),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def tried(conn: Connection, event: int, state: str, status: int | None = None, error: str = "") -> None:
    """As if this event's postings had been tried once more, and stood like this since."""
    await conn.execute(
        "with tried as (update postings set state = %s, attempts = attempts + 1,"
        " finished_at = case when %s <> 'pending' then now() end, due_at = now() + interval '1 hour'"
        " where event_id = %s returning id, endpoint_id)"
        " insert into posts (posting_id, endpoint_id, seconds, url, status, error, response)"
        " select id, endpoint_id, 0.25, 'https://was.example/', %s, %s, 'words' from tried",
        (state, state, event, status, error),
    )


async def postings(conn: Connection) -> list[tuple[Any, ...]]:
    """(endpoint, event, state, attempts, due) of each."""
    cursor = await conn.execute(
        "select endpoint_id, event_id, state::text, attempts, due_at <= now() from postings"
        " order by endpoint_id, event_id"
    )
    return await cursor.fetchall()
