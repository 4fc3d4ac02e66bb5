"""The sums held against the rows they are of, and made anew from them.

What can be held: opens and recipients whole (a recipient remembers what retention took); sums by time from the first
quarter of an hour that retention has not reached. Older sums are all there is to know of their time, and stay as they
are. The sums of all accounts ('') are held against those of each.

Facts go on meanwhile, none lost and none counted twice. A comparison is one statement: it sees a fact with its sums,
or neither. Sums by time are made anew by one statement too, under the books' lock: it takes away the rows that it sees
and adds what the facts that it sees come to; a fact that it does not see adds its own row, and that stays. Rows of
opens and recipients are locked first, in the order in which facts lock them, and counted by a later statement: a fact
that had locked the row is seen by it, one that comes after waits and adds to what was counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.store import rollups, states
from relay.store.db import Connection
from relay.store.reckoning import OPEN_TALLIES, OPENS, OPENS_KEPT, RECIPIENTS, SINCE, TALLIES
from relay.store.rollups import COUNTS, KEYS, SUMS

TABLES = ("opens", "tallies", "open_tallies", "recipients")
"""In the order in which they are made anew: opens are facts to those after them."""

AT_ONCE = 500  # rows of opens or recipients that are locked together


@dataclass(frozen=True, slots=True)
class Table:
    """A table, what tells its rows apart within an account, what they must be, and the columns that are held."""

    name: str
    keys: Sequence[str]
    counts: Sequence[str]
    others: Sequence[str]
    kept: str
    expected: str


def _by_time(name: str, expected: str) -> Table:
    keys, sums = ", ".join(KEYS[name][1:]), ", ".join(f"sum({column}) as {column}" for column in SUMS[name])
    kept = f"select {keys}, {sums} from {name} where account_id = %(account)s and quarter >= {SINCE} group by {keys}"  # noqa: S608
    return Table(name, KEYS[name][1:], SUMS[name], (), kept, expected)


def _of_all(name: str) -> Table:
    """The sums of all accounts, which those of each must come to."""
    table = _by_time(name, "")
    return Table(name, table.keys, table.counts, (), table.kept, table.kept.replace("account_id =", "account_id <>"))


OF_ACCOUNT: Mapping[str, Table] = {
    "opens": Table(
        "opens",
        ("delivery_id",),
        ("fetches", "opens", "any_opens"),
        ("judged", "first_at", "last_at", "any_first_at", "any_last_at", "sent_at"),
        OPENS_KEPT,
        OPENS,
    ),
    "tallies": _by_time("tallies", TALLIES),
    "open_tallies": _by_time("open_tallies", OPEN_TALLIES),
    "recipients": Table(
        "recipients",
        ("address",),
        COUNTS,
        ("first_sent_at", "last_sent_at", "last_opened_at", "any_last_opened_at"),
        "select * from recipients where account_id = %(account)s",
        RECIPIENTS,
    ),
}
OF_ALL: Mapping[str, Table] = {name: _of_all(name) for name in KEYS}


@dataclass(frozen=True, slots=True)
class Difference:
    """A column of a row that is not what the rows say. `row` is its key, without the account."""

    table: str
    account: str
    row: tuple[Any, ...]
    column: str
    kept: Any
    expected: Any


async def accounts(conn: Connection) -> list[str]:
    """Whoever may have sums, in order; '' is not among them. Accounts that are gone too, should something be left."""
    each = " union ".join(
        f"""(with recursive every as (
            (select account_id from {table} order by account_id limit 1)
            union all
            select (select t.account_id from {table} t where t.account_id > e.account_id order by 1 limit 1)
            from every e where e.account_id is not null
        ) select account_id from every)"""  # noqa: S608 - the text is ours
        for table in ("tallies", "open_tallies", "recipients", "rowless_opens")
    )
    cursor = await conn.execute(
        f"select id from (select id from accounts union {each}) a where id <> '' order by id".encode()  # noqa: S608
    )
    return [row[0] for row in await cursor.fetchall()]


async def differences(conn: Connection, name: str, account: str) -> list[Difference]:
    """Every difference of a table and an account; of the account '', for tables in OF_ALL alone."""
    table = OF_ACCOUNT[name] if account else OF_ALL[name]
    columns = [*table.counts, *table.others]

    def row(of: str) -> str:
        counts = (f"coalesce({of}.{one}, 0)" for one in table.counts)
        return ", ".join([*counts, *(f"{of}.{one}" for one in table.others)])

    keys = ", ".join(table.keys)
    query = f"""
        select {keys}, {row("k")}, {row("e")} from ({table.kept}) k full join ({table.expected}) e using ({keys})
        where ({row("k")}) is distinct from ({row("e")}) order by {keys}
    """  # noqa: S608 - the text is ours
    cursor = await conn.execute(query.encode(), {"account": account, "chosen": None})
    width, found = len(columns), []
    for values in await cursor.fetchall():
        key, kept, expected = values[: -2 * width], values[-2 * width : -width], values[-width:]
        for column, one, other in zip(columns, kept, expected, strict=True):
            if one != other:
                found.append(Difference(name, account, key, column, one, other))
    return found


async def mend(conn: Connection, name: str, account: str, wrong: Sequence[Difference]) -> None:
    """Makes anew what differs. Counted again under its locks: what was right by then stays right."""
    if name in KEYS:
        await _mend_sums(conn, name, account)
        return
    rows = sorted({one.row[0] for one in wrong})
    for start in range(0, len(rows), AT_ONCE):
        async with conn.transaction():
            given = {"account": account, "chosen": rows[start : start + AT_ONCE]}
            for statement in MEND[name]:
                await conn.execute(statement.encode(), given)


async def _mend_sums(conn: Connection, name: str, account: str) -> None:
    """The new rows are news, which the books fold."""
    table = OF_ACCOUNT[name] if account else OF_ALL[name]
    columns = ", ".join([*table.keys, *table.counts])
    async with conn.transaction():
        await rollups.alone(conn)
        await conn.execute(
            f"""
            with gone as (delete from {name} where account_id = %(account)s and quarter >= {SINCE})
            insert into {name} (account_id, {columns}) select %(account)s, {columns} from ({table.expected}) e
            """.encode(),  # noqa: S608 - the text is ours
            {"account": account, "chosen": None},
        )


def _set(*columns: str) -> str:
    return ", ".join(f"{column} = e.{column}" for column in columns)


TIMES = ("first_at", "last_at", "any_first_at", "any_last_at")
FETCHES = ("first_fetch", "last_fetch", "any_first_fetch", "any_last_fetch")
SENT = ("first_sent_at", "last_sent_at", "last_opened_at", "any_last_opened_at")

MEND: Mapping[str, Sequence[str]] = {
    "opens": (
        f"""
        insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, sent_at)
        select id, account_id, 0, '{{}}', 0, 0, case when state {states.DELIVERED} then finished_at end
        from deliveries where id = any(%(chosen)s) and account_id = %(account)s order by id for key share
        on conflict do nothing
        """,  # noqa: S608 - the text is ours
        "select from opens where delivery_id = any(%(chosen)s) order by delivery_id for update",
        f"""
        update opens o set fetches = 0, judged = '{{}}', opens = 0, any_opens = 0,
            {", ".join(f"{column} = null" for column in (*TIMES, *FETCHES))}
        where delivery_id = any(%(chosen)s) and not exists (select from fetches f where f.delivery_id = o.delivery_id)
        """,  # noqa: S608 - the text is ours
        f"""
        update opens o set {_set("fetches", "judged", "opens", "any_opens", "sent_at", *TIMES, *FETCHES)}
        from ({OPENS}) e where o.delivery_id = e.delivery_id
        """,  # noqa: S608 - the text is ours
    ),
    "recipients": (
        """
        insert into recipients (account_id, address) select %(account)s, address from unnest(%(chosen)s::text[]) address
        order by address on conflict do nothing
        """,
        """
        select from recipients where account_id = %(account)s and address = any(%(chosen)s)
        order by address for no key update
        """,
        f"""
        update recipients r set {_set(*COUNTS, *SENT)}
        from ({RECIPIENTS}) e where r.account_id = %(account)s and r.address = e.address
        """,  # noqa: S608 - the text is ours
    ),
}
"""What is missing is begun, what is chosen is locked, then it is counted: four statements, or three."""
