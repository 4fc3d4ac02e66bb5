"""`python -m tests.bench`: a fresh Postferry, and Postfix beside it where it is installed, under the same load."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench import analytics, drive, figures, machine, pixel, postfix, profile, report
from tests.bench.bars import Figure
from tests.bench.figures import ACCEPTS, CONNECTIONS, FLOWS, Stage
from tests.bench.postferry import Postferry
from tests.bench.proof import workplace


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: one round, fewer messages")
    parser.add_argument("--only", action="append", choices=figures.NAMES, metavar="NAME", help=", ".join(figures.NAMES))
    parser.add_argument("--rounds", type=int, help="of each figure; the median counts (default 3, quick 1)")
    parser.add_argument("--no-postfix", action="store_true", help="Postferry alone, without ratios")
    spied = ["smtp", "api", "worker", "scheduler", profile.POSTGRES]
    parser.add_argument("--profile", choices=spied, metavar="ROLE", help="where its time goes: " + ", ".join(spied))
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), help="where the figures are written (bench.json)"
    )
    parser.add_argument("--dir", type=Path, help="where to put data folders (default: the system's temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave data and logs behind")
    return parser.parse_args()


def measure(stage: Stage, only: Callable[[str], bool], quick: bool) -> Iterator[Figure]:
    """Every figure that is asked for, in the order that lets one leave nothing behind for the next."""
    if loads := [load for load in ACCEPTS if only(load.name)]:
        yield from figures.accepts(stage, loads, only("drain"))
    loads = [load for load in FLOWS if only(load.name)]
    if loads or only("idle") or only("memory") or only("tracking"):
        with stage.postferry.delivering():
            yield from figures.flows(stage, loads)
            if only("idle"):
                yield figures.idle(stage)
            if only("memory"):
                yield figures.memory(stage)
            if only("tracking"):
                yield pixel.tracking(stage)
    yield from (figures.leases(stage, name) for name in figures.LEASES if only(name))
    # Ten million take minutes to put there.
    sizes = list(analytics.SIZES)[: 1 if quick else None]
    yield from analytics.figures(stage, [name for name in analytics.CALLS if only(name)], sizes)
    if only("pixel"):
        yield pixel.pictures(stage)
    if only("pixel-flood"):
        yield pixel.flood(stage)
    if only("pixel-one"):
        yield pixel.crowd(stage)


def main() -> int:
    given = options()
    missing = "left out (--no-postfix)" if given.no_postfix or given.profile else postfix.missing()
    began = time.monotonic()
    progress = report.Progress()
    found: list[Figure] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace(given.dir, given.keep))
        about: dict[str, Any] = {"machine": machine.describe(folder), "postfix": missing or postfix.version()}
        print(report.heading(about["machine"], about["postfix"]), flush=True)
        sink = stack.enter_context(drive.sink())
        counting = given.profile == profile.POSTGRES
        ours = stack.enter_context(Postferry(folder / "postferry", sink.port, CONNECTIONS, counting))
        theirs = None if missing else stack.enter_context(postfix.Postfix(folder / "postfix", sink.port, CONNECTIONS))
        stage = Stage(
            ours, theirs, sink, progress, given.rounds or (1 if given.quick else 3), 0.4 if given.quick else 1.0
        )
        if given.profile:
            print(profile.profile(stage, given.profile, (given.only or ["relay"])[0]))
            return 0
        for figure in measure(stage, lambda name: not given.only or name in given.only, given.quick):
            progress.clear()
            print(report.picture(figure), flush=True)
            found.append(figure)
    print(report.table(found))
    if missing:
        print(f"\nNO RATIOS: {missing}")
    for fault in stage.faults:
        print(f"FAULT: {fault}")
    if not stage.faults:
        print("\nEvery accepted message was taken exactly once: none lost, none doubled, none refused.")
    seconds = round(time.monotonic() - began)
    report.write(given.json, found, about | {"quick": given.quick, "seconds": seconds, "faults": stage.faults})
    print(f"{seconds} s; written to {given.json}")
    return 1 if stage.faults else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
