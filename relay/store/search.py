"""Deliveries that have an outcome, found newest first: ids alone, for a page that is then read.

They come along an index. What no index knows is sought among a bounded number of rows, and the answer tells how far
that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from relay.core.errors import Refused
from relay.core.model import DELIVERED, State
from relay.store import states
from relay.store.db import Connection, scalar

COUNTED = 10_000  # matches are counted up to here
WINDOW = 20_000  # rows that one call looks through for what no index knows
DENSE = 5  # where a page number skips matches, it is found if one row in so many matches
MOST = 100_000  # ... in no more than so many
SECONDS = 2  # for one statement; then all is tried anew in a window of a tenth
DEEPEST = 1_000_000  # rows that a page number may skip

DONE = f"d.account_id = %(account)s and d.state {states.DONE}"
STATES = (*DELIVERED, State.FAILED)
NEWEST = "order by d.finished_at desc, d.id desc"

# Each row's own look-up, whatever the planner thinks: so no more is read than the search comes to.
MESSAGES = r"""
cross join lateral (
    select x.message_id, x.email_type, x.reference_type, x.reference_id,
        lower(concat_ws(e'\n', d.recipient, d.name, x.subject, x.email_type, x.reference_id)) as text
    from messages x where x.id = d.message_id limit 1) m
"""
CHOSEN = "(select * from deliveries where id = any(%(chosen)s) offset 0)"
OPENS = "left join lateral (select {opens} as n from opens x where x.delivery_id = d.id limit 1) o on true"
NOTES = "left join lateral (select x.pinned from notes x where x.delivery_id = d.id limit 1) n on true"

# Sums outlive the mail that they are about: those older than the oldest that is left do not count. Complaints are in
# no sum; they are few, and an index has them.
TALLIED = """
with since as materialized (
    select date_bin('15 minutes', greatest(d.finished_at, now() - make_interval(days => %(days)s)), 'epoch') as quarter
    from deliveries d where {done} order by d.finished_at, d.id limit 1
)
select coalesce(sum({sums}), 0) - {others} from tallies
where account_id = %(account)s {typed} and quarter >= (select quarter from since)
"""
COMPLAINED = """(
    select count(*) from deliveries d join messages m on m.id = d.message_id
    where d.account_id = %(account)s and d.state = 'complained' {typed}
    and d.finished_at >= (select quarter from since))
