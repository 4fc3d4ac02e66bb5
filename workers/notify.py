"""The notify role: what follows once mail has gone. Webhooks, alerts about opens, and the books that statistics keep.

Apart from the workers, so that slow endpoints and busy tenants take nothing from the mail.
"""

from __future__ import annotations

import asyncio
import sys

from relay import ready, role
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """The role, until `stopping`."""
    pool = await db.open_pool(settings, most=4)
    Vault(settings.secret_keys)
    ready.announce()
    await stopping.wait()
    await pool.close()


def main() -> int:
    return role.run("notify", serve, keys=True)


if __name__ == "__main__":
    sys.exit(main())
