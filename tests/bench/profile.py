"""Where the time of a role goes under load, as py-spy sees it; and of PostgreSQL, as it tells itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psycopg

from tests.bench import machine
from tests.bench.drive import arrival, generate
from tests.bench.figures import ACCEPTS, FLOWS, Load, Stage

SECONDS = 8
RATE = 500  # looks a second
LINES = 40
POSTGRES = "postgres"
STATEMENTS = """
select calls / %(thousands)s, total_exec_time / %(thousands)s, total_plan_time / %(thousands)s, rows / %(thousands)s,
    query
from pg_stat_statements where query not like '%%pg_stat_statements%%'
order by total_exec_time + total_plan_time desc limit 25
"""


def profile(stage: Stage, role: str, name: str) -> str:
    """Where the time of a role, or of PostgreSQL, goes during the load of a figure."""
    load = next(load for load in (*ACCEPTS, *FLOWS) if load.name == name)
    look = statements if role == POSTGRES else functions
    if load in ACCEPTS:
        return look(stage, role, load)
    with stage.postferry.delivering():
        return look(stage, role, load)


def costs(stage: Stage, load: Load) -> list[tuple[float, float, float, float, str]]:
    """The statements that cost most: calls, milliseconds, those of planning, and rows for 1,000 messages; its text."""
    run(stage, load, share=0.2)
    with psycopg.connect(stage.postferry.postgres.url, autocommit=True) as conn:
        conn.execute("create extension if not exists pg_stat_statements")
        conn.execute("select pg_stat_statements_reset()")
        run(stage, load, share=1)
        return conn.execute(STATEMENTS, {"thousands": stage.plan(load, stage.postferry).count / 1000}).fetchall()


def statements(stage: Stage, role: str, load: Load) -> str:
    """The same as text."""
    lines = [
        f"PostgreSQL during {load.name}, for 1,000 messages",
        "",
        "   calls     total   planned      rows  statement",
    ]
    for calls, total, planned, found, text in costs(stage, load):
        lines.append(f"{calls:8.0f} {total:6.0f} ms {planned:6.0f} ms {found:9.0f}  {' '.join(text.split())[:150]}")
    return "\n".join(lines)


def functions(stage: Stage, role: str, load: Load) -> str:
    """The functions of a role by their own time, and by the time within them."""
    if not spy():
        return "Install py-spy first: pip install py-spy"
    return summary(role, load.name, stacks(stage, role, load))


def spy() -> str:
    """Where py-spy is; "" where it is not."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent)) or ""


def stacks(stage: Stage, role: str, load: Load) -> Counter[tuple[str, ...]]:
    """What a role was at, by call stack: loads until py-spy has seen enough."""
    run(stage, load, share=0.2)
    pids = machine.family(stage.postferry.processes[role].pid)
    found: Counter[tuple[str, ...]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = {pid: Path(folder) / f"{pid}.txt" for pid in pids}
        # --gil: who holds it works; py-spy takes many a waiting thread for a busy one.
        options = ["--gil", "-F", "-d", str(SECONDS), "-r", str(RATE), "-f", "raw"]
        spies = [
            subprocess.Popen(
                [spy(), "record", *options, "-p", str(pid), "-o", str(file)],
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
                found[tuple(stack.split(";"))] += int(count)
    return found


def run(stage: Stage, load: Load, share: float) -> None:
    plan = stage.plan(load, stage.postferry, share)
    result = generate(plan, stage.show)
    if load not in ACCEPTS:
        arrival(plan, result, stage.sink, stage.show)


def summary(role: str, name: str, stacks: Counter[tuple[str, ...]]) -> str:
    """Three lists: own time by function and by file, and time within."""
    total = stacks.total()
    if not total:
        return f"py-spy saw nothing of {role}: may it look at other processes here?"
    own: Counter[str] = Counter()
    files: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        files[stack[-1].partition("(")[2].partition(":")[0]] += count
        for function in set(stack):
            within[function] += count
    lines = [f"{role} during {name}: at work in {100 * total / RATE / SECONDS:.0f} % of the looks"]
    for title, found in (("own time", own), ("own time by file", files), ("time within", within)):
        lines += ["", f"{title}:"]
        lines += [f"  {100 * count / total:5.1f} %  {function}" for function, count in found.most_common(LINES)]
    return "\n".join(lines)
