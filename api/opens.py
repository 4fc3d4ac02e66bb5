"""Recent opens over HTTP: each fetch of a pixel with the delivery that it was of."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.analytics import Answer, Machine, Query
from api.call import Call
from api.shapes import AccountId, Instant, RowId, read_cursor, write_cursor
from api.tracking import BACK, Fetch, fetched
from relay.core.model import Opener
from relay.store import tracking


class RecentSearch(Query):
    account: AccountId | None = Field(None, description="Only this account's.")
    limit: int = Field(20, ge=1, le=1000, description="Items a page.")
    cursor: str = Field("", max_length=400, description="The `cursor` of the page before.")
    opener: Opener | None = Field(None, description="Only fetches by these, whether they count or not.")
    machine: Machine = False


class Open(Fetch):
    """One fetch with the delivery that it was of."""

    account: str
    tracking_id: str
    recipient_email: str
    recipient_name: str | None
    subject: str
    email_type: str | None
    reference_type: str | None
    reference_id: str | None


class Opens(Answer):
    sheet: ClassVar[str] = "opens"
    cursor: str | None = Field(description="Give it back for the next page; null on the last one.")
    searched_back_to: Instant | None = Field(description=BACK)
    items: list[Open]

    def line(self) -> type[Answer]:
        return Open

    def lines(self) -> list[Open]:
        return self.items


async def recent(call: Call, query: RecentSearch) -> Opens:
    """Who opened what just now, newest first."""
    counts = [one for one in Opener if (one.counts_at_all if query.machine else one.counts)]
    (after,) = read_cursor(query.cursor, RowId) if query.cursor else (None,)
    account = await call.narrowed(query.account)
    async with call.turn() as conn:
        found, more, back_to = await tracking.recent(
            conn,
            account,
            [query.opener] if query.opener else counts,
            after=after,
            size=query.limit,
        )
    cursor = write_cursor(more) if more else None
    return Opens(cursor=cursor, searched_back_to=back_to, items=[_open(one) for one in found])


def _open(one: tracking.Open) -> Open:
    return Open(
        **fetched(one),
        account=one.account,
        tracking_id=str(one.delivery),
        recipient_email=one.recipient,
        recipient_name=one.name,
        subject=one.subject,
        email_type=one.email_type,
        reference_type=one.reference_type,
        reference_id=one.reference_id,
    )
