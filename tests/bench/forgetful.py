"""A scheduler that keeps finished mail for seconds instead of days, so that a soak sees mail leave as fast as it comes.

`python -m tests.bench.forgetful SECONDS`
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial

from relay import role
from relay.settings import Settings
from workers import scheduler

DAY = 86400.0


def main() -> int:
    days = float(sys.argv.pop()) / DAY
    scheduler.Housekeeper = partial(scheduler.Housekeeper, every=1.0)  # type: ignore[misc,assignment]

    async def serve(settings: Settings, stopping: asyncio.Event) -> None:
        await scheduler.serve(replace(settings, retention_days=days), stopping)  # type: ignore[arg-type]

    return role.run("scheduler", serve, keys=False)


if __name__ == "__main__":
    sys.exit(main())
