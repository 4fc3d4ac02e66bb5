"""Where a role's time goes under load: py-spy looks at its processes, this sums what it saw."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench import machine
from tests.bench.drive import arrival, generate
from tests.bench.figures import ACCEPTS, FLOWS, Load, Stage

SECONDS = 8
RATE = 500  # looks a second
LINES = 40


def profile(stage: Stage, role: str, name: str) -> str:
    """A text: the functions of `role` by their own time, and by the time within them, during the load of a figure."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if not spy:
        return "Install py-spy first: pip install py-spy"
    load = next(load for load in (*ACCEPTS, *FLOWS) if load.name == name)
    if load in ACCEPTS:
        return spied(stage, role, load, spy)
    with stage.postferry.delivering():
        return spied(stage, role, load, spy)


def spied(stage: Stage, role: str, load: Load, spy: str) -> str:
    """Loads until py-spy has seen enough of each process of the role."""
    run(stage, load, share=0.2)
    pids = machine.family(stage.postferry.processes[role].pid)
    stacks: Counter[tuple[str, ...]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = {pid: Path(folder) / f"{pid}.txt" for pid in pids}
        spies = [
            subprocess.Popen(
                [spy, "record", "-p", str(pid), "-d", str(SECONDS), "-r", str(RATE), "-f", "raw", "-o", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid, file in files.items()
        ]
        while any(one.poll() is None for one in spies):
            run(stage, load, share=0.5)
        for file in files.values():
            for line in file.read_text().splitlines() if file.exists() else ():
                stack, _, count = line.rpartition(" ")
                stacks[tuple(stack.split(";"))] += int(count)
    return summary(role, load.name, stacks)


def run(stage: Stage, load: Load, share: float) -> None:
    plan = stage.plan(load, stage.postferry, share)
    result = generate(plan, stage.show)
    if load not in ACCEPTS:
        arrival(plan, result, stage.sink, stage.show)


def summary(role: str, name: str, stacks: Counter[tuple[str, ...]]) -> str:
    """Two lists: own time, and time within."""
    total = stacks.total()
    if not total:
        return f"py-spy saw nothing of {role}: may it look at other processes here?"
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for function in set(stack):
            within[function] += count
    busy = 100 * total / (RATE * SECONDS)
    lines = [f"{role} during {name}: busy {busy:.0f} % of one core"]
    for title, found in (("own time", own), ("time within", within)):
        lines += ["", f"{title}:"]
        lines += [f"  {100 * count / total:5.1f} %  {function}" for function, count in found.most_common(LINES)]
    return "\n".join(lines)
