"""Endpoints and events for the tests of webhooks: rows as the store's own functions leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from relay.core import webhook
from relay.core.vault import Vault
from relay.store.db import Connection

SECRET = webhook.new_secret(b"s" * 32)


async def endpoint(
    conn: Connection,
    url: str = "http://127.0.0.1:9/",
    account: str | None = "a",
    events: Sequence[str] = (),
    *,
    vault: Vault | None = None,
    secret: str = SECRET,
) -> int:
    """An endpoint; with a vault it can be posted to."""
    cursor = await conn.execute(
        "insert into endpoints (account_id, url, events, secret) values (%s, %s, %s, '') returning id",
        (account, url, list(events)),
    )
    (id,) = await cursor.fetchone() or (0,)
    if vault is not None:
        sealed = vault.seal(f"endpoint/{id}", "secret", secret)
        await conn.execute("update endpoints set secret = %s where id = %s", (sealed, id))
    return int(id)


async def event(conn: Connection, account: str = "a", type: str = "messageSent", **data: Any) -> int:
    cursor = await conn.execute(
        "insert into events (account_id, type, data) values (%s, %s, %s) returning id", (account, type, Jsonb(data))
    )
    (id,) = await cursor.fetchone() or (0,)
    return int(id)


async def events(conn: Connection, number: int, account: str = "a", type: str = "messageSent") -> None:
    """Ever so many of them."""
    await conn.execute(
        "insert into events (account_id, type, data)"
        " select %s, %s, jsonb_build_object('n', n) from generate_series(1, %s) n",
        (account, type, number),
    )
