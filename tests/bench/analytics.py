"""Statistics and lists of what was sent, asked through the API, beside a million deliveries and beside ten.

The deliveries lie over 90 days and 1,000 accounts, of which one has a tenth of all: it is the one that is asked about.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from relay.store import tokens
from tests.bench import bars
from tests.bench.bars import Figure
from tests.bench.drive import Show
from tests.bench.figures import Stage

ACCOUNTS = 1000
DAYS = 90
BIG = "account-0"
COPIES = 10  # recipients of a message
PEOPLE = 1000  # of an account
WARM_UP = 3  # calls that are not counted
TIMES = 20
PAGE = 20


def mail(step: int = 1) -> str:
    """Every `step`th delivery, all of it out of its number `n`. Every third was opened."""
    return f"""
    select n, n / {COPIES} as m, at, date_bin('15 minutes', at, 'epoch') as quarter,
        case when n / {COPIES} %% 10 = 0 then '{BIG}'
            else 'account-' || 1 + n / {COPIES} * 7919 %% {ACCOUNTS - 1} end as account,
        (array['newsletter', 'receipt', 'reminder', ''])[1 + n / {COPIES} / 3 %% 4] as type,
        n %% 50 = 49 as failed, n %% 50 <> 49 and n %% 3 = 0 as opened,
        'reader' || n / 3 %% {PEOPLE} || '@readers.example' as recipient,
        least(at + n %% 2880 * interval '1 minute', %(now)s) as came,
        case n %% 4 when 0 then 'proxy' else 'person' end::opener as opener,
        (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0')
            || lpad(to_hex(n / {COPIES}), 20, '0'))::uuid as id
    from generate_series(0, %(count)s::bigint - 1, {step}) n, lateral (
        select %(now)s - interval '{DAYS} days' * (1 - (n / {COPIES} * {COPIES})::float8 / %(count)s) as at) a
    """


FILL: Mapping[str, str] = {
    "accounts": f"""
        insert into accounts (id, email, config)
        select 'account-' || n, 'app@account-' || n || '.example', '{{"tz": "Europe/Berlin"}}'
        from generate_series(0, {ACCOUNTS - 1}) n
    """,
    "messages": f"""
        insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit,
            splice, email_type, created_at, send_at)
        select id, account, 'api', '<' || m || '@sender.example>', 'app@sender.example', 'News of week ' || m, 4096, 1,
            false, false, '{{}}', nullif(type, ''), at, at
        from ({mail(COPIES)}) d
    """,
    "deliveries": f"""
        insert into deliveries (id, message_id, account_id, recipient, state, ready, priority, attempts, max_attempts,
            due_at, expires_at, created_at, finished_at, code, enhanced, reply, category) overriding system value
        select n + 1, id, account, recipient,
            (case when failed then 'failed' else 'sent' end)::delivery_state, false, 1, 1, 10, at,
            at + interval '3 days', at, at, case when failed then 550 else 250 end, '2.0.0', 'Ok: queued as 4D1', ''
        from ({mail()}) d
    """,
    "fetches": f"""
        insert into fetches (id, delivery_id, at, method, address, user_agent, account_id, opener, client, country,
            city) overriding system value
        select n + 1, n + 1, came, 'GET', '192.0.2.7', 'Mozilla/5.0', account, opener, 'Gmail', 'DE', ''
        from ({mail()}) d where opened
    """,
    "opens": f"""
        insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, first_at, last_at, any_first_at,
            any_last_at, first_fetch, last_fetch, any_first_fetch, any_last_fetch, sent_at)
        select n + 1, account, 1, jsonb_build_object(opener, 1), 1, 1, came, came, came, came, n + 1, n + 1, n + 1,
            n + 1, at
        from ({mail()}) d where opened
    """,
    "tallies": f"""
        insert into tallies (account_id, quarter, email_type, sent, tracked, failed, opened, any_opened, opens,
            any_opens, folded)
        select coalesce(account, ''), quarter, type, count(*) filter (where not failed),
            count(*) filter (where not failed), count(*) filter (where failed), count(*) filter (where opened),
            count(*) filter (where opened), count(*) filter (where opened), count(*) filter (where opened), true
        from ({mail()}) d group by grouping sets ((account, quarter, type), (quarter, type)) order by 2
    """,
    "open_tallies": f"""
        insert into open_tallies (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts,
            folded)
        select coalesce(account, ''), seen, type, opener, 'Gmail', 'DE', count(*), count(*), count(*), true
        from (select *, date_bin('15 minutes', came, 'epoch') as seen from ({mail()}) d where opened) o
        group by grouping sets ((account, seen, type, opener), (seen, type, opener)) order by 2
    """,
    "recipients": f"""
        insert into recipients (account_id, address, sent, tracked, failed, opened, any_opened, opens, any_opens,
            first_sent_at, last_sent_at, last_opened_at, any_last_opened_at)
        select account, recipient, count(*) filter (where not failed), count(*) filter (where not failed),
            count(*) filter (where failed), count(*) filter (where opened), count(*) filter (where opened),
            count(*) filter (where opened), count(*) filter (where opened), min(at) filter (where not failed),
            max(at) filter (where not failed), max(came) filter (where opened), max(came) filter (where opened)
        from ({mail()}) d group by account, recipient
    """,
}

SECONDARY = """
select i.indexname, i.indexdef from pg_indexes i join pg_class c on c.relname = i.indexname
where i.tablename = %s and not exists (select from pg_constraint k where k.conindid = c.oid)
"""

STATS, LIST = "statistics", "tracking-list"
SIZES = {"1,000,000": 1_000_000, "10,000,000": 10_000_000}
CALLS: Mapping[str, Sequence[str]] = {
    STATS: (
        f"/v1/account/{BIG}/tracking/stats",
        f"/v1/account/{BIG}/tracking/stats?by=day",
        f"/v1/account/{BIG}/tracking/stats?by=hour&days=90",
        "/v1/stats",
    ),
    LIST: (f"/v1/account/{BIG}/tracking", f"/v1/account/{BIG}/tracking?page=999"),
}
TITLES = {
    STATS: f"Statistics of an account with a tenth of all mail of {DAYS} days and {ACCOUNTS:,} accounts",
    LIST: "The list of what it sent: the slower of the first and the thousandth page",
}


@dataclass
class House:
    """An API over a database of its own."""

    port: int
    token: str

    def ask(self, path: str) -> float:
        """Median milliseconds of a call, on a connection that is kept."""
        found = []
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for _ in range(WARM_UP + TIMES):
            began = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            body = answer.read()
            found.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, body
            assert not path.startswith(CALLS[LIST][0] + "?") or len(json.loads(body)["items"]) == PAGE
        connection.close()
        return statistics.median(found[WARM_UP:])


def populate(url: str, count: int, show: Show) -> None:
    """Fills a fresh database with so many deliveries and their sums. Indexes are made after their rows."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select set_config('work_mem', '1GB', false), set_config('maintenance_work_mem', '1GB', false)")
        given = {"count": count, "now": datetime.now(UTC)}
        for table, fill in FILL.items():
            show(f"filling {table} for {count:,} deliveries")
            with conn.transaction():
                conn.execute(f"truncate {table} cascade".encode())  # what is empty in this transaction needs no WAL
                indexes = conn.execute(SECONDARY, (table,)).fetchall()
                for name, _ in indexes:
                    conn.execute(f"drop index {name}".encode())
                conn.execute(fill.encode(), given)
                for _, definition in indexes:
                    conn.execute(definition)
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def figures(stage: Stage, names: Sequence[str], sizes: Sequence[str]) -> Iterator[Figure]:
    """What is asked for of STATS and LIST, beside so many deliveries: SIZES' names."""
    if not names:
        return
    with ExitStack() as stack:
        houses = {}
        for size in sizes:
            url = stage.postferry.database(f"analytics_{SIZES[size]}")
            populate(url, SIZES[size], stage.show)
            houses[size] = House(stack.enter_context(stage.postferry.api_over(url)), asyncio.run(_token(url)))
        for name in names:
            yield _figure(stage, name, houses)


def _figure(stage: Stage, name: str, houses: Mapping[str, House]) -> Figure:
    """Its value is that of the slowest call."""
    found: dict[str, dict[str, list[float]]] = {size: {path: [] for path in CALLS[name]} for size in houses}
    for turn in range(stage.rounds):
        for size, house in houses.items():
            for path in CALLS[name]:
                stage.show(f"{name} round {turn + 1}/{stage.rounds}  beside {size}: {path}")
                found[size][path].append(house.ask(path))
    bar = bars.under_each(50, 100) if name == STATS else bars.under_each(100, 100)
    figure = Figure(name, TITLES[name], " ms", {}, bar)
    for size, paths in found.items():
        figure.values[f"beside {size}"] = [max(one) for one in zip(*paths.values(), strict=True)]
    for path in CALLS[name]:
        told = ", ".join(f"{statistics.median(paths[path]):.1f} ms beside {size}" for size, paths in found.items())
        figure.notes.append(f"{path}: {told}")
    return figure


async def _token(url: str) -> str:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await tokens.create(conn, ["*"], None, "bench")
