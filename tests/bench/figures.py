"""What is measured. Rounds of Postferry and Postfix alternate, so that a slow minute is slow for both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.bench import bars, lease, machine, mail
from tests.bench.bars import Bar, Figure
from tests.bench.drive import Flow, Show, Sink, arrival, generate, next_run
from tests.bench.load import Plan, Result
from tests.bench.postferry import TRACKED, Postferry
from tests.bench.postfix import Postfix

CONNECTIONS = 20
QUIET = 0.1  # of the machine may go to others in a round; more is said


@dataclass(frozen=True)
class Load:
    """What a figure sends. `count`: messages in a full round; `postfix`: the port of it that does the same work."""

    name: str
    title: str
    count: int
    plan: dict[str, Any] = field(default_factory=dict)
    bar: Bar | None = None
    postfix: str = "relaying"
    unit: str = "/s"
    notes: tuple[str, ...] = ()


HELD = "Delivery is held off in both: no worker of Postferry runs, Postfix puts the mail on hold (it logs no delivery)."
ACCEPTS = (
    Load("accept", "Durably accepted, connections reused", 5000, {}, bars.times_postfix(3), "holding", notes=(HELD,)),
    Load(
        "accept-new", "Durably accepted, new connection each", 3000, {"reuse": False}, bars.times_postfix(3), "holding"
    ),
    Load(
        "api", "Submitted by API", 4000, {"protocol": "http"}, bars.at_least(1000), "", notes=("Delivery is held off.",)
    ),
)
FLOWS = (
    Load("relay", "End to end, 4 KB tracked HTML, connections reused", 4000, {}, bars.times_postfix(2)),
    Load(
        "relay-new",
        "End to end, 4 KB tracked HTML, new connection each",
        3000,
        {"reuse": False},
        bars.times_postfix(1.2),
    ),
    Load(
        "fan-out",
        "End to end, one message to 50 recipients, copies",
        80,
        {"recipients": 50},
        bars.times_postfix(2),
        "copying",
        notes=("A copy for each recipient, as personal pixels ask for; Postfix with one recipient a transaction.",),
    ),
    Load(
        "fan-out-shared",
        "The same untracked: 50 recipients share a transaction",
        80,
        {"recipients": 50, "sender": mail.PLAIN_SENDER},
        notes=("What either does when all copies are alike.",),
    ),
    Load(
        "relay-50k", "End to end, 50 KB tracked HTML, connections reused", 1500, {"size": 51200}, bars.times_postfix(2)
    ),
)
IDLE = Load(
    "idle",
    "Idle: submitted to upstream has it, median",
    200,
    {"connections": 1, "reuse": False, "gap": 0.1},
    bars.under(60),
    unit=" ms",
    notes=("From the last byte of the submission to the last byte at the upstream, one message at a time.",),
)
LEASES = {
    "lease": (
        f"A lease of {lease.SIZE} beside scheduled deliveries of {lease.ACCOUNTS:,} accounts",
        bars.flat_within(1.5),
        {"1,000,000": lease.Load(1_000_000, 20, 500), "1,000": lease.Load(1_000, 20, 500)},
    ),
    "lease-backlog": (
        f"A lease of {lease.SIZE} beside deliveries that are all due",
        None,
        {"1,000,000": lease.Load(0, 10_000, 100), "1,000": lease.Load(0, 20, 50)},
    ),
}
OTHERS = ("drain", "memory", *LEASES, "tracking", "pixel", "pixel-flood", "pixel-one", "statistics", "tracking-list")
NAMES = (*(load.name for load in (*ACCEPTS, *FLOWS, IDLE)), *OTHERS)


@dataclass
class Stage:
    """What the figures are measured on."""

    postferry: Postferry
    postfix: Postfix | None
    sink: Sink
    show: Show
    rounds: int = 3
    scale: float = 1.0  # of every count
    faults: list[str] = field(default_factory=list)  # mail lost, doubled or refused

    @property
    def systems(self) -> Sequence[Postferry | Postfix]:
        return [self.postferry, self.postfix] if self.postfix else [self.postferry]

    def plan(self, load: Load, system: Postferry | Postfix, share: float = 1.0) -> Plan:
        given = {"connections": CONNECTIONS} | load.plan
        if isinstance(system, Postfix):
            port = getattr(system, load.postfix)
        elif given.get("protocol") == "http":
            port = system.api_port
            given |= {"path": f"/v1/account/{TRACKED}/submit", "token": system.token}
        else:
            port = system.smtp_port
        count = max(int(load.count * self.scale * share), 10)
        return Plan(run=next_run(), name=load.name, port=port, count=count, **given)

    def judge(self, plan: Plan, who: str, result: Result, flow: Flow | None = None) -> None:
        """Whatever did not go exactly once is said."""
        found = {"refused": result.refused, "of unknown fate": result.unknown}
        found |= {"LOST": flow.lost, "DOUBLED": flow.doubled} if flow else {}
        found = {what: number for what, number in found.items() if number}
        if found or result.replies:
            counts = ", ".join(f"{number} {what}" for what, number in found.items())
            self.faults.append(f"{plan.name}, {who}: {counts or 'trouble'} {' | '.join(result.replies)}".rstrip())


def alternate(stage: Stage, load: Load, run: Callable[[Plan, Postferry | Postfix], float]) -> Figure:
    """A warm-up, then `rounds` of each system by turns."""
    systems = stage.systems if load.postfix else [stage.postferry]
    figure = Figure(
        load.name, load.title, load.unit, {system.name: [] for system in systems}, load.bar, list(load.notes)
    )
    for system in systems:
        run(stage.plan(load, system, share=0.1), system)
    for turn in range(stage.rounds):
        for system in systems:
            plan = stage.plan(load, system)
            with counting_cpu(stage, figure, system, plan.count * plan.recipients):
                value = run(plan, system)
            figure.values[system.name].append(value)
            stage.show(f"{load.name} round {turn + 1}/{stage.rounds}  {system.name} {value:,.0f}{load.unit}\n")
            stage.postferry.check_alive()
    rounds = len(figure.values[systems[0].name])
    figure.cpu = {role: microseconds / rounds for role, microseconds in figure.cpu.items()}
    if figure.disturbed > QUIET:
        figure.notes.append(f"Disturbed: in a round, others than the bench used {figure.disturbed:.0%} of the machine.")
    return figure


@contextmanager
def counting_cpu(stage: Stage, figure: Figure, system: Postferry | Postfix, copies: int) -> Iterator[None]:
    """Adds the CPU that each role used to the figure, as microseconds per copy, and notes what others used."""
    own = {"postfix": system.process} if isinstance(system, Postfix) else system.processes
    pids = {name: process.pid for name, process in own.items()} | {f"sink for {system.name}": stage.sink.process.pid}
    before = {name: machine.cpu_seconds(pid) for name, pid in pids.items()}
    others, began = foreign_seconds(), time.monotonic()
    yield
    share = (foreign_seconds() - others) / (time.monotonic() - began) / machine.CORES
    figure.disturbed = max(figure.disturbed, share)
    for name, pid in pids.items():
        used = (machine.cpu_seconds(pid) - before[name]) * 1e6 / copies
        figure.cpu[name] = figure.cpu.get(name, 0.0) + used


def foreign_seconds() -> float:
    """CPU that others than the bench have used."""
    return machine.busy_seconds() - machine.cpu_seconds(os.getpid())


def accepts(stage: Stage, loads: Sequence[Load], drain: bool) -> Iterator[Figure]:
    """How fast mail is accepted while none is delivered; then all of it is delivered, and counted."""
    handed: list[tuple[Plan, Result]] = []

    def run(plan: Plan, system: Postferry | Postfix) -> float:
        held = system.held() if isinstance(system, Postfix) else 0
        result = generate(plan, stage.show)
        flow = None
        if isinstance(system, Postfix):
            flow = Flow(result, result.accepted, lost=result.accepted - (system.held() - held))
        else:
            handed.append((plan, result))
        stage.judge(plan, system.name, result, flow)
        return result.accepted / (result.ended - result.started)

    for load in loads:
        yield alternate(stage, load, run)
    with stage.postferry.delivering():
        figure = drained(stage, handed)
        if drain and handed:
            yield figure


def drained(stage: Stage, handed: Sequence[tuple[Plan, Result]]) -> Figure:
    """The backlog that accepting left: how fast it goes, and whether it is all there."""
    began = time.monotonic()
    copies, last = 0, began
    for plan, result in handed:
        flow = arrival(plan, result, stage.sink, stage.show)
        stage.judge(plan, "postferry", Result(), flow)
        copies, last = copies + flow.arrived, max(last, flow.last)
    rate = copies / max(last - began, 0.001)
    note = f"{copies:,} messages that had been accepted while no worker ran; the workers' start included."
    return Figure("drain", "Backlog delivered", "/s", {"postferry": [rate]}, notes=[note])


def flows(stage: Stage, loads: Sequence[Load]) -> Iterator[Figure]:
    """From the application to the upstream, first submission to last arrival."""

    def run(plan: Plan, system: Postferry | Postfix) -> float:
        result = generate(plan, stage.show)
        flow = arrival(plan, result, stage.sink, stage.show)
        stage.judge(plan, system.name, result, flow)
        return flow.rate

    for load in loads:
        yield alternate(stage, load, run)


def idle(stage: Stage) -> Figure:
    """How long one message takes when there is nothing else to do."""
    delays: dict[str, list[float]] = {}

    def run(plan: Plan, system: Postferry | Postfix) -> float:
        result = generate(plan, stage.show)
        flow = arrival(plan, result, stage.sink, stage.show)
        stage.judge(plan, system.name, result, flow)
        delays[system.name] = sorted(delay * 1000 for delay in flow.delays)
        return statistics.median(delays[system.name])

    once = Stage(
        stage.postferry, stage.postfix, stage.sink, stage.show, 1, min(stage.scale * 1.5, 1), faults=stage.faults
    )
    figure = alternate(once, IDLE, run)
    for who, found in delays.items():
        most = found[len(found) * 99 // 100]
        figure.details[who] = {"p50": statistics.median(found), "p99": most, "count": len(found)}
        figure.notes.append(
            f"{who}: p50 {statistics.median(found):.1f} ms, p99 {most:.1f} ms over {len(found)} messages"
        )
    figure.cpu.clear()
    return figure


def memory(stage: Stage) -> Figure:
    """Resident memory after the load."""
    held = {name: machine.memory(process.pid) for name, process in stage.postferry.processes.items()}
    total = sum(held.values(), machine.Memory())
    rows = [f"{name:<10} RSS {one.rss:6.0f} MB   PSS {one.pss:6.0f} MB" for name, one in held.items()]
    rows.append(
        f"{'all':<10} RSS {total.rss:6.0f} MB   PSS {total.pss:6.0f} MB  (RSS counts a shared page in each process)"
    )
    rows.append("The supervisor of `postferry up` is not among them: the bench starts the roles itself.")
    details = {name: {"rss_mb": one.rss, "pss_mb": one.pss} for name, one in (held | {"all": total}).items()}
    values = {"postferry": [total.pss]}
    if stage.postfix:
        values["postfix"] = [machine.memory(stage.postfix.process.pid).pss]
    title = "Resident after the load, PostgreSQL and Valkey included"
    return Figure("memory", title, " MB", values, bars.under(600), rows, details=details)


def leases(stage: Stage, name: str) -> Figure:
    """One lease beside few and beside very many deliveries."""
    title, bar, loads = LEASES[name]
    costs: dict[str, list[lease.Cost]] = {}
    databases = {}
    for number, (size, load) in enumerate(loads.items()):
        stage.show(f"filling a database for the lease beside {size}")
        databases[size] = stage.postferry.database(f"{name}_{number}")
        lease.populate(databases[size], load)
    for _ in range(stage.rounds):
        for size, url in databases.items():
            stage.show(f"leasing beside {size}")
            costs.setdefault(f"beside {size}", []).append(lease.measure(url, times=150))
    values = {who: [cost.total for cost in found] for who, found in costs.items()}
    notes = []
    for who, found in costs.items():
        claim, start = (statistics.median(getattr(cost, step) for cost in found) for step in ("claim", "start"))
        notes.append(f"{who}: found and claimed in {claim:.2f} ms, started in {start:.2f} ms")
    return Figure(name, title, " ms", values, bar, notes)
