"""What goes wrong, as data: each storm strikes, lasts for a while, and is over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

import redis

from tests.chaos.cable import Way
from tests.chaos.sink import Odds
from tests.chaos.stage import BESIDE, THERE, UP, Stage

LEASE = 3.0  # s, of the roles' settings
LONG = (LEASE + 1, LEASE + 2)  # s, least and most
BOTH = (UP, BESIDE)
LINES = ("postgres", "postgres beside", "valkey", "valkey beside", "upstream", "endpoint", "smtp", "api")
Act = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Storm:
    """`strike`, wait between `least` and `most` seconds, `pass_`.

    `doubts`: the hosts of whose mail nobody may know afterwards whether it has arrived. For all that is not a worker's
    end, its stand-still, or the loss of what it talks to, that is nobody: such a storm must cost not one copy.
    """

    name: str
    strike: Act
    pass_: Act
    doubts: tuple[str, ...] = ()
    least: float = 0.2
    most: float = 1.5


async def _nothing(stage: Stage) -> None: ...


async def _kill_role(name: str, stage: Stage) -> None:
    os.kill(await stage.running(name), signal.SIGKILL)


async def _kill_beside(name: str, stage: Stage) -> None:
    await stage.beside.kill(name)


async def _start_beside(stage: Stage) -> None:
    await stage.beside.start(*THERE)


async def _signal_role(name: str, number: int, stage: Stage) -> None:
    os.kill(await stage.running(name), number)


async def _signal_beside(name: str, number: int, stage: Stage) -> None:
    stage.beside.signal(name, number)


async def _freeze(name: str, frozen: bool, stage: Stage) -> None:
    getattr(stage, name).freeze(frozen)


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
    await asyncio.to_thread(stage.disk.fill)


async def _free_disk(stage: Stage) -> None:
    stage.disk.free()
    await stage.postgres_well()


async def _refuse_logins(stage: Stage) -> None:
    stage.sink.odds.refuse_login = 1.0


async def _allow_logins(stage: Stage) -> None:
    stage.sink.odds.refuse_login = Odds.refuse_login


async def _stop_sink(stage: Stage) -> None:
    await stage.sink.stop()


async def _start_sink(stage: Stage) -> None:
    await stage.sink.start()


async def _refuse_webhooks(stage: Stage) -> None:
    stage.receiver.when().say(500, b"not today")


async def _hang_webhooks(stage: Stage) -> None:
    stage.receiver.when().hang()


async def _take_webhooks(stage: Stage) -> None:
    stage.receiver.usual()
    stage.receiver.drop()


def all_storms(*, disk: bool, mailbox: bool) -> Iterator[Storm]:
    yield from _ends()
    yield from _stand_stills()
    yield from _lines(*LINES, *(["mailbox"] if mailbox else []))
    yield Storm("PostgreSQL stopped hard", _cut_postgres, _start_postgres, BOTH)
    yield Storm("Valkey flushed", _flush_valkey, _nothing)
    yield Storm("upstream refuses every login", _refuse_logins, _allow_logins)
    yield Storm("upstream is gone", _stop_sink, _start_sink, BOTH)
    yield Storm("the endpoint answers 500", _refuse_webhooks, _take_webhooks)
    yield Storm("the endpoint does not answer", _hang_webhooks, _take_webhooks)
    if disk:
        yield Storm("the database's disk is full", _fill_disk, _free_disk, BOTH, 1, 3)


def _ends() -> Iterator[Storm]:
    for name in ("smtp", "api", "worker", "scheduler", "notify", "mailbox"):
        yield Storm(f"SIGKILL of {name}", partial(_kill_role, name), _nothing, (UP,) if name == "worker" else ())
    for name in THERE:
        doubts = (BESIDE,) if name == "worker" else ()
        yield Storm(f"SIGKILL of the other host's {name}", partial(_kill_beside, name), _start_beside, doubts)
    yield Storm("SIGKILL of the supervisor", _kill_up, _start_up, (UP,))
    yield Storm("SIGKILL of Valkey", _cut_valkey, _start_valkey)


def _stand_stills() -> Iterator[Storm]:
    for name in ("worker", "scheduler", "smtp", "api", "notify", "mailbox"):
        stop, go = partial(_signal_role, name, signal.SIGSTOP), partial(_signal_role, name, signal.SIGCONT)
        yield Storm(f"SIGSTOP of {name}, longer than a lease", stop, go, (UP,) if name == "worker" else (), *LONG)
    stop, go = (partial(_signal_beside, "worker", number) for number in (signal.SIGSTOP, signal.SIGCONT))
    yield Storm("SIGSTOP of the other host's worker, longer than a lease", stop, go, (BESIDE,), *LONG)
    stop, go = partial(_freeze, "valkey", True), partial(_freeze, "valkey", False)
    yield Storm("SIGSTOP of Valkey, longer than a lease", stop, go, (), *LONG)


def _lines(*names: str) -> Iterator[Storm]:
    parted = {"postgres": (UP,), "postgres beside": (BESIDE,), "upstream": BOTH}
    for name in names:
        for way in (Way.CUT, Way.SILENT):
            strike, pass_ = partial(_cable, name, way), partial(_cable, name, Way.OPEN)
            yield Storm(f"the line to {name} is {way.value}", strike, pass_, parted.get(name, ()), 1, 5)


def schedule(rng: random.Random, storms: list[Storm]) -> Iterator[tuple[Storm, float, float]]:
    """Storms for ever, each with seconds that it lasts and seconds of peace after it; every one before any twice."""
    while True:
        rng.shuffle(storms)
        for storm in storms:
            yield storm, rng.uniform(storm.least, storm.most), rng.uniform(0.3, 2.0)
