"""Lets it happen, brings everything back, and reconciles. Ends with status 1 when a promise was broken."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.box import USER as OWNER
from tests.chaos.box import Box
from tests.chaos.disk import Disk
from tests.chaos.doubt import Strike
from tests.chaos.ending import to_the_end
from tests.chaos.ledger import reconcile
from tests.chaos.reckoning import ACCOUNTS, Reckoning, keep, limited, markdown, say, summary
from tests.chaos.senders import Door, Senders
from tests.chaos.sink import Sink
from tests.chaos.stage import Stage
from tests.chaos.storms import all_storms, schedule
from tests.fakes.receiver import Receiver

LONG = 300.0  # s; longer runs hand over less at a time, for the database's disk is small


@dataclass
class Run:
    """One ledger run."""

    seed: int
    seconds: float
    folder: Path
    disk: Disk
    struck: Counter[str] = field(default_factory=Counter)
    strikes: list[Strike] = field(default_factory=list)

    async def result(self) -> tuple[dict[str, Any], list[str]]:
        """Figures, and the promises that were broken."""
        sink = Sink(self.seed)
        await sink.start()
        async with Receiver() as receiver:
            stage = Stage(self.folder, self.disk, sink, receiver)
            try:
                await stage.start()
                return await self._live(stage, sink, receiver)
            finally:
                await stage.close()
                await sink.stop()

    async def _live(self, stage: Stage, sink: Sink, receiver: Receiver) -> tuple[dict[str, Any], list[str]]:
        reckoning = Reckoning(stage.direct, sink, receiver)
        mailbox = stage.cables["mailbox"].port if stage.box else 0
        await reckoning.enrol(("127.0.0.1", stage.cables["upstream"].port), mailbox)
        hook = f"http://127.0.0.1:{stage.cables['endpoint'].port}/hook"
        await reckoning.subscribe(f"http://127.0.0.1:{stage.settings.api_port}", stage.token, hook)
        if not self.disk.small:
            say("the disk is not filled: a small one cannot be mounted here")
        if not stage.box:
            say(f"no account has a mailbox: {Box.missing()}")
        door = Door("127.0.0.1", stage.cables["smtp"].port, stage.cables["api"].port)
        pause = 0.05 * max(1.0, self.seconds / LONG)
        senders = Senders(self.seed, [door], stage.token, ACCOUNTS, limited(self.seconds), pause)
        if stage.box:
            senders.owner, sink.takes = OWNER, stage.box.took
        sending = asyncio.create_task(senders.run())
        await self._weather(stage)
        senders.stop()
        await stage.heal()
        await sending
        say(f"peace; {len(senders.ledger)} mails were handed over, {sink.copies} copies taken so far")
        books = await reckoning.books(senders, self.strikes, stage.box)
        faults = reconcile(books)
        if faults:
            keep(books, sink, self.folder)
        return summary(books, senders, sink, stage.box), faults

    async def _weather(self, stage: Stage) -> None:
        end = time.monotonic() + self.seconds
        await asyncio.sleep(1)
        storms = list(all_storms(disk=self.disk.small, mailbox=stage.box is not None))
        for storm, lasts, peace in schedule(random.Random(self.seed), storms):
            left = end - time.monotonic()
            if left <= 0:
                return
            say(f"{self.seconds - left:6.1f} s  {storm.name}, for {lasts:.1f} s")
            begin = time.time()
            await storm.strike(stage)
            await asyncio.sleep(lasts)
            await storm.pass_(stage)
            self.struck[storm.name] += 1
            if storm.doubts:
                self.strikes.append(Strike(storm.doubts, begin, time.time()))
            await asyncio.sleep(peace)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS") or 120))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED") or time.time_ns() % 1_000_000))
    parser.add_argument("--keep", action="store_true", help="leave the logs where they are")
    parser.add_argument("--markdown", action="store_true", help="the figures as a table")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    run = Run(given.seed, given.seconds, folder, Disk(folder / "disk"))
    say(f"seed {given.seed}: the same storms in the same order again with CHAOS_SEED={given.seed} make chaos")
    began = time.monotonic()
    figures, faults = to_the_end(run.result(), folder)
    storms = {"storms": sum(run.struck.values()), "kinds of them": len(run.struck)}
    figures = {"seconds": round(time.monotonic() - began), **storms, **figures, "broken promises": len(faults)}
    print(markdown(f"Seed {given.seed}", figures) if given.markdown else json.dumps(figures, indent=2))
    for fault in faults[:50]:
        print(f"✗ {fault}")
    if faults:
        print(f"{len(faults)} promises broken with seed {given.seed}; logs and both ledgers are in {folder}")
        return 1
    say("✓ both ledgers agree")
    if not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
