"""Plays every point on processes of its own, and prints the table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from relay import local
from relay.store import db
from tests.chaos.stage import free_port
from tests.conftest import HASTY, environment
from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.matrix.play import Row, play
from tests.matrix.points import POINTS, Point
from tests.stack import ALL, Machine, Stack
from tests.tenant import living

HEAD = (
    "| killed at | the client saw | upstream had | the store said | in the end | copies | unknown | recovered in |",
    "|---|---|---|---|---|---|---|---|",
)


async def table(points: list[Point], folder: Path) -> list[Row]:
    postgres = Machine(local.Postgres(folder / "postgres"), folder / "postgres.log")
    valkey = Machine(local.Valkey(folder / "valkey"), folder / "valkey.log")
    postgres.start()
    valkey.start()
    db.migrate(postgres.server.url)
    dovecot = Dovecot(free_port(), free_port())
    stack = Stack(environment(postgres.server.url, valkey.server.url, free_port) | HASTY, folder)
    rows = []
    try:
        for number, point in enumerate(points):
            print(f"{number + 1}/{len(points)} {point.name}", file=sys.stderr, flush=True)
            await stack.start(*ALL)
            async with Upstream() as upstream, Receiver() as receiver, living(stack, f"m{number}", upstream) as tenant:
                rows.append(await play(point, stack, tenant, receiver, dovecot))
    finally:
        stack.close()
        dovecot.stop()
        valkey.close()
        postgres.close()
    return rows


def line(row: Row) -> str:
    webhooks = f"; {row.webhooks} posts" if row.webhooks else ""
    cells = (row.point, row.client, row.upstream, row.store, row.after + webhooks)
    return f"| {' | '.join(cells)} | {row.copies} | {row.unknowns} | {row.seconds:.1f} s |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="points whose name has this word")
    given = parser.parse_args()
    chosen = [replace(point) for point in POINTS if given.only in point.name]
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        rows = asyncio.run(table(chosen, Path(folder)))
    print("\n".join([*HEAD, *map(line, rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
