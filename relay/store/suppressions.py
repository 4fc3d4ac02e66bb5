"""Suppressions: addresses that an account sends to no longer, each with why and since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import class_row

from relay.core import address as addresses
from relay.core.model import Reason, Suppressed
from relay.store.db import Connection, scalar

STRONGER: Mapping[Reason, frozenset[Reason]] = {"bounce": frozenset({"complaint", "unsubscribe"})}
"""The first reason stays, but for these: what a person said goes before what a machine found."""

LONGEST_DETAIL = 1000
Pair = tuple[str, str]
"""An account, and an address in any spelling."""

COLUMNS = "account_id as account, address, reason, detail, delivery_id, message_id, created_at"


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that is sent to no longer. `created_at` is None where it is only about to be stored."""

    address: str
    reason: Reason
    detail: str = ""  # why, in words: what the provider said
    delivery_id: int | None = None  # that taught us
    message_id: UUID | None = None
    created_at: datetime | None = None
    account: str = ""

    def of(self, recipient: str) -> Suppressed:
        """What the sender of a message is told of this recipient of it."""
        assert self.created_at is not None  # it is stored
        return Suppressed(recipient, self.reason, self.created_at, self.detail)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which suppressions. What is None or empty does not narrow; `search` is how the address begins."""

    account: str | None = None
    reason: Reason | None = None
    search: str = ""

    @property
    def where(self) -> str:
        """The condition on `suppressions`, with the names of `given`. Addresses are ordered byte by byte."""
        conditions = {
            "account_id = %(account)s": self.account is not None,
            "reason = %(reason)s": self.reason is not None,
            "address >= %(search)s and address < %(search)s || chr(1114111)": bool(self.search),
        }
        return " and ".join([text for text, wanted in conditions.items() if wanted] or ["true"])

    @property
    def given(self) -> dict[str, Any]:
        search = spelling(self.search) if "@" in self.search else self.search.lower()
        return {"account": self.account, "reason": self.reason, "search": search}


Mark = tuple[str, datetime, str]
"""A place in the list: an account, when the address was suppressed, and the address."""


def spelling(address: str) -> str:
    """The address as it is compared: in lower case, its domain in ASCII."""
    lower = address.lower()
    try:
        return addresses.ascii_domain(lower)
    except UnicodeError:  # a report names what was never an address
        return lower


async def add(conn: Connection, account: str, items: Iterable[Suppression]) -> int:
    """Suppress these addresses; tells how many were not yet. Raises LookupError when the account is not there.

    The first reason stays, but a complaint or an unsubscription takes the place of a bounce; `created_at` stays.
    """
    chosen = one_each(items)
    if not chosen:
        return 0
    try:
        cursor = await conn.execute(
            """
            with whose as (select id from accounts where id = %s),
            marked as (update accounts set suppresses = true where id in (select id from whose) and not suppresses),
            stored as (
                insert into suppressions as s (account_id, address, reason, detail, delivery_id, message_id)
                select whose.id, g.* from whose,
                    unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::uuid[])
                      as g(address, reason, detail, delivery_id, message_id)
                order by g.address
                on conflict (account_id, address) do update set reason = excluded.reason, detail = excluded.detail,
                    delivery_id = excluded.delivery_id, message_id = excluded.message_id
                    where s.reason = 'bounce' and excluded.reason in ('complaint', 'unsubscribe')
                returning xmax = 0 as fresh
            )
            select (select count(*) from whose), (select count(*) from stored where fresh)
            """,
            (
                account,
                [item.address for item in chosen],
                [item.reason for item in chosen],
                [item.detail for item in chosen],
                [item.delivery_id for item in chosen],
                [item.message_id for item in chosen],
            ),
        )
    except ForeignKeyViolation:  # it is being removed
        raise LookupError(f"there is no account {account}") from None
    there, fresh = await cursor.fetchone() or (0, 0)
    if not there:
        raise LookupError(f"there is no account {account}")
    return int(fresh)


def one_each(items: Iterable[Suppression]) -> list[Suppression]:
    """One of each address, spelt as it is compared, in the order in which all lock rows; details made harmless."""
    chosen: dict[str, Suppression] = {}
    for item in items:
        address = spelling(item.address)
        first = chosen.get(address)
        if first is None or item.reason in STRONGER.get(first.reason, ()):
            chosen[address] = Suppression(address, item.reason, _shown(item.detail), item.delivery_id, item.message_id)
    return [chosen[address] for address in sorted(chosen)]


def _shown(text: str) -> str:
    """On one line, whole characters, not longer than anybody reads: others wrote it."""
    line = " ".join(addresses.CONTROLS.sub(" ", text[: 4 * LONGEST_DETAIL]).split())
    return line.encode(errors="replace").decode()[:LONGEST_DETAIL]


async def among(conn: Connection, pairs: Sequence[Pair]) -> dict[Pair, Suppression]:
    """Those of these pairs that are suppressed, by the pair as it was given."""
    if not pairs:
        return {}
    spelt = [(account, spelling(address)) for account, address in pairs]
    async with conn.cursor(row_factory=class_row(Suppression)) as cursor:
        await cursor.execute(
            f"""
            select {COLUMNS} from suppressions where (account_id, address) in (
                select * from unnest(%b::text[], %b::text[]))
            """.encode(),  # noqa: S608 - the text is ours
            ([account for account, _ in spelt], [address for _, address in spelt]),
        )
        found = {(one.account, one.address): one for one in await cursor.fetchall()}
    return {pair: found[key] for pair, key in zip(pairs, spelt, strict=True) if key in found}


async def lift(conn: Connection, account: str, address: str) -> bool:
    """Mail goes to this address again. False when it was not suppressed."""
    given = (account, spelling(address))
    return (await conn.execute("delete from suppressions where account_id = %s and address = %s", given)).rowcount == 1


async def page(
    conn: Connection, wanted: Filter, *, after: Mark | None, skip: int, size: int, count: bool = True
) -> tuple[int, list[Suppression]]:
    """How many match (0 unless `count`), and one page behind `after`: by account, newest first; a search by address."""
    given = {**wanted.given, "skip": skip, "size": size}
    if after:
        given |= {"whose": after[0], "at": after[1], "above": after[2]}
    order = "account, address" if wanted.search else "account, created_at desc, address"
    parts = " union all ".join(
        f"(select {COLUMNS} from suppressions where {condition} order by {order} limit %(skip)s + %(size)s)"  # noqa: S608
        for condition in _behind(wanted, after)
    )
    total = 0
    if count:
        total = await scalar(conn, f"select count(*) from suppressions where {wanted.where}", wanted.given)  # noqa: S608
    async with conn.cursor(row_factory=class_row(Suppression)) as cursor:
        await cursor.execute(
            f"select * from ({parts}) s order by {order} offset %(skip)s limit %(size)s".encode(),  # noqa: S608
            given,
        )
        return total, await cursor.fetchall()


def _behind(wanted: Filter, after: Mark | None) -> list[str]:
    """What comes after the mark, in parts that are each a range of an index: thousands may share the mark's time."""
    if after is None:
        return [wanted.where]
    parts = ["account_id = %(whose)s and address > %(above)s"]
    if not wanted.search:
        parts = [f"{parts[0]} and created_at = %(at)s", "account_id = %(whose)s and created_at < %(at)s"]
    if wanted.account is None:
        parts.append("account_id > %(whose)s")
    return [f"{wanted.where} and {part}" for part in parts]