"""
SUMS = {State.SENT: "sent - bounced", State.FAILED: "failed", State.BOUNCED: "bounced"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a list: behind this delivery, and `skip` matches further."""

    at: datetime
    id: int
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries of an account. What is None or empty does not narrow; all `words` must be found."""

    account: str
    machine: bool = False  # opens by machines count too
    days: int | None = None
    status: str | None = None  # sent, failed, bounced or complained
    recipient: str = ""
    email_type: str = ""
    reference_type: str = ""
    reference_id: str = ""
    opened: bool | None = None
    pinned: bool | None = None
    words: tuple[str, ...] = ()

    @property
    def indexed(self) -> str:
        """What indexes of `deliveries d` know. States are no parameters: the indexes are partial."""
        conditions = {
            DONE: True,
            f"d.state = '{self.status}'": self.status in STATES,
            "d.finished_at >= now() - make_interval(days => %(days)s)": self.days is not None,
            "lower(d.recipient) = lower(%(recipient)s)": bool(self.recipient),
        }
        return " and ".join(text for text, wanted in conditions.items() if wanted)

    @property
    def sought(self) -> str:
        """The rest, on `m`, `o` and `n` of `beside`; "" when there is none."""
        words = " and ".join(f"m.text like lower(%(word{number})s)" for number in range(len(self.words)))
        conditions = {
            "m.email_type = %(email_type)s": bool(self.email_type),
            "m.reference_type = %(reference_type)s": bool(self.reference_type),
            "m.reference_id = %(reference_id)s": bool(self.reference_id),
            "coalesce(o.n > 0, false) = %(opened)s": self.opened is not None,
            "coalesce(n.pinned, false) = %(pinned)s": self.pinned is not None,
            f"({words} or m.message_id in (%(whole)s, '<' || %(whole)s || '>'))": bool(self.words),
        }
        return " and ".join(text for text, wanted in conditions.items() if wanted)

    @property
    def beside(self) -> str:
        """The look-ups that `sought` is about."""
        parts = {
            MESSAGES: any((self.email_type, self.reference_type, self.reference_id, self.words)),
            OPENS.format(opens="any_opens" if self.machine else "opens"): self.opened is not None,
            NOTES: self.pinned is not None,
        }
        return " ".join(text for text, wanted in parts.items() if wanted)

    @property
    def few(self) -> Iterator[str]:
        """The ids that another table's index names: they may be few."""
        if self.reference_id:
            yield (
                "select d.id from messages m join deliveries d on d.message_id = m.id"
                " where m.account_id = %(account)s and m.reference_id = %(reference_id)s"
            )
        if self.pinned:
            yield "select delivery_id from notes where account_id = %(account)s and pinned"

    @property
    def tallied(self) -> str:
        """How many there are by the sums that statistics are read from; "" where they do not tell."""
        others = (self.recipient, self.reference_type, self.reference_id, self.words)
        if any(others) or self.opened is not None or self.pinned is not None or self.status == State.COMPLAINED:
            return ""
        typed = "and email_type = %(email_type)s" if self.email_type else ""
        sums = SUMS[State(self.status)] if self.status else "sent + failed"
        few = COMPLAINED.format(typed=typed) if self.status == State.SENT else "0"
        return TALLIED.format(sums=sums, others=few, typed=typed, done=DONE)

    @property
    def given(self) -> dict[str, Any]:
        names = ("account", "days", "recipient", "email_type", "reference_type", "reference_id", "opened", "pinned")
        words = {f"word{number}": f"%{_literal(word)}%" for number, word in enumerate(self.words)}
        return {name: getattr(self, name) for name in names} | words | {"whole": " ".join(self.words)}


@dataclass(frozen=True, slots=True)
class Found:
    """One page. `total` is None where it was not asked for; `more` is where the next page begins."""

    ids: Sequence[int]
    total: int | None
    at_least: bool  # there may be more than `total`
    more: Mark | None
    back_to: datetime | None  # the call looked no further back than here; None: as far as it had to


