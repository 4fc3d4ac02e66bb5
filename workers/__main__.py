"""The worker role: dramatiq's threads take leases, one event loop works on all of them."""

from __future__ import annotations

import asyncio
import sys

from dramatiq import Worker

from relay import ready, role
from relay.admit import Admission
from relay.core.vault import Vault
from relay.deliver import Deliverer
from relay.settings import Settings
from relay.store import db
from workers import actors, broker
from workers.outage import Outage

CONNECTIONS = 6  # to PostgreSQL, of one process: outcomes share commits, so few are needed
THREADS = 4  # of dramatiq's; each hands a lease to the event loop and is free again
PICK_UP = 25  # ms; dramatiq's longest pause between two looks at an empty queue: half of what idle mail waits for


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """One process: until `stopping`, then the transactions under way end and the rest is given back."""
    loop = asyncio.get_running_loop()
    async with db.pooled(settings, most=CONNECTIONS, generic=True) as pool:
        admission = Admission(Deliverer(pool, settings, Vault(settings.secret_keys)), settings)
        source = broker.connect(settings)
        actors.declare(source, lambda lease: asyncio.run_coroutine_threadsafe(admission.take(lease), loop).result())
        Outage().listen()
        worker = Worker(source, worker_threads=THREADS, worker_timeout=PICK_UP)
        worker.start()
        ready.announce()
        await stopping.wait()
        admission.stop()
        await asyncio.gather(admission.close(), asyncio.to_thread(worker.stop, timeout=8_000))
    await asyncio.to_thread(source.close)


def main() -> int:
    return role.run("worker", serve, count=lambda settings: settings.worker_processes, keys=True, broker=broker.fault)


if __name__ == "__main__":
    sys.exit(main())
