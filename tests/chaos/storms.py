"""What goes wrong, as data: each storm strikes, lasts for a while, and is over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import redis

from tests.chaos.cable import Way
from tests.chaos.stage import Stage

LEASE = 3.0  # s, of the roles' settings
Act = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Storm:
    """`strike`, wait between `least` and `most` seconds, `pass_`."""

    name: str
    strike: Act
    pass_: Act
    least: float = 0.2
    most: float = 1.5


async def _nothing(stage: Stage) -> None: ...


async def _kill_role(name: str, stage: Stage) -> None:
    if pid := stage.role(name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _kill_beside(name: str, stage: Stage) -> None:
    if stage.beside.runs(name):
        await stage.beside.kill(name)


async def _start_beside(stage: Stage) -> None:
    await stage.beside.start("worker", "scheduler", "notify")


async def _signal_role(name: str, number: int, stage: Stage) -> None:
    if pid := stage.role(name):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _cut_postgres(stage: Stage) -> None:
    await asyncio.to_thread(stage.postgres.cut, signal.SIGQUIT)


async def _start_postgres(stage: Stage) -> None:
    await asyncio.to_thread(stage.postgres.start)


async def _cut_valkey(stage: Stage) -> None:
    await asyncio.to_thread(stage.valkey.cut, signal.SIGKILL)


async def _start_valkey(stage: Stage) -> None:
    await asyncio.to_thread(stage.valkey.start)


async def _flush_valkey(stage: Stage) -> None:
    with redis.from_url(stage.valkey.server.url) as client:  # type: ignore[no-untyped-call]
        client.flushall()


async def _kill_up(stage: Stage) -> None:
    await stage.kill_up()


async def _start_up(stage: Stage) -> None:
    await stage.start_up()


async def _cable(name: str, way: Way, stage: Stage) -> None:
    stage.cables[name].become(way)


async def _fill_disk(stage: Stage) -> None:
    await asyncio.to_thread(stage.fill_disk)


async def _free_disk(stage: Stage) -> None:
    """A PostgreSQL that gave up for want of space is started again, as whoever keeps it would."""
    stage.free_disk()
    if not stage.postgres_runs():
        stage.postgres.forget()
        await asyncio.to_thread(stage.postgres.start)


async def _refuse_logins(stage: Stage) -> None:
    stage.sink.odds.refuse_login = 1.0


async def _allow_logins(stage: Stage) -> None:
    stage.sink.odds.refuse_login = 0.0


async def _stop_sink(stage: Stage) -> None:
    await stage.sink.stop()


async def _start_sink(stage: Stage) -> None:
    await stage.sink.start()


def all_storms(*, disk: bool) -> Iterator[Storm]:
    for name in ("smtp", "api", "worker", "scheduler", "notify", "mailbox"):
        yield Storm(f"SIGKILL of {name}", partial(_kill_role, name), _nothing)
    for name in ("worker", "scheduler", "notify"):
        yield Storm(f"SIGKILL of the other host's {name}", partial(_kill_beside, name), _start_beside)
    yield Storm("SIGKILL of the supervisor", _kill_up, _start_up)
    for name in ("worker", "scheduler"):
        stop, go = partial(_signal_role, name, signal.SIGSTOP), partial(_signal_role, name, signal.SIGCONT)
        yield Storm(f"SIGSTOP of {name} for longer than a lease", stop, go, LEASE + 1, LEASE + 2)
    yield Storm("PostgreSQL stopped hard", _cut_postgres, _start_postgres)
    yield Storm("SIGKILL of Valkey", _cut_valkey, _start_valkey)
    yield Storm("Valkey flushed", _flush_valkey, _nothing)
    for name in ("postgres", "postgres beside", "valkey", "valkey beside", "upstream", "endpoint", "smtp", "api"):
        for way in (Way.CUT, Way.SILENT):
            yield Storm(
                f"the line to {name} is {way.value}", partial(_cable, name, way), partial(_cable, name, Way.OPEN), 1, 5
            )
    yield Storm("upstream refuses every login", _refuse_logins, _allow_logins)
    yield Storm("upstream is gone", _stop_sink, _start_sink)
    if disk:
        yield Storm("the database's disk is full", _fill_disk, _free_disk, 1, 3)


def schedule(rng: random.Random, storms: list[Storm]) -> Iterator[tuple[Storm, float, float]]:
    """Storms for ever, each with seconds that it lasts and seconds of peace after it; every one before any twice."""
    while True:
        rng.shuffle(storms)
        for storm in storms:
            yield storm, rng.uniform(storm.least, storm.most), rng.uniform(0.3, 2.0)
