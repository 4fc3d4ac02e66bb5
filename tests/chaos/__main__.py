"""Lets it happen, brings everything back, and reconciles. Ends with status 1 when a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from relay import enrol
from relay.core.vault import Vault
from relay.store import db
from tests.chaos.cable import Way
from tests.chaos.ledger import Books, Fate, reconcile
from tests.chaos.senders import Senders
from tests.chaos.sink import Sink
from tests.chaos.stage import Stage
from tests.chaos.storms import all_storms, schedule
from tests.fakes.receiver import Receiver

ACCOUNTS = ["ann", "bob", "cat", "dan"]
LIMITED = "dan"
PER_MINUTE = 30
SETTLE = 180.0  # s in which all must be finished once everything is well again
FATES = """
select d.account_id, d.recipient, replace(d.message_id::text, '-', ''), d.state::text,
    coalesce(nullif(d.reply, ''), d.category, ''),
    (select count(*) from attempts a where a.delivery_id = d.id and a.outcome = 'unknown')
from deliveries d where d.account_id = any(%s)
"""


@dataclass
class Run:
    """One ledger run."""

    seed: int
    seconds: float
    folder: Path
    struck: Counter[str] = field(default_factory=Counter)
    in_doubt: int = 0

    async def result(self) -> tuple[Books, list[str]]:
        sink = Sink(self.seed)
        await sink.start()
        async with Receiver() as receiver:
            stage = Stage(self.folder, sink, receiver)
            try:
                await stage.start()
                books = await self._live(stage, sink, receiver)
            finally:
                await stage.close()
        await sink.stop()
        return books, reconcile(books)

    async def _live(self, stage: Stage, sink: Sink, receiver: Receiver) -> Books:
        await self._enrol(stage)
        if stage.disk is None:
            _say("the disk is not filled: only root may mount a small one")
        senders = Senders(
            self.seed,
            stage.cables["smtp"].port,
            stage.cables["api"].port,
            stage.token,
            ACCOUNTS,
            {LIMITED: int(PER_MINUTE * max(1.0, self.seconds / 60))},
            pause=0.05,
        )
        sending = asyncio.create_task(senders.run())
        await self._weather(stage, sink)
        senders.stop()
        await stage.heal()
        await sending
        sink.calm()
        _say(f"peace; {len(senders.ledger)} mails were handed over, {len(sink.taken)} copies taken so far")
        return await self._settled(stage, sink, receiver, senders)

    async def _enrol(self, stage: Stage) -> None:
        pool = await db.open_pool(stage.direct, most=1)
        for name in ACCOUNTS:
            smtp = {"host": "127.0.0.1", "port": stage.cables["upstream"].port, "secure": False}
            smtp |= {"tls": {"mode": "none"}, "auth": {"user": name, "pass": "secret"}}
            given = {"email": f"{name}@here.example", "smtp": smtp, "limits": {"connections": 3}}
            if name == LIMITED:
                given["limits"]["perMinute"] = PER_MINUTE  # type: ignore[index]
            await enrol.save(pool, Vault(stage.settings.secret_keys), stage.settings, name, given)
        await pool.close()
        headers = {"Authorization": f"Bearer {stage.token}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{stage.settings.api_port}", headers=headers) as http:
            body = {"url": f"http://127.0.0.1:{stage.cables['endpoint'].port}/hook"}
            async with http.post("/v1/webhooks", json=body) as response:
                assert response.status == 200, await response.text()

    async def _weather(self, stage: Stage, sink: Sink) -> None:
        rng = random.Random(self.seed)
        end = time.monotonic() + self.seconds
        await asyncio.sleep(1)
        for storm, lasts, peace in schedule(rng, list(all_storms(disk=stage.disk is not None))):
            left = end - time.monotonic()
            if left <= 0:
                return
            _say(f"{self.seconds - left:6.1f} s  {storm.name}, for {lasts:.1f} s")
            self.struck[storm.name] += 1
            self.in_doubt += sink.open
            await storm.strike(stage)
            await asyncio.sleep(lasts)
            self.in_doubt += sink.open
            await storm.pass_(stage)
            await asyncio.sleep(peace)

    async def _settled(self, stage: Stage, sink: Sink, receiver: Receiver, senders: Senders) -> Books:
        """Waits until nothing is left to do, or nothing more is to be expected; then asks the store."""
        for cable in stage.cables.values():
            cable.become(Way.OPEN)
        pool = await db.open_pool(stage.direct, most=1)
        end, told = time.monotonic() + SETTLE, None
        while time.monotonic() < end:
            async with db.connection(pool) as conn:
                cursor = await conn.execute(
                    "select (select count(*) from deliveries where state in ('queued', 'leased', 'deferred')),"
                    " (select count(*) from postings where state = 'pending')"
                )
                left = await cursor.fetchone()
            if left == (0, 0):
                break
            if left != told:
                told = left
                _say(f"waiting for {left[0]} deliveries and {left[1]} webhooks")  # type: ignore[index]
            await asyncio.sleep(1)
        async with db.connection(pool) as conn:
            fates = [Fate(*row) for row in await (await conn.execute(FATES.encode(), (ACCOUNTS,))).fetchall()]
            rows = await (await conn.execute("select id from events where type <> 'webhookTest'")).fetchall()
        await pool.close()
        return Books(
            handed=senders.ledger,
            taken=sink.taken,
            fates=fates,
            per_minute={LIMITED: PER_MINUTE},
            in_doubt=self.in_doubt + sink.untold,
            events=frozenset(f"evt_{row[0]}" for row in rows),
            posted=frozenset(post.headers["webhook-id"] for post in receiver.posts if "webhook-id" in post.headers),
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _summary(run: Run, books: Books, faults: list[str], seconds: float) -> dict[str, object]:
    taken = Counter((copy.account, copy.recipient) for copy in books.taken)
    answers = Counter(answer.value for mail in books.handed for answer in mail.answers)
    return {
        "seed": run.seed,
        "seconds": round(seconds, 1),
        "storms": sum(run.struck.values()),
        "kinds": len(run.struck),
        "handed over": len(books.handed),
        "answers": dict(answers),
        "deliveries": dict(Counter(fate.state for fate in books.fates)),
        "taken": len(books.taken),
        "beyond one": sum(taken.values()) - len(taken),
        "could be in doubt": books.in_doubt,
        "told as unknown": sum(fate.unknowns for fate in books.fates),
        "events": len(books.events),
        "posted": len(books.posted & books.events),
        "broken promises": len(faults),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS") or 120))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED") or time.time_ns() % 1_000_000))
    parser.add_argument("--keep", action="store_true", help="leave the logs where they are")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    run = Run(given.seed, given.seconds, folder)
    _say(f"seed {given.seed}: the same storms again with CHAOS_SEED={given.seed} make chaos")
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in good order: a file system is mounted
    books, faults = asyncio.run(run.result())
    print(json.dumps(_summary(run, books, faults, time.monotonic() - began), indent=2))
    for fault in faults[:50]:
        print(f"✗ {fault}")
    if faults:
        print(f"{len(faults)} promises broken with seed {given.seed}; logs in {folder}")
        return 1
    print("✓ both ledgers agree")
    if not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
