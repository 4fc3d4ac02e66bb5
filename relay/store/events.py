"""Events that nothing else is written with. Those of a state change are written in its statement."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from relay.core.model import Event
from relay.store.db import Connection


async def add(conn: Connection, event: Event) -> None:
    """The event, and with it what is to be posted of it."""
    await conn.execute(
        "insert into events (account_id, type, delivery_id, message_id, data) values (%s, %s, %s, %s, %s)",
        (event.account, event.type.value, event.delivery, event.message, Jsonb(dict(event.data))),
    )
