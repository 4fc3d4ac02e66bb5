"""Suppressions over HTTP: whom an account sends to no longer; listed, added to, lifted, as JSON and as CSV."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from api.call import Call, unknown
from api.problems import MOST_FAULTS, Problem
from api.shapes import NO_NUL, AccountId, Answer, Body, Instant, Listing, Paging, Query, Words
from relay.core import roll
from relay.core.errors import Refused
from relay.core.model import Reason
from relay.core.roll import Entry
from relay.store import db, suppressions
from relay.store.suppressions import Filter, Suppression

AT_ONCE = 5000  # rows of one statement
Address = Annotated[
    str, StringConstraints(pattern=NO_NUL, max_length=320), Field(description="The address, URL-encoded.")
]
Why = Annotated[Reason, Field(description="`bounce`, `complaint`, `unsubscribe` or `manual`.")]
Detail = Annotated[str, StringConstraints(max_length=roll.LONGEST_DETAIL)]


class Search(Paging):
    account: AccountId | None = Field(None, description="Only this account's.")
    reason: Reason | None = Field(None, description="Only those for this reason.")
    search: Words = Field("", description="How the address begins.")


class Shown(Answer):
    account: str
    address: str = Field(description="In lower case, its domain in ASCII.")
    reason: Why
    detail: str = Field(description="What the provider said, or whoever added it.", examples=["550 5.1.1 User unknown"])
    since: Instant
    queue_id: str | None = Field(description="The message that taught us, where one did,")
    delivery: int | None = Field(description="and its delivery.")


class Line(Answer):
    """A suppression as a line of CSV, which an import takes."""

    account: str
    address: str
    reason: Reason
    detail: str
    since: Instant


class Suppressions(Listing):
    sheet: ClassVar[str] = "suppressions"
    most_lines: ClassVar[int | None] = 5_000_000
    items: list[Shown]

    def line(self) -> type[Answer]:
        return Line

    def lines(self) -> Sequence[Line]:
        return [Line(**{name: getattr(one, name) for name in Line.model_fields}) for one in self.items]


class One(Body):
    address: str = Field(max_length=320)
    reason: Why = "manual"
    detail: Detail = Field("", description="Why, in your words.")


class New(Body):
    """One address, or many as `items`."""

    account: AccountId | None = Field(None, description="Whose list it is; may be left out with an account's token.")
    address: str | None = Field(None, max_length=320)
    reason: Why = "manual"
    detail: Detail = ""
    items: list[One] | None = Field(None, min_length=1, max_length=10_000)


class Whose(Query):
    account: AccountId | None = Field(None, description="Whose list it is, where the body does not say it.")


class Added(Answer):
    account: str
    added: int = Field(description="Addresses that were not suppressed before.", examples=[1])
    known: int = Field(description="Those that were; the first reason stays, unless a person's word replaces a bounce.")
    ignored_columns: list[str] = Field([], description="Of CSV: columns that mean nothing here.")


class Lifted(Answer):
    account: str
    address: str
    lifted: bool


async def page(call: Call, query: Search) -> Suppressions:
    """Addresses that are sent to no longer: by account, the newest first; those of a search by address."""
    at = query.after(tuple[str, datetime, str])
    wanted = Filter(await call.narrowed(query.account), query.reason, query.search)
    async with call.turn() as conn:
        total, found = await suppressions.page(
            conn, wanted, after=at[2] if at else None, skip=query.skip, size=query.page_size, count=at is None
        )
    items = [_shown(one) for one in found]
    last = [items[-1].account, items[-1].since.isoformat(), items[-1].address] if items else None
    return Suppressions(**query.frame(at, total, len(items), last), items=items)


async def add(call: Call, query: Whose, body: New) -> Added:
    """Suppress one address, or many at once: all of them or, where one cannot be taken, none.

    It may be asked again: what is suppressed stays so, with its first reason and time. A complaint or an
    unsubscription takes the place of a bounce.
    """
    account, faults = await _whose(call, body.account or query.account), []
    entries = []
    for key, one in _given(body):
        try:
            entries.append(roll.entry(one.address, one.reason, one.detail))
        except Refused as refused:
            faults.append((f"{key}{refused.key}", refused.message))
    if faults:
        raise _refused(faults, "suppression", len(entries))
    return await _store(call, account, entries)


async def load(call: Call, query: Whose, table: bytes) -> Added:
    """CSV in UTF-8, at most 16 MiB and 200,000 lines: the first line names the columns, of which `address` must be
    one, and `reason` and `detail` may be. All lines are taken or, where one cannot be, none.
    """
    account = await _whose(call, query.account)
    read = await asyncio.to_thread(roll.read, table)
    if read.faults:
        raise _refused([(f"line {number}", why) for number, why in read.faults], "line", len(read.entries))
    return await _store(call, account, read.entries, read.ignored)


async def lift(call: Call, account: AccountId, address: Address) -> Lifted:
    """Send to this address again. What failed meanwhile is a dead letter, and may be replayed. 404: not suppressed."""
    async with db.connection(call.house.pool) as conn:
        if not await suppressions.lift(conn, account, address):
            raise Problem(404, f"{address[:100]} is not suppressed for {account}", code="SuppressionNotFound")
    return Lifted(account=account, address=suppressions.spelling(address), lifted=True)


async def _whose(call: Call, account: str | None) -> str:
    whose = await call.narrowed(account)
    if whose is None:
        raise Problem(400, "Say whose list it is", code="InvalidFields", fields=[("account", "is missing")])
    return whose


def _given(body: New) -> Iterator[tuple[str, One]]:
    """What is to be suppressed, each with the beginning of its fields' names."""
    if (body.address is None) == (body.items is None):
        fields = [("address", "is missing; or give many as items" if body.items is None else "goes without items")]
        raise Problem(400, "Give one address, or many as items", code="InvalidFields", fields=fields)
    if body.address is not None:
        yield "", One(address=body.address, reason=body.reason, detail=body.detail)
    for place, one in enumerate(body.items or ()):
        yield f"items[{place}].", one


def _refused(faults: Sequence[tuple[str, str]], what: str, good: int) -> Problem:
    many = f"{len(faults)} {what}s" if len(faults) > 1 else f"1 {what}"
    text = f"{many} of {len(faults) + good} cannot be taken, so none was: {faults[0][0]}: {faults[0][1]}"
    return Problem(400, text, code="InvalidFields", fields=faults[:MOST_FAULTS])


async def _store(call: Call, account: str, entries: Sequence[Entry], ignored: Sequence[str] = ()) -> Added:
    """In one database transaction."""
    given = (Suppression(one.address, one.reason, one.detail) for one in entries)
    items = await asyncio.to_thread(suppressions.one_each, given)  # spelling many addresses takes its time
    added = 0
    try:
        async with call.turn() as conn, conn.transaction():
            for start in range(0, len(items), AT_ONCE):
                added += await suppressions.add(conn, account, items[start : start + AT_ONCE])
    except LookupError:
        raise unknown(account) from None
    call.house.directory.forget(account)
    return Added(account=account, added=added, known=len(items) - added, ignored_columns=list(ignored))


def _shown(one: Suppression) -> Shown:
    assert one.created_at is not None
    return Shown(
        account=one.account,
        address=one.address,
        reason=one.reason,
        detail=one.detail,
        since=one.created_at,
        queue_id=one.message_id.hex if one.message_id else None,
        delivery=one.delivery_id,
    )
