"""What a run of a target came to, out of what libFuzzer said, and all of it as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench import machine

MARKS = ("<!-- FUZZ -->", "<!-- /FUZZ -->")
_PROGRESS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+)", re.MULTILINE)
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """`edges`: of our own code, as far as the target imports it. `crashes`: the files of what was found."""

    name: str
    seconds: float
    executions: int
    edges: int
    crashes: Sequence[str]
    ended: str = ""  # why it stopped before its time; "" = it did not


def read(name: str, seconds: float, said: str, crashes: Sequence[str], status: int) -> Outcome:
    """`said`: everything the driver printed."""
    progress = _PROGRESS.findall(said)
    executed = _EXECUTED.findall(said)
    executions = int(executed[-1]) if executed else max((int(number) for number, _ in progress), default=0)
    ended = "" if status == 0 and progress else (said.strip().splitlines() or ["it said nothing"])[-1]
    return Outcome(name, seconds, executions, max((int(edges) for _, edges in progress), default=0), crashes, ended)


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (one.name, f"{one.seconds:.0f} s", f"{one.executions:,}", f"{one.edges:,}", len(one.crashes))
        for one in outcomes
    ]
    seconds, executions = sum(one.seconds for one in outcomes), sum(one.executions for one in outcomes)
    rows.append(("all", f"{seconds:.0f} s", f"{executions:,}", "", sum(len(one.crashes) for one in outcomes)))
    head = ["| target | time | executions | edges covered | crashes |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*head, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def marked(outcomes: Sequence[Outcome]) -> str:
    """The block of docs/proof.md."""
    return "\n".join((MARKS[0], f"{machine.where()}.", "", table(outcomes), MARKS[1]))
