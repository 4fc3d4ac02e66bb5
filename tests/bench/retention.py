"""`python -m tests.bench.retention`: what a message costs on the disk, and what it costs the others when it leaves.

Mail is submitted at a steady pace, first with nothing to purge, then while the scheduler purges 300,000 old messages
beside it, then without again. Told are accept (the content's last byte to its reply) and submit-to-upstream.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.bench import drive, mail, proof, report
from tests.bench.drive import Sink, arrival, generate, next_run
from tests.bench.filling import Pile, fill
from tests.bench.load import Plan
from tests.bench.postferry import TRACKED, Postferry
from tests.bench.tables import MIB, Size, Tables

DAYS = 30
OLD = f"created_at < now() - interval '{DAYS} days'"
COSTLY = 1.5  # p99 beside the purge may be so many times the p99 without, or
LITTLE = 10.0  # ms more


@dataclass
class Pace:
    """What the mail of one stretch saw, in ms, and the old messages that went meanwhile (a second)."""

    accept: tuple[float, float]
    upstream: tuple[float, float]
    purged: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str, bar: str = "") -> proof.Row:
        times = (f"{value:.1f} ms" for value in (*self.accept, *self.upstream))
        return [name, *times, f"{self.purged:,.0f}/s" if self.purged else "", bar]


HEAD = ("", "accept p50", "accept p99", "to upstream p50", "p99", "purged", f"p99s within {COSTLY}x or {LITTLE:.0f} ms")


@dataclass
class Bench:
    """A Postferry, and mail to it at a steady pace."""

    system: Postferry
    sink: Sink
    tables: Tables
    rate: float
    faults: list[str]
    show: Callable[[str], None]

    def send(self, **more: Any) -> drive.Flow:
        plan = replace(Plan(next_run(), self.system.smtp_port, 1, readers=1000, seconds=600), **more)
        flow = arrival(plan, generate(plan, self.show), self.sink, self.show)
        if flow.lost or flow.doubled or flow.result.refused:
            self.faults.append(
                f"{flow.lost} lost, {flow.doubled} doubled, {flow.result.refused} refused {flow.result.replies}"
            )
        return flow

    def pace(self, name: str, seconds: float) -> Pace:
        old, began = self.tables.count("messages", OLD), time.monotonic()
        flow = self.send(count=int(self.rate * seconds), pace=self.rate)
        gone = (old - self.tables.count("messages", OLD)) / (time.monotonic() - began)
        delays = sorted(delay * 1000 for delay in flow.delays) or [math.inf]
        half, most = flow.result.waits
        found = Pace((half * 1000, most * 1000), (delays[len(delays) // 2], delays[len(delays) * 99 // 100]), gone)
        self.show(f"{name}: accept p99 {found.accept[1]:.1f} ms, to upstream p99 {found.upstream[1]:.1f} ms\n")
        return found

    def restart(self, days: int) -> None:
        """The scheduler with other retention: it purges from its start on."""
        self.system.stop("scheduler")
        self.system.environment["POSTFERRY_RETENTION_DAYS"] = str(days)
        self.system.start("scheduler")
        self.send(count=200)  # until it is there


def cost(bench: Bench, **more: Any) -> dict[str, Size]:
    """What each table grew by for one message of this kind: bytes, dead rows cleared away."""
    bench.tables.settle()
    before = bench.tables.sizes()
    flow = bench.send(**more)
    bench.tables.settle()
    after = bench.tables.sizes()
    n = max(flow.result.accepted, 1)
    grown = {}
    for name, size in after.items():
        was = before.get(name, Size(0, 0, 0, 0))
        grown[name] = Size(
            (size.live - was.live) // n, 0, (size.rows - was.rows) // n, (size.indexes - was.indexes) // n
        )
    return {name: size for name, size in grown.items() if size.total >= 20}


def disk(bench: Bench, count: int) -> Iterator[proof.Table]:
    """The tables of two kinds of message, by what they take."""
    kinds = {
        "One message of 4 KB text to one recipient, sent": {"count": count, "sender": mail.PLAIN_SENDER},
        "One message of 4 KB to 50 recipients, a copy with a pixel for each": {"count": count // 50, "recipients": 50},
    }
    for title, plan in kinds.items():
        bench.show(f"{title} ...")
        logged = bench.tables.written()
        grown = cost(bench, **plan)
        logged = (bench.tables.written() - logged) // int(plan["count"])
        rows: list[proof.Row] = [("bytes on disk", "rows", "indexes", "together")]
        for name, size in sorted(grown.items(), key=lambda item: -item[1].total):
            rows.append((name, f"{size.rows:,}", f"{size.indexes:,}", f"{size.total:,}"))
        parts = (sum(getattr(size, part) for size in grown.values()) for part in ("rows", "indexes", "total"))
        rows.append(("**all**", *(f"{part:,}" for part in parts)))
        rows.append(("write-ahead log, passing", "", "", f"{logged:,}"))
        yield proof.Table(rows, title)


def beside(bench: Bench, seconds: float) -> dict[str, Pace]:
    """The same pace without, with and without a purge beside it."""
    found = {"nothing to purge": bench.pace("nothing to purge", seconds)}
    bench.restart(DAYS)
    found["beside a purge"] = bench.pace("beside a purge", seconds)
    bench.restart(0)
    found["nothing again"] = bench.pace("nothing again", seconds)
    return found


def harmless(found: dict[str, Pace]) -> bool:
    without, purging, again = found.values()
    pairs = [
        (purging.accept[1], max(without.accept[1], again.accept[1])),
        (purging.upstream[1], max(without.upstream[1], again.upstream[1])),
    ]
    return all(value <= max(COSTLY * alone, alone + LITTLE) for value, alone in pairs)


def main() -> int:
    parser = proof.parser("retention", __doc__)
    parser.add_argument("--seconds", type=float, default=90, help="of each of the three stretches (90)")
    parser.add_argument("--old", type=int, default=300_000, help="messages that have to go (300000)")
    parser.add_argument("--rate", type=float, default=300, help="messages a second meanwhile (300)")
    parser.add_argument("--disk", type=int, default=5000, help="messages whose room is measured (5000)")
    given = parser.parse_args()
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, drive.sink() as sink:
        found = proof.begin("retention", folder)
        with Postferry(folder / "postferry", sink.port, 20) as system:
            system.environment["POSTFERRY_RETENTION_DAYS"] = "0"
            tables = Tables(system.postgres.url)
            bench = Bench(system, sink, tables, given.rate, found.faults, progress)
            with system.delivering():
                found.tables += disk(bench, given.disk)
            progress(f"putting {given.old:,} old messages there\n")
            fill(system.postgres.url, Pile(TRACKED, given.old, size=2048, days_ago=DAYS + 10))
            kept = {name: size.total / MIB for name, size in tables.sizes().items()}
            with system.delivering():
                bench.send(count=500)
                paces = beside(bench, given.seconds)
            tables.close()
        met = report.MET[harmless(paces)]
        rows = [pace.row(name, met if pace.purged else "") for name, pace in paces.items()]
        title = f"{given.rate:.0f} messages a second, beside {given.old:,} that have to go"
        found.tables.append(proof.Table([HEAD, *rows], title))
        found.details = {"paces": {name: vars(pace) for name, pace in paces.items()}, "old_mb": kept}
        progress.clear()
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
