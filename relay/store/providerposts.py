"""Webhooks of providers: each token once; and what they tell beside bounces and complaints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from relay.core.model import EventType
from relay.store import facts
from relay.store.db import Connection
from relay.store.matching import Match


async def claim(conn: Connection, account: str, token: str) -> bool:
    """Takes the token, for as long as what comes with it is committed. False: it was taken, or the account is gone.

    Who comes with the same one meanwhile waits here.
    """
    cursor = await conn.execute(
        "insert into provider_posts (account_id, token) select id, %s from accounts where id = %s"
        " on conflict do nothing",
        (token, account),
    )
    return cursor.rowcount == 1


async def unsubscribed(conn: Connection, account: str, match: Match, data: Mapping[str, Any]) -> None:
    """Tells that this recipient wants no more."""
    await conn.execute(
        f"""
        insert into events (account_id, type, delivery_id, message_id, data)
        select d.account_id, '{EventType.LIST_UNSUBSCRIBE}', d.id, d.message_id, {facts.DELIVERY} || %s::jsonb
        from deliveries d join messages m on m.id = d.message_id where d.id = %s and d.account_id = %s
        """.encode(),  # noqa: S608 - the text is ours
        (json.dumps(data), match.delivery, account),
    )


async def opened(conn: Connection, account: str, match: Match, data: Mapping[str, Any]) -> bool:
    """Tells of an open that the provider saw, where no picture of ours could have: False where one could."""
    cursor = await conn.execute(
        f"""
        insert into events (account_id, type, delivery_id, message_id, data)
        select d.account_id, '{EventType.TRACK_OPEN}', d.id, d.message_id, jsonb_build_object(
            'messageId', m.message_id, 'recipient', d.recipient, 'trackingId', d.id::text) || %s::jsonb
        from deliveries d join messages m on m.id = d.message_id
        where d.id = %s and d.account_id = %s and m.splice is null
        """.encode(),  # noqa: S608 - the text is ours
        (json.dumps(data), match.delivery, account),
    )
    return cursor.rowcount == 1
