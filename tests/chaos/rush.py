"""What two hosts carry beside one: the same mails handed over and sent on, by one host and by both.

python -m tests.chaos.rush sink ADDRESS    # an upstream of the bench there; prints its port, answers questions
python -m tests.chaos.rush load JSON       # hands over mail at some doors; prints how many were accepted
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvloop

from relay import enrol
from relay.core.vault import Vault
from relay.store import db
from tests.bench import machine, mail
from tests.bench.sink import Run, Upstream
from tests.chaos.islands import WORLD, Host, Islands
from tests.stack import ALL

ACCOUNTS = 20
SIZE = 4096
CONNECTIONS = 40  # of the applications, over all doors
PATIENCE = 120.0  # s for one measurement
FAR = 0.05  # s of the second trial's round trip to upstream
FEW = 8  # leases that a host then has in hand at once
COMMAND = (sys.executable, "-m", "tests.chaos.rush")
OWN = {
    "LEASE_SECONDS": "60",
    "LEASE_BUDGET": "15",
    "COMMAND_TIMEOUT": "30",
    "DATA_TIMEOUT": "30",
    "TICK_SECONDS": "0.5",
}


@dataclass(frozen=True)
class Trial:
    """One way to measure: all that the machine gives, or as much as few hands can carry a long way."""

    name: str
    far: float
    settings: dict[str, str]
    share: float  # of the messages


TRIALS = (
    Trial("upstream is near: the machine's cores decide", 0.0, {}, 1.0),
    Trial(
        f"upstream is {FAR * 1000:g} ms away, {FEW} hands a host",
        FAR,
        {"WORKER_LEASES": str(FEW), "LEASE_SIZE": "5"},
        0.5,
    ),
)


@dataclass(frozen=True)
class Row:
    """What so many hosts did. `cpu`: cores used by whom meanwhile."""

    trial: str
    hosts: int
    rate: float  # messages a second, from the first word to the last copy taken
    cpu: dict[str, float]


async def compare(islands: Islands, messages: int) -> list[Row]:
    """Each trial with host one, then with both. The roles are started anew for it."""
    rows = []
    for number, trial in enumerate(TRIALS):
        count = int(messages * trial.share)
        for host in islands.hosts.values():
            await host.kill(*(role for role in ALL if host.runs(role)))
        async with _sink(trial.far) as sink:
            await _enrol(islands, sink)
            chosen: list[Host] = []
            for host in islands.hosts.values():
                await host.start(*ALL, **OWN | trial.settings)
                chosen.append(host)
                await _rush(
                    f"{number}{len(chosen)}000000", count // 10, chosen, sink, islands
                )  # what is cold gets warm
                rate, cpu = await _rush(f"{number}{len(chosen)}000001", count, chosen, sink, islands)
                rows.append(Row(trial.name, len(chosen), rate, cpu))
    return rows


def table(rows: list[Row]) -> list[str]:
    """In Markdown; the second row of each trial has its ratio to the first."""
    if not rows:
        return []
    lines = [
        f"| on {machine.CORES} cores | hosts | messages/s | ratio | cores used by one, two, the store, the world |",
        "|---|---|---|---|---|",
    ]
    alone: dict[str, float] = {}
    for row in rows:
        first = alone.setdefault(row.trial, row.rate)
        cpu = ", ".join(f"{row.cpu[name]:.2f}" for name in ("one", "two", "store", "world"))
        lines.append(f"| {row.trial} | {row.hosts} | {row.rate:.0f} | {row.rate / first:.2f} | {cpu} |")
    return lines


async def _rush(
    run: str, count: int, hosts: list[Host], sink: asyncio.subprocess.Process, islands: Islands
) -> tuple[float, dict[str, float]]:
    plan = {"run": run, "count": count, "doors": [[host.door.host, host.door.smtp] for host in hosts]}
    before, began = _cpu(islands, sink), time.monotonic()
    load = await asyncio.create_subprocess_exec(*COMMAND, "load", json.dumps(plan), stdout=subprocess.PIPE)
    try:
        said, _ = await asyncio.wait_for(load.communicate(), PATIENCE)
    finally:
        if load.returncode is None:
            load.kill()
    result = json.loads(said)
    assert result["accepted"] == count, f"{result['accepted']} of {count} were accepted"
    end = time.monotonic() + PATIENCE
    while (taken := await _asked(sink, run))["unique"] < count:
        assert time.monotonic() < end, f"{taken['unique']} of {count} were sent on"
        await asyncio.sleep(0.05)
    seconds, wall = taken["last"] - result["began"], time.monotonic() - began
    after = _cpu(islands, sink)
    used = {name: (after[name] - before[name]) / wall for name in before}
    used["world"] += result["cpu"] / wall
    return count / seconds, used


def _cpu(islands: Islands, sink: asyncio.subprocess.Process) -> dict[str, float]:
    hosts = {name: host.cpu() for name, host in islands.hosts.items()}
    return hosts | {"store": islands.cpu(), "world": machine.cpu_seconds(sink.pid)}


async def _enrol(islands: Islands, sink: asyncio.subprocess.Process) -> None:
    """The accounts, at this upstream."""
    assert sink.stdout is not None
    port = int(await sink.stdout.readline())
    pool = await db.open_pool(islands.direct, most=1)
    settings = islands.direct
    for number in range(ACCOUNTS):
        smtp = {"host": WORLD, "port": port, "secure": False, "tls": {"mode": "none"}}
        given = {"email": f"{_name(number)}@here.example", "smtp": smtp, "tracking": {"opens": False}}
        await enrol.save(pool, Vault(settings.secret_keys), settings, _name(number), given)
    await pool.close()


async def _asked(sink: asyncio.subprocess.Process, run: str) -> dict[str, Any]:
    assert sink.stdin is not None
    assert sink.stdout is not None
    sink.stdin.write(run.encode() + b"\n")
    return dict(json.loads(await sink.stdout.readline()))


@asynccontextmanager
async def _sink(far: float) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "sink", str(far), stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def _name(number: int) -> str:
    return f"rush{number}"


# -- the two other processes -------------------------------------------------------------------------------------------


class Far(Upstream):
    """It hears everything a round trip later."""

    away = 0.0

    def data_received(self, data: bytes) -> None:
        if self.away:
            asyncio.get_running_loop().call_later(self.away, super().data_received, data)
        else:
            super().data_received(data)


async def take(far: float) -> None:
    """Until stdin ends, which asks for runs."""
    Far.away = far
    runs: defaultdict[str, Run] = defaultdict(Run)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Far(runs), WORLD, 0, backlog=512)
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    print(server.sockets[0].getsockname()[1], flush=True)
    while question := (await questions.readline()).strip():
        print(json.dumps(runs[question.decode()].report(times=False)), flush=True)


async def give(run: str, count: int, doors: list[tuple[str, int]]) -> None:
    """Over connections that are kept, to the doors by turns; each asks for its replies together."""
    numbers, content, accepted, began = iter(range(count)), mail.content(run, SIZE), 0, time.monotonic()

    async def one(door: tuple[str, int]) -> None:
        nonlocal accepted
        reader, writer = await asyncio.open_connection(*door)
        await _replies(reader, 1)
        writer.write(b"EHLO rush\r\n")
        await _replies(reader, 1)
        for number in numbers:
            sender = f"{_name(number % ACCOUNTS)}@here.example"
            writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<r{number}@there.example>\r\nDATA\r\n".encode())
            await _replies(reader, 3)
            writer.write(content(number))
            reply = await _replies(reader, 1)
            accepted += reply.startswith(b"250")
            if not reply.startswith(b"250"):
                print(reply.decode(), file=sys.stderr)
        writer.close()

    await asyncio.gather(*(one(doors[place % len(doors)]) for place in range(CONNECTIONS)))
    print(json.dumps({"accepted": accepted, "began": began, "cpu": time.process_time()}), flush=True)


async def _replies(reader: asyncio.StreamReader, number: int) -> bytes:
    """The last of so many."""
    while number:
        line = await reader.readline()
        assert line, "cut off"
        number -= line[3:4] == b" "
    return line


if __name__ == "__main__":
    what, how = sys.argv[1:]
    if what == "sink":
        uvloop.run(take(float(how)))
    else:
        plan = json.loads(how)
        uvloop.run(give(plan["run"], plan["count"], [tuple(door) for door in plan["doors"]]))
