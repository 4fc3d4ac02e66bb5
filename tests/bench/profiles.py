"""`make profile`: where each role's time goes under load, and PostgreSQL's, as tables.

Needs py-spy (pip install py-spy), and to be allowed to look at other processes.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter

from tests.bench import drive, profile, proof, report
from tests.bench.figures import ACCEPTS, CONNECTIONS, FLOWS, Load, Stage
from tests.bench.postferry import Postferry

TOP = 10
LOADS: dict[str, Load] = {load.name: load for load in (*ACCEPTS, *FLOWS)}
ROLES = {"smtp": "relay", "worker": "relay", "scheduler": "relay", "api": "api"}
"""Each role, and the load during which it is looked at."""
OURS = re.compile(r"\((relay|workers|api)/")
FRAME = re.compile(r"relay/(role|processes|smtpd)\.py|__main__\.py|serve \(")  # in everything: says nothing

Stacks = Counter[tuple[str, ...]]


def table(role: str, load: str, stacks: Stacks) -> proof.Table:
    """Functions by their own time, whoever's they are; and ours by the time within them."""
    total = stacks.total()
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[spoken(stack[-1])] += count
        for function in set(stack):
            if OURS.search(function) and not FRAME.search(function):
                within[spoken(function)] += count
    rows: list[proof.Row] = [("own time", "", "ours, time within", "")]
    for (one, mine), (other, inside) in zip(own.most_common(TOP), within.most_common(TOP), strict=False):
        rows.append((one, f"{mine / total:.1%}", other, f"{inside / total:.1%}"))
    busy = total / profile.RATE / profile.SECONDS
    return proof.Table(rows, f"{role}, during `{load}`: at work in {busy:.0%} of the looks")


def spoken(frame: str) -> str:
    """`Wire.send (relay/net/wire.py)`: without the line."""
    return re.sub(r":\d+\)$", ")", frame)


def statements(stage: Stage) -> proof.Table:
    rows: list[proof.Row] = [("PostgreSQL, for 1,000 messages", "calls", "ms", "of which planning")]
    for calls, total, planned, _, text in profile.costs(stage, LOADS["relay"])[:TOP]:
        short = " ".join(text.split())
        short = short if len(short) < 70 else short[:67] + "..."
        rows.append((f"`{short}`", f"{calls:,.0f}", f"{total + planned:,.0f}", f"{planned:,.0f}"))
    return proof.Table(rows, "postgres, during `relay`")


def main() -> int:
    parser = proof.parser("profiles", __doc__)
    given = parser.parse_args()
    if not profile.spy():
        print("Install py-spy first: pip install py-spy", file=sys.stderr)
        return 1
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, contextlib.ExitStack() as stack:
        found = proof.begin("profiles", folder)
        sink = stack.enter_context(drive.sink())
        system = stack.enter_context(Postferry(folder / "postferry", sink.port, CONNECTIONS, counting_statements=True))
        stage = Stage(system, None, sink, progress)
        with system.delivering():
            for role, load in ROLES.items():
                progress(f"looking at {role}\n")
                stacks = profile.stacks(stage, role, LOADS[load])
                if not stacks:
                    found.faults.append(f"py-spy saw nothing of {role}: may it look at other processes here?")
                    continue
                found.tables.append(table(role, load, stacks))
            found.tables.append(statements(stage))
        progress.clear()
    found.notes.append(
        "Shares are of the looks in which the role held Python's lock; what PostgreSQL, the kernel and "
        "native code do without it is not among them."
    )
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
