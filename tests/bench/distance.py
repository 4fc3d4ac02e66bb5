"""`python -m tests.bench.distance`: end to end to an upstream that is 50 ms away, against what is possible at all.

A mail takes two round trips where upstream offers pipelining: one for MAIL, RCPT and DATA in one write, one for the
content. So N connections can do N / (2 * 50 ms): that is what the bar is held against. Where the next envelope rides
behind the last dot (RFC 2920, 3.1) it takes one, and nobody can do more than N / 50 ms. Beside Postferry stand Postfix,
and a client that has nothing to store, nothing to lease and nothing to record (the bench's own), which shows what the
proxy, the sink and the machine leave to reach.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.bench import drive, postfix, proof, report
from tests.bench.delay import Delay
from tests.bench.drive import Flow, Sink, arrival, generate, next_run
from tests.bench.load import Plan
from tests.bench.postferry import Postferry

AWAY = 0.050  # s; a round trip
TRIPS = 2  # of a mail, with an envelope in one write
BAR = 0.95
READERS = 1000  # people who get the mail: were it one, their row would be written by one commit at a time
CUT = 0.15  # of the messages at the beginning, and at the end, are not counted: some connections idle there


@dataclass
class Pace:
    """How fast one contender was, in the middle of a run: messages a second; and how the proxy was meanwhile."""

    rate: float
    proxy: dict[str, float]

    def share(self, connections: int) -> float:
        return self.rate / theory(connections)


def theory(connections: int, away: float = AWAY) -> float:
    return connections / (TRIPS * away)


def middle(times: list[float]) -> float:
    """Messages a second between the first and the last that count."""
    times = sorted(times)
    first, last = int(len(times) * CUT), int(len(times) * (1 - CUT))
    return (last - first) / (times[last] - times[first])


class Contest:
    """One number of connections, all contenders."""

    def __init__(self, connections: int, seconds: float, found: proof.Proof, show: Callable[[str], None]) -> None:
        self.connections, self.found, self.show = connections, found, show
        self.count = int(theory(connections) * seconds)

    def plan(self, port: int, **more: Any) -> Plan:
        plan = Plan(next_run(), port, self.count, f"{self.connections} connections", readers=READERS, seconds=120)
        return replace(plan, **more)

    def race(self, who: str, plan: Plan, sink: Sink, way: Delay) -> Pace:
        way.ask()
        flow = arrival(plan, generate(plan, self.show), sink, self.show)
        kept = way.ask()
        self.judge(who, flow)
        pace = Pace(middle(list(sink.ask(plan.run, times=True)["times"].values())), kept)
        self.show(f"{self.connections} connections: {who} {pace.rate:.1f}/s, {pace.share(self.connections):.1%}\n")
        return pace

    def judge(self, who: str, flow: Flow) -> None:
        if flow.lost or flow.doubled or flow.result.refused:
            what = f"{flow.lost} lost, {flow.doubled} doubled, {flow.result.refused} refused"
            self.found.faults.append(f"{self.connections} connections, {who}: {what}")


def paces(contest: Contest, sink: Sink, folder: Any, beside: bool) -> Iterator[tuple[str, Pace]]:
    """Each contender alone: a fresh system, and nothing else but its load."""
    connections = contest.connections
    with Delay(sink.port, AWAY / 2) as way:
        bare = contest.plan(way.port, protocol="pipelined", connections=connections)
        yield "nothing but a client", contest.race("nothing but a client", bare, sink, way)
        with Postferry(folder / f"postferry-{connections}", way.port, connections) as ours, ours.delivering():
            yield "Postferry", contest.race("Postferry", contest.plan(ours.smtp_port), sink, way)
        if beside:
            with postfix.Postfix(folder / f"postfix-{connections}", way.port, connections) as theirs:
                yield "Postfix", contest.race("Postfix", contest.plan(theirs.relaying), sink, way)


def table(connections: int, found: dict[str, Pace]) -> proof.Table:
    title = f"{connections} connections, {AWAY * 1000:.0f} ms away: {theory(connections):.0f}/s of two round trips each"
    rows: list[proof.Row] = [
        ("", "messages/s", "of two round trips", "bar", "of one", "proxy late by", "proxy busy"),
    ]
    for who, pace in found.items():
        bar = f"{BAR:.0%}: {report.MET[pace.share(connections) >= BAR]}" if who == "Postferry" else ""
        late = f"{pace.proxy['late']:.2f} ms (p99 {pace.proxy['late_p99']:.2f})"
        share = pace.share(connections)
        rows.append(
            (who, f"{pace.rate:.1f}", f"{share:.0%}", bar, f"{share / TRIPS:.0%}", late, f"{pace.proxy['busy']:.0%}")
        )
    return proof.Table(rows, title)


def main() -> int:
    parser = proof.parser("distance", __doc__)
    parser.add_argument("--seconds", type=float, default=40, help="that each contender takes in theory (40)")
    parser.add_argument("--connections", type=int, action="append", help="of the account (20, and 5)")
    parser.add_argument("--no-postfix", action="store_true", help="Postferry alone")
    given = parser.parse_args()
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, contextlib.ExitStack() as stack:
        found = proof.begin("distance", folder)
        sink = stack.enter_context(drive.sink())
        beside = not given.no_postfix and not postfix.missing()
        for connections in given.connections or (20, 5):
            contest = Contest(connections, given.seconds, found, progress)
            ran = dict(paces(contest, sink, folder, beside))
            progress.clear()
            found.tables.append(table(connections, ran))
            found.details[str(connections)] = {who: vars(pace) for who, pace in ran.items()}
            if beside:
                ratio = ran["Postferry"].rate / ran["Postfix"].rate
                found.notes.append(f"With {connections} connections, Postferry against Postfix: {ratio:.2f}x.")
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
