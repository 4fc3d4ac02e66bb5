"""Pixels: how soon the picture comes while opens are recorded, what floods of them cost, what tracking adds to mail."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from relay.core import pixel
from relay.core.vault import Vault
from relay.opens import MOST_WAITING, Opens
from relay.settings import read
from relay.store import db
from tests.bench import bars, machine, mail
from tests.bench.bars import Figure
from tests.bench.drive import arrival, generate
from tests.bench.figures import QUIET, Load, Stage, counting_cpu
from tests.bench.postferry import TRACKED
from tests.bench.readers import AGENTS, Rush, Waits, ask

RATE = 500  # pictures a second
SECONDS = 10.0
DELIVERIES = 5000
CROWD = MOST_WAITING
PATIENCE = 60.0  # s for what was fetched to be recorded
TRACKING = Load("tracking", "What tracking adds to a send, end to end", 4000)

POPULATE = (
    """
    insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit,
        send_at, splice)
    select md5('pixel' || n)::uuid, %(account)s, 'api', '<pixel' || n || '@sender.example>', 's@sender.example', 's',
        4096, 1, false, false, now(), '{}'
    from generate_series(1, %(count)s) n
    """,
    """
    insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at, expires_at,
        finished_at)
    select md5('pixel' || n)::uuid, %(account)s, 'reader' || n || '@readers.example', 'sent', false, 1, 10, now(),
        now() + interval '3 days', now() - n * interval '20 seconds'
    from generate_series(1, %(count)s) n
    """,
)
THERE = "select d.id from messages m join deliveries d on d.message_id = m.id where m.message_id like '<pixel%'"
RECORDED = "select coalesce(sum(fetches), 0) from opens"
BEGUN = """
select count(*) from pg_stat_activity
where query_start > %s and backend_type = 'client backend' and pid <> pg_backend_pid()
"""


def pictures(stage: Stage) -> Figure:
    """500 pictures a second of real mail at one API process, which records them meanwhile."""
    rush = Rush(stage.postferry.api_port, RATE, max(SECONDS * stage.scale, 4.0), tokens(stage))
    title = f"A pixel's picture, p99, while {RATE} a second arrive and are recorded"
    figure = Figure("pixel", title, " ms", {"postferry": []}, bars.under(10))
    found: list[Waits] = []
    behind: list[float] = []
    with psycopg.connect(stage.postferry.postgres.url, autocommit=True) as conn:
        for waits in rounds(stage, figure, rush):
            found.append(waits)
            behind.append(recorded(conn, sum(one.asked for one in found)))
    figure.notes.append(told(found))
    figure.notes.append(f"All {sum(one.asked for one in found):,} were recorded, {max(behind):.1f} s after the last.")
    if max(behind) >= PATIENCE:
        stage.faults.append("pixel: not every fetch was recorded")
    return figure


def flood(stage: Stage) -> Figure:
    """Pictures for tokens that nobody signed, at twice the rate; the store must not hear of them."""
    source = random.Random(1)
    made_up = [pixel.sign([source.randbytes(32)], source.getrandbits(40)) for _ in range(5000)]
    rush = Rush(stage.postferry.api_port, 2 * RATE, max(SECONDS * stage.scale / 2, 3.0), made_up)
    title = f"The same for made-up tokens, {rush.rate:,} a second"
    figure = Figure("pixel-flood", title, " ms", {"postferry": []}, bars.under(10))
    found: list[Waits] = []
    with psycopg.connect(stage.postferry.postgres.url, autocommit=True) as conn:
        (began,) = conn.execute("select clock_timestamp()").fetchone() or (None,)
        found.extend(rounds(stage, figure, rush))
        (begun,) = conn.execute(BEGUN, (began,)).fetchone() or (0,)
    figure.notes.append(told(found))
    figure.notes.append(f"Connections to PostgreSQL that were asked anything meanwhile: {begun}.")
    if begun:
        stage.faults.append("pixel-flood: made-up tokens reached the database")
    return figure


def crowd(stage: Stage) -> Figure:
    """Opens of one message, as many as memory holds, beside as many of many; what recording them costs, all told."""
    several = tokens(stage)
    title = "Recording opens of one message"
    figure = Figure("pixel-one", title, " us", {"of one": [], f"of {len(several):,}": []})
    for _ in range(stage.rounds):
        for values, chosen in zip(figure.values.values(), (several[:1], several), strict=True):
            before = machine.cpu_seconds(stage.postferry.processes["postgres"].pid)
            own = asyncio.run(record(stage, chosen))
            values.append(own + (machine.cpu_seconds(stage.postferry.processes["postgres"].pid) - before) * 1e6 / CROWD)
    figure.notes.append(f"CPU a fetch, of the recorder and of PostgreSQL, for {CROWD:,} that wait to be recorded.")
    return figure


async def record(stage: Stage, chosen: Sequence[str]) -> float:
    """Microseconds of our CPU for each."""
    settings = read(stage.postferry.environment, dotenv=None)
    pool = await db.open_pool(settings, most=1, generic=True)
    opens = Opens(pool, settings, Vault(settings.secret_keys).derive("pixel"))
    began = time.process_time()
    for number in range(CROWD):
        address = f"203.0.113.{number % 250}"
        opens.fetched(chosen[number % len(chosen)], "GET", address, AGENTS[number % len(AGENTS)])
    await opens.close()
    spent = time.process_time() - began
    await pool.close()
    return spent * 1e6 / CROWD


def tracking(stage: Stage) -> Figure:
    """The same mail from an account that tracks opens and from one that does not, by turns. Workers run."""
    senders = {"tracked": mail.SENDER, "untracked": mail.PLAIN_SENDER}
    figure = Figure("tracking", TRACKING.title, " ms", {who: [] for who in senders}, bars.adds_under(1))
    used = {who: Figure(who, who, "", {}) for who in senders}
    for turn in range(stage.rounds + 1):  # the first is a warm-up
        for who, sender in senders.items():
            plan = stage.plan(TRACKING, stage.postferry, share=1 if turn else 0.1)
            plan.sender = sender
            with counting_cpu(stage, used[who] if turn else Figure("", "", "", {}), stage.postferry, plan.count):
                result = generate(plan, stage.show)
                flow = arrival(plan, result, stage.sink, stage.show)
            stage.judge(plan, who, result, flow)
            if turn:
                figure.values[who].append(1000 / flow.rate)
                stage.show(f"tracking round {turn}/{stage.rounds}  {who} {1000 / flow.rate:.2f} ms a copy\n")
    spent = {who: sum(one.cpu.values()) / stage.rounds for who, one in used.items()}
    figure.cpu = spent
    figure.notes.append(
        f"CPU of all processes: {spent['tracked'] - spent['untracked']:+.0f} us a copy; "
        f"wall: {1000 * (figure.medians['tracked'] - figure.medians['untracked']):+.0f} us a copy."
    )
    return figure


def rounds(stage: Stage, figure: Figure, rush: Rush) -> Iterator[Waits]:
    """A warm-up of a second, which counts as well, and the rounds; CPU a picture goes to the figure."""
    yield ask(replace(rush, seconds=1.0))
    for turn in range(stage.rounds):
        with counting_cpu(stage, figure, stage.postferry, int(rush.rate * rush.seconds)):
            waits = ask(rush)
        if waits.wrong:
            stage.faults.append(f"{figure.name}: {waits.wrong} answers were no picture")
        figure.values["postferry"].append(waits.p99)
        stage.show(f"{figure.name} round {turn + 1}/{stage.rounds}  p99 {waits.p99:.2f} ms\n")
        yield waits
    figure.cpu = {role: microseconds / stage.rounds for role, microseconds in figure.cpu.items() if microseconds >= 1}
    if figure.disturbed > QUIET:
        figure.notes.append(f"Disturbed: in a round, others than the bench used {figure.disturbed:.0%} of the machine.")


def told(found: Sequence[Waits]) -> str:
    def middle(name: str) -> float:
        return statistics.median(getattr(waits, name) for waits in found[1:])

    shown = f"p50 {middle('p50'):.2f} ms, p99 {middle('p99'):.2f} ms, p99.9 {middle('p999'):.2f} ms"
    return f"{shown}, longest {max(waits.longest for waits in found[1:]):.1f} ms"


def tokens(stage: Stage) -> list[str]:
    """Of deliveries that were sent, put there for this."""
    keys = Vault(read(stage.postferry.environment, dotenv=None).secret_keys).derive("pixel")
    with psycopg.connect(stage.postferry.postgres.url, autocommit=True) as conn:
        ids = [row[0] for row in conn.execute(THERE).fetchall()]
        if not ids:
            for statement in POPULATE:
                conn.execute(statement, {"account": TRACKED, "count": DELIVERIES})
            conn.execute("vacuum analyze")
            ids = [row[0] for row in conn.execute(THERE).fetchall()]
    return [pixel.sign(keys, id) for id in ids]


def recorded(conn: psycopg.Connection[Any], number: int) -> float:
    """Waits until so many fetches are recorded; the seconds that took."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        (found,) = conn.execute(RECORDED).fetchone() or (0,)
        if found >= number:
            break
        time.sleep(0.05)
    return time.monotonic() - began
