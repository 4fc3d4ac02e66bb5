"""Asks every call of the API with both kinds of token and data of every kind; status 1: it broke its document."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import machine
from tests.contract.stage import TENANTS, Stage, opened

HERE = Path(__file__).parent
CHECKS = "all"
LEFT_OUT = "positive_data_acceptance"  # good data may well be refused: there is no such account, the key is in use
PHASES = "examples,coverage,fuzzing"
PATIENCE = 20  # s for one answer
GRACE = 120.0  # s over its time that a run may take, on a machine that has much to do
MARKS = ("<!-- CONTRACT -->", "<!-- /CONTRACT -->")
MISSING = "schemathesis is not here: `make contract` installs it, with deploy/fuzz.lock, into .venv/fuzz"


@dataclass(frozen=True)
class Outcome:
    """What one token's run came to. `faults`: kind of failure and the operations that show it."""

    who: str
    seconds: float
    operations: int
    cases: int
    accepted: int  # operations that answered 2xx to something
    statuses: Counter[str]  # first digit: answers
    faults: tuple[str, ...]


async def run(stage: Stage, folder: Path, who: str, token: str, seconds: float, seed: int) -> Outcome:
    known = stage.known() | ({"account": [TENANTS[0]]} if who == "bound" else {})
    told = {"known": known, "kept": stage.kept, "closed": stage.closed}
    environ = os.environ | {"CONTRACT": json.dumps(told), "SCHEMATHESIS_HOOKS": "tests.contract.hooks"}
    environ["PYTHONPATH"] = str(HERE.parent.parent)
    report, out = folder / f"{who}.json", folder / f"{who}.txt"
    begun = stage.log.stat().st_size
    with out.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *_command(stage.url, token, report, seconds, seed), env=environ, cwd=folder, stdout=said, stderr=said
        )
        try:
            await asyncio.wait_for(process.wait(), seconds + GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
    with stage.log.open("rb") as log:
        log.seek(begun)
        logged = log.read().decode(errors="replace")
    return judged(who, report, out, logged)


def _command(url: str, token: str, report: Path, seconds: float, seed: int) -> list[str]:
    tool = Path(sysconfig.get_path("scripts")) / "schemathesis"
    return [
        *(str(tool), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {token}", "--checks", CHECKS, "--exclude-checks", LEFT_OUT),
        *("--phases", PHASES, "--max-time", str(round(seconds)), "--seed", str(seed), "--continue-on-failure"),
        *("--request-timeout", str(PATIENCE), "--suppress-health-check", "all"),
        *("--report", "json", "--report-json-path", str(report)),
    ]


def judged(who: str, report: Path, out: Path, logged: str) -> Outcome:
    """What the tool says, and what the role says of itself: a traceback in its log is a fault, whatever it answered."""
    if not report.exists():
        return Outcome(who, 0, 0, 0, 0, Counter(), (f"the tool broke off: {out.read_text()[-2000:]}",))
    told = json.loads(report.read_text())
    faults = [
        f"{one['title']} ({one['code']}): {', '.join(one['operations'])}"
        for one in (*told["failures"], *_listed(told["errors"]))
    ]
    if "Traceback" in logged:
        faults.append(f"the role raised what nobody caught: {logged[logged.index('Traceback') :][:2000]}")
    if told["operations"]["tested"] < told["operations"]["selected"]:
        faults.append(f"only {told['operations']['tested']} of {told['operations']['selected']} operations were asked")
    accepted = sum(any(phase["accepted"] for phase in rates.values()) for rates in told["valid_rates"].values())
    cases = told["test_cases"]["generated"]
    return Outcome(
        who, told["running_time"], told["operations"]["tested"], cases, accepted, _statuses(logged), tuple(faults)
    )


def _listed(errors: Any) -> list[dict[str, Any]]:
    """The tool's own errors, in the shape of its failures."""
    found = errors if isinstance(errors, list) else []
    told = [one if isinstance(one, dict) else {"title": one} for one in found]
    return [
        {"title": str(one.get("title") or one), "code": "error", "operations": one.get("operations") or ["?"]}
        for one in told
    ]


def _statuses(logged: str) -> Counter[str]:
    """Refusals, as the role's log has them; what it did is not logged."""
    found: Counter[str] = Counter()
    for line in logged.splitlines():
        try:
            status = json.loads(line).get("status")
        except (ValueError, AttributeError):
            continue
        if isinstance(status, int):
            found[f"{status // 100}xx"] += 1
    return found


def table(outcomes: list[Outcome]) -> str:
    head = (
        "| token | time | operations asked | that did as asked at least once | calls | refused (4xx) | 5xx | faults |"
    )
    rows = [
        f"| {one.who} | {one.seconds:.0f} s | {one.operations} | {one.accepted} | {one.cases:,} |"
        f" {one.statuses['4xx']:,} | {one.statuses['5xx']} | {len(one.faults)} |"
        for one in outcomes
    ]
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|---:|", *rows])


async def both(folder: Path, seconds: float, seed: int) -> list[Outcome]:
    async with opened(folder) as stage:
        tokens = (("of all accounts", stage.admin, 2 / 3), ("bound", stage.bound, 1 / 3))
        return [await run(stage, folder, who, token, seconds * share, seed) for who, token, share in tokens]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CONTRACT_SECONDS") or 60))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CONTRACT_SEED") or 1))
    parser.add_argument("--markdown", action="store_true", help="the summary as docs/proof.md has it")
    parser.add_argument("--keep", type=Path, help="a folder for what was said, in place of one that goes")
    given = parser.parse_args()
    if not (Path(sysconfig.get_path("scripts")) / "schemathesis").exists():
        print(MISSING, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
        outcomes = asyncio.run(both(given.keep or Path(folder), given.seconds, given.seed))
    about = f"{machine.where()}, seed {given.seed}."
    print("\n".join((MARKS[0], about, "", table(outcomes), MARKS[1])) if given.markdown else table(outcomes))
    faults = [f"✗ token {one.who}: {fault}" for one in outcomes for fault in one.faults]
    print("\n".join(faults) or "✓ every answer was as the document says", file=sys.stderr)
    if faults:
        again = f"CONTRACT_SEED={given.seed} python -m tests.contract --keep FOLDER"
        print(f"with all that was said and how to ask again: {again}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
