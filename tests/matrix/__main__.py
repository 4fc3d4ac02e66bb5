"""Plays every point on processes of its own, and prints the table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from relay import local
from relay.store import db
from tests.bench.machine import where
from tests.chaos.ending import to_the_end
from tests.chaos.stage import free_port
from tests.conftest import HASTY, environment
from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.matrix.play import Row, broken, play
from tests.matrix.points import MAILBOX, POINTS, Point
from tests.stack import ALL, Machine, Stack
from tests.tenant import living

HEAD = (
    "| killed at | the client saw | upstream had | the store said | in the end | copies | unknown | recovered in |",
    "|---|---|---|---|---|---|---|---|",
)


async def table(points: list[Point], folder: Path) -> tuple[list[Row], list[str]]:
    """A row for each that was played; and what is wrong."""
    postgres = Machine(local.Postgres(folder / "postgres"), folder / "postgres.log")
    valkey = Machine(local.Valkey(folder / "valkey"), folder / "valkey.log")
    postgres.start()
    valkey.start()
    db.migrate(postgres.server.url)
    dovecot = Dovecot(free_port(), free_port()) if any(point.needs in MAILBOX for point in points) else None
    stack = Stack(environment(postgres.server.url, valkey.server.url, free_port) | HASTY, folder)
    rows, faults = list[Row](), list[str]()
    try:
        for number, point in enumerate(points):
            print(f"{number + 1}/{len(points)} {point.name}", file=sys.stderr, flush=True)
            await stack.start(*ALL)
            async with Upstream() as upstream, Receiver() as receiver, living(stack, f"m{number}", upstream) as tenant:
                try:
                    row = await play(point, stack, tenant, receiver, dovecot)
                except AssertionError as fault:
                    faults.append(f"{point.name}: {fault}")
                    continue
            rows.append(row)
            faults += [f"{point.name}: {fault}" for fault in broken(row)]
    finally:
        stack.close()
        if dovecot is not None:
            dovecot.stop()
        valkey.close()
        postgres.close()
    return rows, faults


def line(row: Row) -> str:
    webhooks = f"; {row.webhooks} posts" if row.webhooks else ""
    cells = (row.point, row.client, row.upstream, row.store, row.after + webhooks)
    return f"| {' | '.join(cells)} | {row.copies} | {row.unknowns} | {row.seconds:.1f} s |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="points whose name has this word")
    parser.add_argument("--markdown", action="store_true", help="say on which day and machine")
    given = parser.parse_args()
    chosen = [point for point in POINTS if given.only in point.name]
    if why := Dovecot.missing():
        print(f"Without the points that need a mailbox: {why}", file=sys.stderr)
        chosen = [point for point in chosen if point.needs not in MAILBOX]
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        rows, faults = to_the_end(table(chosen, Path(folder)), Path(folder))
    if given.markdown:
        print(f"{len(rows)} points, {where()}.\n")
    print("\n".join([*HEAD, *map(line, rows)]))
    for fault in faults:
        print(f"✗ {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
