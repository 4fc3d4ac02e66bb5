"""Two hosts on one PostgreSQL and one Valkey; one is cut off, comes back, and the ledgers are reconciled.

    make hosts                                       # a minute of it, then the throughput of two beside that of one
    HOSTS_SECONDS=600 HOSTS_SEED=7 make hosts        # longer; the same cuts in the same order again

`wires` makes the network, `islands` puts the hosts there, `rush` measures; the rest is the ledger run's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.store import db
from tests.chaos import rush
from tests.chaos.doubt import Strike
from tests.chaos.ending import to_the_end
from tests.chaos.islands import WORLD, Host, Islands
from tests.chaos.ledger import reconcile
from tests.chaos.reckoning import ACCOUNTS, LIMITED, Reckoning, keep, limited, markdown, say, summary
from tests.chaos.senders import Senders
from tests.chaos.sink import Sink
from tests.chaos.storms import LEASE
from tests.chaos.wires import Impossible, Net, leave_the_world
from tests.fakes.receiver import Receiver
from tests.stack import ALL

PATIENCE = 4.0  # s that an application waits for an answer before it tries the other host
APPLICATIONS = 16
TAKEN_OVER = LEASE + 5.0  # s after which what a host that lost the store had in hand must be in other hands
SKIPPED = 77  # the status of what cannot be shown here

STUCK = """
select account_id, count(*) from deliveries
where account_id <> %s and state in ('queued', 'deferred') and due_at < now() - %s * interval '1 second' group by 1
union all
select account_id, count(*) from leases where expires_at < now() - %s * interval '1 second' group by 1
"""


@dataclass(frozen=True)
class Cut:
    """What host two loses. No places: all. `doubts`: its mail may have arrived without our knowing."""

    name: str
    places: tuple[str, ...] = ()
    doubts: bool = True
    ends: bool = False  # its processes end with it, and nobody hears of that

    @property
    def loses_the_store(self) -> bool:
        return not self.places or "postgres" in self.places


WHOLE = Cut("is cut off")
OTHERS = [
    Cut("loses its power", ends=True),
    Cut("is cut off from PostgreSQL", ("postgres",)),
    Cut("is cut off from Valkey", ("valkey",), doubts=False),
    Cut("is cut off from the world", ("world",)),
]


def cuts(rng: random.Random, seconds: float) -> Iterator[tuple[Cut, float, float]]:
    """For ever: a cut, seconds that it lasts, seconds of peace after it. Long runs have some that TCP gives up in."""
    while True:
        for cut in (WHOLE, *rng.sample(OTHERS, len(OTHERS))):
            long = seconds >= 180 and cut is not WHOLE and rng.random() < 0.3
            least = TAKEN_OVER + 1 if cut is WHOLE else 2 * LEASE  # long enough to look whether anything stands still
            yield cut, rng.uniform(35, 45) if long else rng.uniform(least, 4 * LEASE), rng.uniform(3, 5)


@dataclass
class Run:
    """One run. `away`: what came of each cut, a line each."""

    seed: int
    seconds: float
    messages: int
    folder: Path
    strikes: list[Strike] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def result(self, world: Net) -> tuple[dict[str, Any], list[rush.Row]]:
        islands = Islands(self.folder, world)
        sink, receiver = Sink(self.seed, WORLD), Receiver()
        receiver.host = WORLD
        await sink.start()
        await receiver.start()
        try:
            await islands.start()
            say("two hosts are up")
            figures = await self._live(islands, sink, receiver)
            return figures, await rush.compare(islands, self.messages) if self.messages else []
        finally:
            islands.close()
            await receiver.stop()
            await sink.stop()

    async def _live(self, islands: Islands, sink: Sink, receiver: Receiver) -> dict[str, Any]:
        reckoning = Reckoning(islands.direct, sink, receiver)
        token = await islands.token()
        await reckoning.enrol((WORLD, sink.port))
        one, two = islands.hosts["one"], islands.hosts["two"]
        await reckoning.subscribe(one.api, token, receiver.url("/hook"))
        senders = Senders(
            self.seed, [one.door, two.door], token, ACCOUNTS, limited(self.seconds), 0.1, PATIENCE, APPLICATIONS
        )
        sending = asyncio.create_task(senders.run())
        await self._lose(two, islands, sink)
        senders.stop()
        await sending
        say(f"peace; {len(senders.ledger)} mails were handed over, {sink.copies} copies taken so far")
        books = await reckoning.books(senders, self.strikes)
        self.faults += reconcile(books)
        if self.faults:
            keep(books, sink, self.folder)
        taken = Counter(mail.host for mail in sink.mails if mail.at is not None)
        return {**summary(books, senders, sink), "mails sent by": dict(taken)}

    async def _lose(self, two: Host, islands: Islands, sink: Sink) -> None:
        """Host two goes and returns, until the time is over."""
        pool = await db.open_pool(islands.direct, most=1)
        end = time.monotonic() + self.seconds
        await asyncio.sleep(3)
        for cut, lasts, peace in cuts(random.Random(self.seed), self.seconds):
            left = end - time.monotonic()
            if left <= 0:
                break
            say(f"{self.seconds - left:6.1f} s  host two {cut.name}, for {lasts:.1f} s")
            begin = time.time()
            ended = await self._one(cut, lasts, two, pool)
            if cut.doubts:
                self.strikes.append(Strike((two.name,), begin, ended))
            taken = Counter(mail.host for mail in sink.mails if mail.at is not None and mail.at > begin)
            self.away.append(f"host two {cut.name} for {lasts:.1f} s: meanwhile {dict(taken)}")
            await asyncio.sleep(peace)
        await pool.close()

    async def _one(self, cut: Cut, lasts: float, two: Host, pool: db.Pool) -> float:
        """When the lines were mended: then what was said into them arrives."""
        two.cut(*cut.places)
        if cut.ends:
            await two.kill(*ALL)
        await asyncio.sleep(lasts)
        async with db.connection(pool) as conn:
            cursor = await conn.execute(STUCK.encode(), (LIMITED, TAKEN_OVER, TAKEN_OVER))
            for account, number in await cursor.fetchall() if lasts > TAKEN_OVER and cut.loses_the_store else ():
                self.faults.append(f"held up: {number} of {account} stood still while host two {cut.name}")
        ended = time.time()
        two.mend()
        await two.start(*ALL)
        return ended


def main() -> int:
    parser = argparse.ArgumentParser(prog="make hosts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("HOSTS_SECONDS") or 60))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HOSTS_SEED") or time.time_ns() % 1_000_000))
    parser.add_argument("--messages", type=int, default=2000, help="of each measurement; 0: none is made")
    parser.add_argument("--keep", action="store_true", help="leave the logs where they are")
    parser.add_argument("--markdown", action="store_true", help="the figures as tables")
    given = parser.parse_args()
    try:
        world = leave_the_world()
    except Impossible as fault:
        print(f"make hosts cannot be shown here: {fault}", file=sys.stderr)
        return SKIPPED
    run = Run(given.seed, given.seconds, given.messages, Path(tempfile.mkdtemp(prefix="hosts-")))
    say(f"seed {given.seed}: the same cuts in the same order again with HOSTS_SEED={given.seed} make hosts")
    figures, rows = to_the_end(run.result(world), run.folder)
    figures = {"cuts": len(run.away), **figures, "broken promises": len(run.faults)}
    print(markdown(f"Seed {given.seed}", figures) if given.markdown else json.dumps(figures, indent=2))
    print("\n".join(["", *(f"- {line}" for line in run.away), "", *rush.table(rows)]))
    for fault in run.faults[:50]:
        print(f"✗ {fault}")
    if run.faults:
        print(f"{len(run.faults)} promises broken with seed {given.seed}; logs and both ledgers are in {run.folder}")
        return 1
    say("✓ both ledgers agree")
    if not given.keep:
        shutil.rmtree(run.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
