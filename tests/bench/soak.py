"""`make soak`: half an hour at 70 % of what this machine can do. Nothing may grow that need not.

SOAK_SECONDS (1800) is how long. First it measures how much is possible, in several runs as fast as they go, in which
mail leaves as fast as it comes. The slowest of them counts: machines have slower minutes, and what is more can be had
for a while and not be kept up. Then mail comes at 70 % of it, at a steady pace, by SMTP and a little by API, with every
role at work, and leaves again by retention after a while. Every ten seconds it looks at each role's memory, at how long
mail takes, and at the tables. The first five minutes, of a short run the first fifth, are to warm up; the rest is
judged.
"""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import drive, machine, postferry, proof, report
from tests.bench.drive import Sink, arrival, generate, next_run
from tests.bench.load import Plan, Result
from tests.bench.postferry import TRACKED, Postferry
from tests.bench.tables import Tables
from tests.bench.verdicts import Series, judged

SHARE = 0.7
EVERY = 10.0  # s between two looks
WARM = 300.0  # s
BY_API = 0.05  # of the messages
READERS = 20_000  # people
CONNECTIONS = 20
EARLY = 2.0  # s before its time that a generator is started
MOST = 20_000  # messages of one run: some ten seconds
RUNS = 10
AT_ONCE = 10.0  # s that mail is kept meanwhile
KEPT = 0.2  # of the soak: so long mail is kept, so that for most of it as much leaves as comes
MIB = 1024 * 1024


@dataclass
class Stretch:
    """Ten seconds of mail: what was submitted, by which way."""

    plan: Plan
    result: Result


class Source:
    """Submits at a steady pace: one generator after the other, each begun before its time comes."""

    def __init__(self, system: Postferry, rate: float, seconds: float) -> None:
        self._system, self._rate, self._number = system, rate, int(seconds / EVERY)
        self.done: queue.Queue[Stretch | None] = queue.Queue()
        self.begins = time.monotonic() + EARLY

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        running = []
        for number in range(self._number):
            at = self.begins + number * EVERY
            time.sleep(max(at - EARLY - time.monotonic(), 0))
            for plan in self._plans(at):
                running.append(threading.Thread(target=self._generate, args=(plan,), daemon=True))
                running[-1].start()
        for thread in running:
            thread.join()
        self.done.put(None)

    def _generate(self, plan: Plan) -> None:
        self.done.put(Stretch(plan, generate(plan, lambda text: None)))

    def _plans(self, at: float) -> Iterator[Plan]:
        for protocol, share in (("smtp", 1 - BY_API), ("http", BY_API)):
            pace = self._rate * share
            port = self._system.smtp_port if protocol == "smtp" else self._system.api_port
            plan = Plan(next_run(), port, max(int(pace * EVERY), 1), protocol, protocol, readers=READERS)
            plan.pace, plan.at, plan.connections, plan.seconds = pace, at, CONNECTIONS, EVERY * 6
            plan.path, plan.token = f"/v1/account/{TRACKED}/submit", self._system.token
            yield plan


