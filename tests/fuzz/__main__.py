"""Runs the targets one after the other, each in a process of its own; or some inputs again. Status 1: a finding."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.drive import GRACE
from tests.fuzz.summary import Outcome, marked, read, table
from tests.fuzz.target import LONG, NAMES, Target, named

LEAST = 1.0  # s for a target
MISSING = """Fuzzing wants atheris, which is not here. It has wheels for Linux on x86_64 with CPython 3.11 to 3.14:
with one of these, `make fuzz` installs it. Elsewhere every check still runs on its seeds in `make test`,
and an input that was found can be tried:  python -m tests.fuzz TARGET FILE"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=NAMES, metavar="TARGET", help="of the inputs to try again")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="inputs")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS") or 60), help="for all")
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="targets whose name has this word")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where inputs and findings are kept")
    parser.add_argument("--list", action="store_true", help="the targets, and what each holds to")
    parser.add_argument("--markdown", action="store_true", help="the summary as docs/proof.md has it")
    given = parser.parse_args()
    if given.list:
        return _list()
    if given.target:
        return _again(named(given.target), given.files)
    if importlib.util.find_spec("atheris") is None:
        print(MISSING, file=sys.stderr)
        return 2
    targets = [named(name) for name in NAMES if given.only in name]
    outcomes = list(_all(targets, given.seconds, given.folder))
    print(marked(outcomes) if given.markdown else table(outcomes))
    return _judged(outcomes, given.folder)


def _list() -> int:
    for name in NAMES:
        if not name.endswith(LONG):
            print(f"{name:<10} {(inspect.getdoc(named(name).check) or '').splitlines()[0]}")
    print(f"\nNAME{LONG} is the same on inputs that are stretched to many kilobytes: nothing may take long.")
    return 0


def _again(target: Target, files: Sequence[Path]) -> int:
    """With its traceback, for whoever mends it."""
    for file in files:
        target.run(file.read_bytes())
        print(f"✓ {target.name} {file}: nothing is wrong with it")
    return 0


def _all(targets: Sequence[Target], seconds: float, folder: Path) -> list[Outcome]:
    shares = sum(target.share for target in targets)
    outcomes = []
    for number, target in enumerate(targets, 1):
        time_ = max(LEAST, seconds * target.share / shares)
        print(f"{number}/{len(targets)} {target.name}, {time_:.0f} s", file=sys.stderr, flush=True)
        outcomes.append(_one(target, time_, folder))
    return outcomes


def _one(target: Target, seconds: float, folder: Path) -> Outcome:
    command = [sys.executable, "-m", "tests.fuzz.drive", target.name, str(seconds), str(folder)]
    begun = time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 3 * GRACE)
        said, status = ran.stdout + ran.stderr, ran.returncode
    except subprocess.TimeoutExpired as late:
        said, status = f"{late.stderr!r}\nit did not end in time", 1
    crashes = sorted(path.name for path in (folder / "crashes" / target.name).glob("*") if path.suffix != ".txt")
    return read(target.name, time.monotonic() - begun, said, crashes, status)


def _judged(outcomes: Sequence[Outcome], folder: Path) -> int:
    for one in outcomes:
        if one.ended:
            print(f"✗ {one.name} ended before its time: {one.ended}", file=sys.stderr)
        for crash in one.crashes:
            path = folder / "crashes" / one.name / crash
            print(f"✗ {one.name}: {crash}; again: python -m tests.fuzz {one.name} {path}", file=sys.stderr)
    if any(one.crashes or one.ended for one in outcomes):
        return 1
    print("✓ nothing was found", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
