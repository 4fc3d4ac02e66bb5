"""The mailbox role: everything that is done in accounts' mailboxes, apart from the rest since their servers are slow.

Watching for bounces and complaints, and the one copy of what was sent. Each connection has a thread of its own.
"""

from __future__ import annotations

import asyncio
import sys

from relay import ready, role
from relay.copies import Copier
from relay.core.vault import Vault
from relay.mailboxes import Mailboxes
from relay.settings import Settings
from relay.store import db
from relay.tokens import Tokens
from relay.watch import Watcher
from workers.rooms import Room, together


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """The role, until `stopping`."""
    async with db.pooled(settings, most=6) as pool:
        vault = Vault(settings.secret_keys)
        tokens = Tokens(pool, settings, vault)
        boxes = Mailboxes(settings, tokens)
        rooms: list[Room] = [Watcher(pool, settings, vault, boxes), Copier(pool, settings, vault, boxes)]
        ready.announce()
        try:
            await together(rooms, stopping)
        finally:
            await boxes.close()
            await tokens.close()


def main() -> int:
    return role.run("mailbox", serve, keys=True)


if __name__ == "__main__":
    sys.exit(main())
