"""Recipients of an account: the figures kept of each, and what one of them did with its mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from relay.core import score
from relay.core.score import Figures
from relay.store import states
from relay.store.db import Connection
from relay.store.statistics import Span

LATEST = 1000  # deliveries of one recipient that its best time is drawn from


@dataclass(frozen=True, slots=True)
class Recipient:
    """The sums of one recipient, without and with what machines fetched."""

    account: str
    address: str
    name: str | None
    sent: int
    tracked: int
    failed: int
    bounced: int
    opened: int
    any_opened: int
    opens: int
    any_opens: int
    first_sent_at: datetime | None
    last_sent_at: datetime | None
    last_opened_at: datetime | None
    any_last_opened_at: datetime | None
    silent: bool  # nobody opened anything, and the first tracked message is older than a day

    def figures(self, machine: bool) -> Figures:
        return Figures(
            sent=self.sent,
            tracked=self.tracked,
            opened=self.any_opened if machine else self.opened,
            opens=self.any_opens if machine else self.opens,
            failed=self.failed,
            bounced=self.bounced,
            any_opened=self.any_opened,
            first_sent_at=self.first_sent_at,
            last_sent_at=self.last_sent_at,
            last_opened_at=self.any_last_opened_at if machine else self.last_opened_at,
        )


def silence(machine: bool) -> str:
    """The condition on `recipients r`: nobody opened anything, and the first tracked message is older than a day.

    It looks at deliveries only where tracked mail was mixed with other mail and some of it is young.
    """
    opened = "any_opened" if machine else "opened"
    return f"""(r.tracked > 0 and r.{opened} = 0 and coalesce(r.first_sent_at < %(young)s, false) and (
        r.sent = r.tracked or r.last_sent_at < %(young)s or coalesce((r.gone ->> 'tracked')::integer, 0) > 0
            or exists (
            select from deliveries d join messages m on m.id = d.message_id
            where d.account_id = r.account_id and lower(d.recipient) = r.address and d.state {states.DELIVERED}
                and d.finished_at < %(young)s and m.splice is not null)))"""


async def named(
    conn: Connection, keys: Sequence[tuple[str, str]], now: datetime, *, machine: bool = False
) -> list[Recipient]:
    """Those of these accounts and addresses, in the order given; what is not there is left out."""
    async with conn.cursor(row_factory=class_row(Recipient)) as cursor:
        await cursor.execute(
            f"""
            select r.account_id as account, r.address, r.name, r.sent, r.tracked, r.failed, r.bounced, r.opened,
                r.any_opened, r.opens, r.any_opens, r.first_sent_at, r.last_sent_at, r.last_opened_at,
                r.any_last_opened_at, {silence(machine)} as silent
            from unnest(%(accounts)s::text[], %(addresses)s::text[]) with ordinality as k(account, address, place)
            join recipients r on r.account_id = k.account and r.address = lower(k.address) order by k.place
            """.encode(),  # noqa: S608 - the text is ours
            {
                "accounts": [account for account, _ in keys],
                "addresses": [address for _, address in keys],
                "young": now - score.YOUNG,
            },
        )
        return await cursor.fetchall()


async def looks(conn: Connection, span: Span, address: str) -> list[tuple[datetime, datetime | None]]:
    """When each of the LATEST tracked messages to one recipient was sent, and first opened by a person or proxy.

    In the zone's own time, without an offset.
    """
    typed = "and m.email_type = %(email_type)s" if span.email_type else ""
    cursor = await conn.execute(
        f"""
        select d.finished_at at time zone %(zone)s, o.first_at at time zone %(zone)s
        from deliveries d join messages m on m.id = d.message_id left join opens o on o.delivery_id = d.id
        where d.account_id = %(account)s and lower(d.recipient) = lower(%(address)s) and d.state {states.DELIVERED}
            and d.finished_at >= %(since)s::timestamptz and d.finished_at < %(now)s and m.splice is not null {typed}
        order by d.finished_at desc limit {LATEST}
        """.encode(),  # noqa: S608 - the text is ours
        {**span.given(), "address": address},
    )
    return await cursor.fetchall()
