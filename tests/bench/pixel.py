"""Pixels: how soon the picture comes while opens are recorded, what a flood of made-up ones costs, what tracking adds.

The readers are a process of their own, `python -m tests.bench.pixel`, which reads a Rush as JSON and writes Waits. They
ask at times that were set before, however late the answers are, and count from those times: who stalls is not spared.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
import uvloop

from relay.core import pixel
from relay.core.vault import Vault
from relay.settings import read
from tests.bench import bars, mail
from tests.bench.bars import Figure
from tests.bench.drive import arrival, generate
from tests.bench.figures import QUIET, Load, Stage, counting_cpu
from tests.bench.postferry import TRACKED
from tests.stack import until

RATE = 500  # pictures a second
SECONDS = 10.0
DELIVERIES = 5000
CONNECTIONS = 50
PATIENCE = 60.0  # s for what was fetched to be recorded
SHARES = (0.5, 0.99, 0.999)
TRACKING = Load("tracking", "What tracking adds to a send, end to end", 4000)

AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)
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
    returning id
    """,
)
RECORDED = "select coalesce(sum(fetches), 0) from opens"
BEGUN = """
select count(*) from pg_stat_activity
where query_start > %s and backend_type = 'client backend' and pid <> pg_backend_pid()
"""


@dataclass
class Rush:
    """What the readers ask for: so many a second, over and over these tokens, with one of these agents."""

    port: int
    rate: int
    seconds: float
    tokens: Sequence[str]
    agents: Sequence[str] = AGENTS


@dataclass
class Waits:
    """How long the pictures took, in ms: at 50, 99 and 99.9 of 100, and the longest. `wrong`: answers without one."""

    asked: int
    wrong: int
    p50: float
    p99: float
    p999: float
    longest: float


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
    yield ask(Rush(**{**asdict(rush), "seconds": 1.0}))
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
        given = {"account": TRACKED, "count": DELIVERIES}
        ids = [row[0] for cursor in [conn.execute(one, given) for one in POPULATE][1:] for row in cursor.fetchall()]
        conn.execute("vacuum analyze")
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


def ask(rush: Rush) -> Waits:
    """Runs the readers."""
    command = [sys.executable, "-m", "tests.bench.pixel"]
    done = subprocess.run(command, input=json.dumps(asdict(rush)), capture_output=True, text=True, check=True)
    return Waits(**json.loads(done.stdout))


class Reader(asyncio.Protocol):
    """One connection: asks when it is told to, notes how long each answer took since the time it was meant for."""

    def __init__(self, waits: list[float], wrong: list[bytes]) -> None:
        self._waits, self._wrong = waits, wrong
        self._due: list[float] = []
        self._got = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        self._due.append(due)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (head := self._got.find(b"\r\n\r\n")) >= 0:
            end = head + 4 + len(pixel.GIF)
            if len(self._got) < end:
                return
            self._waits.append(time.monotonic() - self._due.pop(0))
            if not (self._got.startswith(b"HTTP/1.1 200 ") and self._got[head + 4 : end] == pixel.GIF):
                self._wrong.append(self._got[:end])
            self._got = self._got[end:]


async def read_all(rush: Rush) -> Waits:
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    wrong: list[bytes] = []
    readers: list[Any] = [
        (await loop.create_connection(lambda: Reader(waits, wrong), "127.0.0.1", rush.port))[1]
        for _ in range(CONNECTIONS)
    ]
    source = random.Random(0)
    count = int(rush.rate * rush.seconds)
    began = time.monotonic() + 0.1
    due = began
    for number in range(count):
        due += source.expovariate(rush.rate)  # as people come: not in step
        await asyncio.sleep(max(due - time.monotonic(), 0))
        path, agent = source.choice(rush.tokens), source.choice(rush.agents)
        request = f"GET /t/{path}.gif HTTP/1.1\r\nHost: t.example\r\nUser-Agent: {agent}\r\n\r\n".encode()
        readers[number % CONNECTIONS].ask(request, due)
    with suppress(AssertionError):  # what has not come by now is wrong
        await until(lambda: len(waits) == count)
    found = sorted(1000 * wait for wait in waits)
    half, most, nearly = (found[int(len(found) * share)] for share in SHARES)
    return Waits(count, count - len(waits) + len(wrong), half, most, nearly, found[-1])


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(read_all(Rush(**json.load(sys.stdin)))))))