async def find(
    conn: Connection, wanted: Filter, *, after: Mark | None = None, skip: int = 0, size: int, count: bool = True
) -> Found:
    """`size` ids behind `after`, or `skip` matches behind the first. Raises Refused when that is too far."""
    skip = after.skip if after else skip
    if skip > DEEPEST:
        raise Refused(f"A page number leads over {DEEPEST} rows at most; go on by cursor", key="page")
    for window in (min(max(WINDOW, DENSE * (skip + size)), MOST), WINDOW // 10):
        try:
            async with conn.transaction():
                await conn.execute("select set_config('statement_timeout', %s, true)", (f"{SECONDS}s",))
                return await _Search(conn, wanted, after, skip, size, window).page(count)
        except psycopg.errors.QueryCanceled:
            continue
    raise Refused("This took too long just now; narrow it with days or recipient", status=503, code="TooSlow")


class _Search:
    """The search for one page, in one database transaction."""

    def __init__(self, conn: Connection, wanted: Filter, after: Mark | None, skip: int, size: int, window: int) -> None:
        self._conn, self._wanted, self._skip, self._size, self._window = conn, wanted, skip, size, window
        self._given = {**wanted.given, "window": window, "at": after and after.at, "id": after and after.id}
        self._below = "and (d.finished_at, d.id) < (%(at)s, %(id)s)" if after else ""

    async def page(self, count: bool) -> Found:
        if not self._wanted.sought:
            return await self._whole(self._source("d.finished_at, d.id"), count)
        chosen = await self._chosen()
        if chosen is not None:
            self._given["chosen"] = chosen
            return await self._whole(self._matches(CHOSEN), count)
        return await self._within(self._matches("deliveries", "limit %(window)s"), count)

    def _source(self, columns: str, rows: str = "deliveries") -> str:
        return f"select {columns} from {rows} d where {self._wanted.indexed} {self._below} {NEWEST}"  # noqa: S608

    def _matches(self, rows: str, limit: str = "") -> str:
        source, beside, sought = self._source("d.*", rows), self._wanted.beside, self._wanted.sought
        return f"select d.finished_at, d.id from ({source} {limit}) d {beside} where {sought} {NEWEST}"  # noqa: S608

    async def _chosen(self) -> list[int] | None:
        """The ids that another table names, where they are few."""
        for query in self._wanted.few:
            rows = await self._rows(f"{query} limit {self._window}")
            if len(rows) < self._window:
                return [row[0] for row in rows]
        return None

    async def _whole(self, matches: str, count: bool) -> Found:
        """Nothing is left out: the list ends where the rows do."""
        rows = await self._rows(self._part(matches))
        total, at_least = None, False
        if count:
            total = await self._number(f"{matches} limit {COUNTED + 1}")
            total, at_least = (total, False) if total <= COUNTED else await self._many(COUNTED)
        return Found(self._ids(rows), total, at_least, self._more(rows), None)

    async def _within(self, matches: str, count: bool) -> Found:
        """What the window shows; the next page begins at its edge where that came first."""
        edge = await self._rows(f"{self._source('d.finished_at, d.id')} offset {self._window - 1} limit 1")
        total: int | None = None
        at_least = False
        if count and not (edge and self._wanted.tallied):
            total, rows = await self._counted(matches)
            total, at_least = min(total, COUNTED), bool(edge) or total > COUNTED
        else:
            rows = await self._rows(self._part(matches))
            if count:
                total, at_least = await self._many(len(rows))
        if not edge or len(rows) > self._size:
            return Found(self._ids(rows), total, at_least, self._more(rows), None)
        left = self._skip - await self._number(matches) if self._skip and not rows else 0
        ((at, id),) = edge
        return Found(self._ids(rows), total, at_least, Mark(at, id, left), at)

    async def _counted(self, matches: str) -> tuple[int, list[Any]]:
        """The page, and how many there are, up to COUNTED and one: in one pass."""
        most = max(COUNTED + 1, self._skip + self._size + 1)
        part = self._part(f"select * from m d {NEWEST}")  # noqa: S608 - the text is ours, here and below
        rows = await self._rows(
            f"with m as materialized ({matches} limit {most}) select c.n, p.finished_at, p.id"  # noqa: S608
            f" from (select count(*) as n from m) c left join ({part}) p on true order by p.finished_at desc, p.id desc"
        )
        return rows[0][0], [(at, id) for _, at, id in rows if id is not None]

    async def _many(self, known: int) -> tuple[int, bool]:
        """More than are counted: what the sums tell, and else those that are known of."""
        if not self._wanted.tallied:
            return known, True
        ((total,),) = await self._rows(self._wanted.tallied)
        return max(int(total), known), False

    def _part(self, matches: str) -> str:
        return f"{matches} offset {self._skip} limit {self._size + 1}"

    def _ids(self, rows: Sequence[Any]) -> list[int]:
        return [id for _, id in rows[: self._size]]

    def _more(self, rows: Sequence[Any]) -> Mark | None:
        return Mark(*rows[self._size - 1]) if len(rows) > self._size else None

    async def _number(self, matches: str) -> int:
        return int(await scalar(self._conn, f"select count(*) from ({matches}) c", self._given))  # noqa: S608

    async def _rows(self, query: str) -> list[Any]:
        return await (await self._conn.execute(query.encode(), self._given)).fetchall()


def _literal(word: str) -> str:
    """A word as a part of a LIKE pattern."""
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
