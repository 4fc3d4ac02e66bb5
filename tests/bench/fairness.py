"""`python -m tests.bench.fairness`: one account has a million messages due, another submits one a second.

How long does the other wait? The crowd's upstream is another server than the quiet account's. It is measured twice:
half a second away, so that its mail stays; and near, so that the crowd keeps both cores as busy as it can. Postfix has
two destinations for the same, with its own limits; for the near one its queue is filled on hold, then released. Its
active queue holds 20,000 messages: what comes when it is full waits, whatever its destination, so it is measured below
that and above.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from tests.bench import drive, postfix, proof, report
from tests.bench.delay import Delay
from tests.bench.drive import Sink, arrival, generate, next_run
from tests.bench.filling import RUN, Pile, fill
from tests.bench.load import Plan
from tests.bench.postferry import Postferry

CROWD, SENDER, DOMAIN = "crowd", "app@crowd.example", "crowd.example"
CONNECTIONS = 20  # of each account, and to each destination
AWAY = 0.5  # s; a round trip to the crowd's upstream, where it is far
BAR = 500  # ms


@dataclass
class Wait:
    """What the quiet account saw: milliseconds from submission to upstream. `crowd`: messages that went meanwhile."""

    who: str
    where: str
    due: int
    delays: list[float]
    crowd: float = 0.0  # a second
    never: int = field(init=False)

    def __post_init__(self) -> None:
        self.delays.sort()
        self.never = sum(math.isinf(delay) for delay in self.delays)

    def at(self, share: float) -> float:
        return self.delays[min(int(len(self.delays) * share), len(self.delays) - 1)]

    def row(self) -> proof.Row:
        met = report.MET[self.at(0.99) < BAR] if self.who == "Postferry" else ""
        cells = [f"{self.due:,}", self.where, f"{self.crowd:,.0f}/s", f"{len(self.delays)}"]
        return [self.who, *cells, *(spoken(self.at(share)) for share in (0.5, 0.99, 1.0)), met]


HEAD = ("", "due", "their upstream", "they go at", "asked", "p50", "p99", "most", f"p99 under {BAR} ms")


def spoken(milliseconds: float) -> str:
    if math.isinf(milliseconds):
        return f"not in {drive.STALL:.0f} s"
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 10_000 else f"{milliseconds:.0f} ms"


class Quiet:
    """The account that submits a message a second."""

    def __init__(self, sink: Sink, crowd: Sink, seconds: float, show: Callable[[str], None]) -> None:
        self.sink, self.crowd, self.seconds, self.show = sink, crowd, seconds, show

    def ask(self, who: str, where: str, due: int, port: int, run: str) -> Wait:
        """`run`: the crowd's, whose first mail is waited for."""
        self.begun(run)
        plan = Plan(
            next_run(), port, int(self.seconds), connections=1, reuse=False, gap=1.0, seconds=self.seconds * 1.5 + 60
        )
        before, began = self.taken(run), time.monotonic()
        result = generate(plan, self.show)
        crowd = (self.taken(run) - before) / (time.monotonic() - began)
        arrival(plan, result, self.sink, self.show)
        report = self.crowd.ask(run)
        came = self.sink.ask(plan.run, times=True)["times"]
        # Once the crowd has gone, there is nothing to be told.
        asked = {mark: at for mark, at in result.written.items() if at <= report["last"]}
        return Wait(who, where, due, [(came.get(mark, math.inf) - at) * 1000 for mark, at in asked.items()], crowd)

    def taken(self, run: str) -> int:
        return int(self.crowd.ask(run)["taken"])

    def begun(self, run: str) -> None:
        before, end = self.taken(run), time.monotonic() + 60
        while self.taken(run) == before:
            if time.monotonic() > end:
                raise RuntimeError("nothing of the crowd's mail goes")
            time.sleep(0.1)


def ours(quiet: Quiet, folder: Path, ways: dict[str, int], due: int) -> Sequence[Wait]:
    found = []
    with Postferry(folder / "postferry", quiet.sink.port, CONNECTIONS) as system:
        system.enrol(CROWD, SENDER, next(iter(ways.values())))
        quiet.show(f"putting {due:,} messages there\n")
        fill(system.postgres.url, Pile(CROWD, due))
        with system.delivering():
            for where, port in ways.items():
                system.enrol(CROWD, SENDER, port)
                found.append(quiet.ask("Postferry", where, waiting(system), system.smtp_port, RUN))
                quiet.show(f"Postferry, {where}: p99 {spoken(found[-1].at(0.99))}\n")
    return found


def waiting(system: Postferry) -> int:
    with psycopg.connect(system.postgres.url) as conn:
        row = conn.execute("select count(*) from deliveries where account_id = %s and ready", (CROWD,)).fetchone()
    return int(row[0]) if row else 0


def theirs(quiet: Quiet, folder: Path, where: str, port: int, due: int) -> Wait:
    """To a far upstream the crowd's mail is submitted as any mail is. A near one would have it at once: it is held."""
    route = f"transport_maps = inline:{{ {{ {DOMAIN} = smtp:[127.0.0.1]:{port} }} }}"
    with postfix.Postfix(folder / f"postfix-{next_run()}", quiet.sink.port, CONNECTIONS, route) as system:
        held = port == quiet.crowd.port
        crowd = Plan(next_run(), system.holding if held else system.relaying, due, "the crowd", seconds=300)
        crowd = replace(crowd, domain=DOMAIN, readers=1000, size=1024, sender=SENDER)
        accepted = generate(crowd, quiet.show).accepted
        if held:
            system.release()
        found = quiet.ask("Postfix", where, accepted - quiet.taken(crowd.run), system.relaying, crowd.run)
    quiet.show(f"Postfix with {found.due:,}, {where}: p99 {spoken(found.at(0.99))}\n")
    return found


def main() -> int:
    parser = proof.parser("fairness", __doc__)
    parser.add_argument("--seconds", type=float, default=120, help="that one message a second is submitted (120)")
    parser.add_argument("--due", type=int, default=1_000_000, help="messages of the crowd (1000000)")
    parser.add_argument("--postfix-due", type=int, action="append", help="messages in Postfix's queue (15000, 30000)")
    parser.add_argument("--no-postfix", action="store_true", help="Postferry alone")
    given = parser.parse_args()
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, contextlib.ExitStack() as stack:
        found = proof.begin("fairness", folder)
        sink, crowd = stack.enter_context(drive.sink()), stack.enter_context(drive.sink())
        far = stack.enter_context(Delay(crowd.port, AWAY / 2))
        ways = {f"{AWAY * 1000:.0f} ms away": far.port, "near": crowd.port}
        quiet = Quiet(sink, crowd, given.seconds, progress)
        waits = [*ours(quiet, folder, ways, given.due)]
        if not given.no_postfix and not postfix.missing():
            for where, port in ways.items():
                waits += [theirs(quiet, folder, where, port, due) for due in given.postfix_due or (15_000, 30_000)]
        progress.clear()
        found.tables.append(proof.Table([HEAD, *(wait.row() for wait in waits)]))
        found.details["waits"] = [vars(wait) for wait in waits]
        found.faults += [f"{wait.never} of ours never came" for wait in waits if wait.never and wait.who == "Postferry"]
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
