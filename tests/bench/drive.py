"""Runs the generator and the sink as processes, and reconciles what one handed over with what the other took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from tests.bench.load import Plan, Result

Show = Callable[[str], None]
"""Told what is going on, to show it."""

STALL = 15.0  # seconds without a single message at the sink: what is not there by then is lost
RUNS = (f"{number:08x}" for number in count(1))


@dataclass
class Flow:
    """One run from generator to sink. `seconds` is from the first submission to the last arrival."""

    result: Result
    copies: int  # accepted messages times their recipients
    arrived: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0
    last: float = 0.0  # the last arrival, on time.monotonic()
    delays: list[float] = field(
        default_factory=list
    )  # last byte at the submission -> last byte at the sink; with a gap only

    @property
    def rate(self) -> float:
        return self.arrived / self.seconds if self.seconds else 0.0


class Sink:
    """The upstream's process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.sink"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def ask(self, run: str, *, times: bool = False, forget: bool = False) -> dict[str, Any]:
        """What it has of a run; `forget`: from then on nothing."""
        assert self.process.stdin
        print(run, "times" if times else "", "forget" if forget else "", file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def stop(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(5)


@contextmanager
def sink() -> Iterator[Sink]:
    running = Sink()
    try:
        yield running
    finally:
        running.stop()


def next_run() -> str:
    """A name for a run that no other run of this bench has."""
    return next(RUNS)


def generate(plan: Plan, show: Show) -> Result:
    """Run the generator to its end."""
    command = [sys.executable, "-m", "tests.bench.load", json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{"):
                return Result(**json.loads(line))
            show(f"{int(line):,} of {plan.count:,} handed over")
    raise RuntimeError(f"the generator ended with exit code {process.returncode}")


def arrival(plan: Plan, result: Result, sink: Sink, show: Show) -> Flow:
    """Wait until everything that was accepted has come to the sink, or nothing comes any more."""
    ended = Flow(result, copies=result.accepted * plan.recipients)
    moved, before = time.monotonic(), -1
    while True:
        report = sink.ask(plan.run)
        if report["taken"] != before:
            moved, before = time.monotonic(), report["taken"]
        if report["unique"] >= ended.copies or time.monotonic() > moved + STALL:
            break
        show(f"{report['unique']:,} of {ended.copies:,} arrived")
        time.sleep(0.05)
    ended.arrived = report["unique"]
    ended.lost = max(ended.copies - report["unique"], 0)
    ended.doubled = report["taken"] - report["unique"]
    ended.last = report["last"]
    ended.seconds = ended.last - result.started
    if result.written:
        times = sink.ask(plan.run, times=True)["times"]
        ended.delays = [times[mark] - at for mark, at in result.written.items() if mark in times]
    return ended
