"""The notify role: what follows once mail has gone, and whether accounts are well.

Webhooks, alerts about opens, the books that statistics keep, and the verification of accounts that were changed. Apart
from the workers, so that slow endpoints and busy tenants take nothing from the mail.
"""

from __future__ import annotations

import asyncio
import sys

from relay import ready, role
from relay.alerts import Alerts
from relay.books import Books
from relay.core.vault import Vault
from relay.notify import Notifier
from relay.reverify import Verifier
from relay.settings import Settings
from relay.store import db
from workers.rooms import Room, together


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """The role, until `stopping`."""
    async with db.pooled(settings, most=6) as pool, db.pooled(settings, most=4, generic=True) as posts:
        vault = Vault(settings.secret_keys)
        rooms: list[Room] = [Notifier(posts, settings, vault), Alerts(pool, settings), Books(pool, settings)]
        if settings.verify_accounts:
            rooms.append(Verifier(pool, settings, vault))
        ready.announce()
        await together(rooms, stopping)


def main() -> int:
    return role.run("notify", serve, keys=True)


if __name__ == "__main__":
    sys.exit(main())
