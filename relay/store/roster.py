"""Lists of recipients: in an order that an index has, from end to end, or ranked among those written to last.

Keys are found first, then shown. What no index knows (words, silence, a score that fades with time) is sought among a
bounded number of recipients, WINDOW for each call; a cursor leads on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.core import score
from relay.core.errors import Refused
from relay.store import recipients
from relay.store.db import Connection, scalar
from relay.store.recipients import Recipient

COUNTED = 10_000  # recipients are counted up to here
WINDOW = 10_000  # recipients that one call looks at for what no index knows
DEEPEST = 100_000  # that a page number may skip
NEVER = "-infinity"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a list: behind this recipient. `sent_at` is ISO 8601, or NEVER."""

    account: str
    address: str
    sent_at: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients. `account` None is all accounts; what is None or empty does not narrow."""

    now: datetime
    account: str | None = None
    search: str = ""  # part of the address or the name
    silent: bool | None = None
    machine: bool = False

    def sought(self) -> str:
        """The condition on `recipients r` that no index knows; "" is none."""
        silence = recipients.silence(self.machine)
        words = "position(lower(%(search)s) in {}) > 0"
        conditions = {
            f"({words.format('r.address')} or {words.format('lower(r.name)')})": bool(self.search),
            silence: self.silent is True,
            f"not {silence}": self.silent is False,
        }
        return " and ".join(text for text, wanted in conditions.items() if wanted)

    @property
    def owned(self) -> str:
        return "r.account_id = %(account)s" if self.account is not None else "true"

    def given(self) -> dict[str, Any]:
        return {
            "now": self.now,
            "young": self.now - score.YOUNG,
            "account": self.account,
            "search": self.search,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """`total` is None where it was not asked for; `more` is where the next page begins, in a ranking as a number."""

    items: list[Recipient]
    total: int | None
    at_least: bool  # there are more than `total`
    more: Mark | int | None


LAST = f"coalesce(r.last_sent_at, '{NEVER}')"
KEY = f"r.account_id, r.address, to_json({LAST}) #>> '{{}}'"
ORDERS: Mapping[str, str] = {
    "address": "r.account_id, r.address",
    "last_sent": f"{LAST} desc, r.account_id desc, r.address desc",
}
"""Those that an index has. The address comes after its account where all accounts are listed."""
BEHIND: Mapping[str, str] = {
    "address": "(r.account_id, r.address) > (%(after)s, %(behind)s)",
    "last_sent": f"{LAST} <= %(sent_at)s and ({LAST}, r.account_id, r.address) < (%(sent_at)s, %(after)s, %(behind)s)",
}
RANKS: Mapping[str, str] = {
    "sent": "r.sent",
    "opened": "r.{kind}opened",
    "open_rate": "r.{kind}opened::float8 / nullif(r.tracked, 0)",
    "engagement": f"""case when r.tracked > 0 then (
        {score.RATE}::float8 * r.{{kind}}opened / (r.tracked + {score.UNOPENED})
        + {score.REPEATS}::float8 * greatest(r.{{kind}}opens - r.{{kind}}opened, 0)
            / (greatest(r.{{kind}}opens - r.{{kind}}opened, 0) + {score.HALF}))
        * ({score.LASTING} + {1 - score.LASTING} * coalesce(power(0.5::float8, greatest(extract(epoch from
            %(now)s - r.{{kind}}last_opened_at), 0)::float8 / {86400 * score.HALF_LIFE}), 0))
        * greatest(1 - (r.failed + r.bounced)::float8 / nullif(r.sent + r.failed, 0), 0) end""",
}
"""What a ranking goes by. The last is score.engagement before it is rounded; a test holds the two together."""


async def page(
    conn: Connection, wanted: Filter, sort: str, *, after: Mark | None, skip: int, size: int, count: bool
) -> Page:
    """One page, by ORDERS or RANKS. Rankings know no `after`. Raises Refused when a number leads too far."""
    accounts = await _accounts(conn, wanted)
    if skip * accounts > DEEPEST:
        raise Refused(f"Page numbers lead over {DEEPEST // accounts} recipients here; go on by cursor", key="page")
    roster = _Roster(conn, wanted, "last_sent" if sort in RANKS else sort, after, skip, size, accounts)
    begun = after is None or after.address == wanted.search.lower()  # a page before this one was of that address
    if "@" in wanted.search and begun and (found := await roster.exact(ranked=sort in RANKS)):
        return found
    if sort in RANKS:
        return await roster.ranked(RANKS[sort].format(kind="any_" if wanted.machine else ""), count)
    return await roster.walked(count)


async def _accounts(conn: Connection, wanted: Filter) -> int:
    """How many accounts are listed; 1 at least."""
    if wanted.account is not None:
        return 1
    return max(int(await scalar(conn, "select count(*) from accounts")), 1)


class _Roster:
    """One search for one page."""

    def __init__(
        self, conn: Connection, wanted: Filter, order: str, after: Mark | None, skip: int, size: int, accounts: int
    ) -> None:
        self._conn, self._wanted, self._order, self._size = conn, wanted, order, size
        self._next = skip + size
        self._sought = wanted.sought()
        self._each = max(WINDOW // accounts, size + 1)  # recipients of one account
        self._given = {**wanted.given(), "skip": skip, "room": size + 1}
        self._behind = "true"
        if after:
            self._given |= {"after": after.account, "behind": after.address, "sent_at": after.sent_at}
            self._behind = BEHIND[order]

    async def exact(self, *, ranked: bool) -> Page | None:
        """Those whose whole address is sought, which an index knows, by their accounts; None where there is none."""
        behind = "and r.account_id > %(after)s" if "after" in self._given else ""
        found = f"""
            select {KEY} from accounts a join recipients r on r.account_id = a.id and r.address = lower(%(search)s)
            {self._where} and {self._wanted.owned} {behind} order by r.account_id"""  # noqa: S608 - the text is ours
        rows = await self._rows(found)
        if not rows:
            return None
        more: Mark | int | None = None
        if len(rows) > self._next:
            more = self._next if ranked else Mark(*rows[self._next - 1])
        return await self._page(rows[self._next - self._size :], len(rows), False, more)

    async def walked(self, count: bool) -> Page:
        """In its order. Where something is sought, a window is looked through, and its page may not be full."""
        window = self._each if self._sought else self._next + 1
        source = self._source(window, f"limit {window}")
        found = f"select {KEY} from ({source}) r"  # noqa: S608 - the text is ours
        rows = await self._rows(f"{found} {self._where} offset %(skip)s limit %(room)s")
        more = Mark(*rows[self._size - 1]) if len(rows) > self._size else None
        if more is None and self._sought:
            end = await self._rows(f"{found} offset {window - 1}")
            more = Mark(*end[0]) if end else None
        total, at_least = await self._total(source, bool(self._sought)) if count else (None, False)
        return await self._page(rows, total, at_least, more)

    async def ranked(self, rank: str, count: bool) -> Page:
        """The highest first, among those of each account who were written to last."""
        source = self._source(self._each, "")
        found = f"select {KEY} from ({source}) r {self._where}"  # noqa: S608 - the text is ours
        order = f"{rank} desc nulls last, {LAST} desc, r.account_id, r.address"
        rows = await self._rows(f"{found} order by {order} offset %(skip)s limit %(room)s")
        total, at_least = await self._total(source, True) if count else (None, False)
        return await self._page(rows, total, at_least, self._next if len(rows) > self._size else None)

    def _source(self, each: int, end: str) -> str:
        """The rows in order: so many of each account, and `end` of all."""
        order, rows = ORDERS[self._order], f"select r.* from recipients r where {self._behind}"  # noqa: S608
        if self._wanted.account is not None or self._order == "address":
            return f"{rows} and {self._wanted.owned} order by {order} limit {each}"
        of_one = f"{rows} and r.account_id = a.id order by {LAST} desc, r.address desc limit {each}"
        return f"select r.* from accounts a cross join lateral ({of_one}) r order by {order} {end}"  # noqa: S608

    @property
    def _where(self) -> str:
        return f"where {self._sought}" if self._sought else ""

    async def _total(self, source: str, bounded: bool) -> tuple[int, bool]:
        """How many match, and whether there may be more: beyond `source`, or beyond what is counted at all."""
        owned = f"select from recipients r where {self._wanted.owned}"
        if not bounded:
            ((counted,),) = await self._rows(f"select count(*) from ({owned} limit {COUNTED + 1}) c")  # noqa: S608
            return min(counted, COUNTED), counted > COUNTED
        matching = f"count(*) filter ({self._where})" if self._sought else "count(*)"
        ((total, seen),) = await self._rows(f"select {matching}, count(*) from ({source}) r")  # noqa: S608
        return total, bool(await self._rows(f"{owned} offset {seen} limit 1"))

    async def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return await (await self._conn.execute(query.encode(), self._given)).fetchall()

    async def _page(
        self, rows: list[tuple[Any, ...]], total: int | None, at_least: bool, more: Mark | int | None
    ) -> Page:
        keys = [(account, address) for account, address, _ in rows[: self._size]]
        shown = await recipients.named(self._conn, keys, self._wanted.now, machine=self._wanted.machine)
        return Page(shown, total, at_least, more)
