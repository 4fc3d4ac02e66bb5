"""The end of an account: all that names it goes, and whoever is given its id later finds nothing of it."""

from __future__ import annotations

from relay.store import retention, rollups
from relay.store.db import Connection, scalar

AT_ONCE = 500  # messages, or recipients
EVENTS = 5000  # events, where nobody waits meanwhile
LOOSE = ("leases", "slots", "idempotency", "recipients", "rowless_opens")
"""Tables that no foreign key empties, beside those of mail, events and sums."""


async def delete(conn: Connection, id: str) -> bool:
    """Remove the account with its tokens, endpoints, leases, windows, idempotency keys, and its part of all figures.

    Most of its mail, recipients and events is removed before, piece by piece. What came since goes with its row, which
    is locked first, so that nobody is granted a lease of it or tells of its state meanwhile.
    """
    async with conn.transaction():
        await conn.execute("select from accounts where id = %s for no key update", (id,))
        await forget(conn, id)
        return (await conn.execute("delete from accounts where id = %s", (id,))).rowcount == 1


async def forget(conn: Connection, id: str) -> None:
    """Remove what there is under this id but the account's own row. In a database transaction of the caller."""
    while await retention.forget_mail(conn, id, AT_ONCE):
        pass
    while await forget_events(conn, id, EVENTS):
        pass
    await rollups.forget(conn, id)
    for table in LOOSE:
        await conn.execute(f"delete from {table} where account_id = %s".encode(), (id,))  # noqa: S608


async def forget_events(conn: Connection, id: str, most: int) -> int:
    """Remove up to `most` of the account's events with their postings, whoever was told; tells how many there were."""
    query = """
        with gone as (
            delete from events where id in (select id from events where account_id = %(id)s limit %(most)s)
            returning id
        ),
        told as (delete from postings where event_id in (select id from gone) returning id),
        posts as (delete from posts where posting_id in (select id from told))
        select count(*) from gone
    """
    return int(await scalar(conn, query, {"id": id, "most": most}))