class Soak:
    """The samples, and the faults that were met."""

    def __init__(self, system: Postferry, sink: Sink, show: Callable[[str], None]) -> None:
        self.system, self.sink, self.show = system, sink, show
        self.series: dict[str, Series] = {}
        self.faults: list[str] = []
        self.sent = 0
        self.began = time.monotonic()

    def note(self, kind: str, name: str, value: float, unit: str) -> None:
        series = self.series.setdefault(f"{kind} {name}".strip(), Series(kind, name, unit))
        series.add(time.monotonic() - self.began, value)

    def run(self, rate: float, seconds: float) -> None:
        source = Source(self.system, rate, seconds)
        self.began = source.begins
        tables = Tables(self.system.postgres.url)
        source.start()
        try:
            while stretch := source.done.get():
                self.reconcile(stretch)
                if stretch.plan.protocol == "smtp":
                    self.look(tables)
        finally:
            tables.close()

    def reconcile(self, stretch: Stretch) -> None:
        """Everything of these ten seconds has come once; how long it took."""
        plan, result = stretch.plan, stretch.result
        flow = arrival(plan, result, self.sink, self.show)
        self.sink.ask(plan.run, forget=True)
        if flow.lost or flow.doubled or result.refused or result.unknown:
            found = f"{flow.lost} lost, {flow.doubled} doubled, {result.refused} refused, {result.unknown} unknown"
            self.faults.append(f"{plan.name} {found} {' '.join(result.replies)}".rstrip())
        self.sent += flow.arrived
        delays = sorted(delay * 1000 for delay in flow.delays)
        if plan.protocol == "smtp":
            delays = delays or [math.inf]
            self.note("latency", "p50", delays[len(delays) // 2], "ms")
            self.note("latency", "p99", delays[len(delays) * 99 // 100], "ms")
            self.note("rate", "", result.accepted / (result.ended - result.started) / (1 - BY_API), "/s")

    def look(self, tables: Tables) -> None:
        """Memory of each role, and what the tables hold."""
        self.system.check_alive()
        for name, process in self.system.processes.items():
            self.note("memory", name, machine.memory(process.pid).pss, "MB")
        sizes = tables.sizes()
        for table in ("deliveries", "leases", "tallies", "recipients", "messages", "bodies", "attempts"):
            size = sizes[table]
            self.note("size", table, size.total / MIB, "MB")
            if table in ("deliveries", "leases", "tallies", "messages"):
                self.note("dead", table, size.dead, "rows")
        self.note("rows", "deliveries", sizes["deliveries"].live, "rows")
        self.note("size", "indexes of the queue", tables.queue_bytes() / MIB, "MB")
        at = time.monotonic() - self.began
        self.show(f"{at:.0f} s, {self.sent:,} sent, p99 {self.series['latency p99'].values[-1]:.0f} ms\n")


@contextmanager
def every_role(system: Postferry, kept: float) -> Iterator[None]:
    """What `up` runs, but for the sandbox."""
    ours = dict(postferry.ROLES)
    postferry.ROLES["scheduler"] = ["-m", "tests.bench.forgetful", str(kept)]
    try:
        system.start("notify")
        system.start("mailbox")
        with system.delivering():
            yield
        system.stop("mailbox", "notify")
    finally:
        postferry.ROLES.update(ours)


def maximum(system: Postferry, sink: Sink, show: Callable[[str], None]) -> list[float]:
    """Messages a second, end to end, as fast as they are taken: of each run, after one that warms up."""
    rates = []
    for count in (5_000, *[MOST] * RUNS):
        plan = Plan(next_run(), system.smtp_port, count, "the most", readers=READERS, seconds=300)
        rates.append(arrival(plan, generate(plan, show), sink, show).rate)
        sink.ask(plan.run, forget=True)
    return rates[1:]


def main() -> int:
    parser = proof.parser("soak", __doc__)
    default = float(os.environ.get("SOAK_SECONDS", "1800"))
    parser.add_argument("--seconds", type=float, default=default, help="SOAK_SECONDS (1800)")
    parser.add_argument("--rate", type=float, help="messages a second (default: 70 %% of what is possible)")
    given = parser.parse_args()
    seconds, warm = given.seconds, min(WARM, given.seconds / 5)
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, drive.sink() as sink:
        found = proof.begin("soak", folder)
        system = Postferry(folder / "postferry", sink.port, CONNECTIONS)
        with system:
            rates: list[float] = []
            if not given.rate:
                with every_role(system, AT_ONCE):
                    rates = maximum(system, sink, progress)
            rate = given.rate or min(rates) * SHARE
            told = (
                f"{min(rates):,.0f}/s in the slowest of {RUNS} runs, {max(rates):,.0f}/s in the fastest"
                if rates
                else ""
            )
            progress(f"{rate:.0f}/s for {seconds:.0f} s" + (f"; possible: {told}\n" if told else "\n"))
            with every_role(system, max(seconds * KEPT, 60)):
                soak = Soak(system, sink, progress)
                soak.run(rate, seconds)
        progress.clear()
    lines = judged(list(soak.series.values()), warm)
    found.tables.append(proof.Table([line.row() for line in lines]))
    found.notes.append(
        f"{soak.sent:,} messages in {seconds:.0f} s: {rate:.0f}/s"
        + (f", {SHARE:.0%} of what is possible: {told}." if told else ".")
        + f" Judged from {warm:.0f} s on."
    )
    found.faults += soak.faults + [f"{line.what}: {line.bar} is not met" for line in lines if line.met is False]
    found.details = {name: {"at": one.at, "values": one.values} for name, one in soak.series.items()}
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
