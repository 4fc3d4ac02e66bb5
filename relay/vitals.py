"""What each process says of itself while it lives: that it does, its processor time and its memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay import metrics

PULSE = 5.0  # s
_PAGES = Path("/proc/self/statm")  # Linux; elsewhere memory is not told


@asynccontextmanager
async def told(role: str) -> AsyncIterator[None]:
    """Tells of this process, a process of `role`, until the end of the block."""
    pulse = asyncio.create_task(_beat(role))
    try:
        yield
    finally:
        pulse.cancel()
        metrics.PROCESSES.labels(role).set(0)


async def _beat(role: str) -> None:
    """A counter of each process rather than a look at all of them from outside: a sum that loses a member would shrink,
    and a counter that shrinks reads as a burst."""
    metrics.PROCESSES.labels(role).set(1)
    told = 0.0
    while True:
        spent = time.process_time()
        metrics.PROCESS_CPU.labels(role).inc(spent - told)
        told = spent
        if (resident := _resident()) is not None:
            metrics.PROCESS_RESIDENT.labels(role).set(resident)
        await asyncio.sleep(PULSE)


def _resident() -> int | None:
    try:
        return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
