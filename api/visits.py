"""Who may ask for mail of a mailbox, and how many at once.

A server that hangs keeps the calls of its own account waiting, and no others for long.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from api.problems import too_many
from relay.core.vault import Vault
from relay.mailboxes import Mailboxes
from relay.settings import Settings
from relay.store import db
from relay.tokens import Tokens
from relay.visiting import visit

if TYPE_CHECKING:
    from relay.net.imap import Mailbox

EACH = 2  # calls of one account at the same time, each with a connection
AT_ONCE = 16  # ... of this process; each may hold a mail
MOST = 50  # calls of one account, with those that wait for their turn
PATIENCE = 10.0  # s that a call waits for its turn
SECONDS = 30.0  # that it may then take
READERS = 2  # threads that read and compose mail

T = TypeVar("T")


class Visits:
    """Lends mailboxes of its own to calls. It belongs to one event loop."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault, tokens: Tokens) -> None:
        self._pool, self._vault = pool, vault
        self._boxes = Mailboxes(settings, tokens)
        self._calls: Counter[str] = Counter()
        self._each: dict[str, asyncio.Semaphore] = {}
        self._all = asyncio.Semaphore(AT_ONCE)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="mail")

    async def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)
        await self._boxes.close()

    @asynccontextmanager
    async def to(self, account: str) -> AsyncIterator[Mailbox]:
        """The account's mailbox, while the call has its turn. 429 where too many wait; else as relay.visiting.visit."""
        if self._calls[account] >= MOST:
            raise too_many(f"{MOST} calls wait for the mailbox of {account} already; ask again in a second", most=MOST)
        self._calls[account] += 1
        room = self._each.setdefault(account, asyncio.Semaphore(EACH))
        try:
            async with _turn(room, EACH), _turn(self._all, AT_ONCE), self._visit(account) as mailbox:
                yield mailbox
        finally:
            self._calls[account] -= 1
            if not self._calls[account]:
                del self._calls[account], self._each[account]

    def _visit(self, account: str) -> AbstractAsyncContextManager[Mailbox]:
        return visit(self._pool, self._vault, self._boxes, account, most=EACH, seconds=SECONDS)

    async def read(self, work: Callable[[], T]) -> T:
        """What it gives; apart from the event loop, for a large mail takes a while."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


@asynccontextmanager
async def _turn(room: asyncio.Semaphore, most: int) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE):
            await room.acquire()
    except TimeoutError:
        words = f"Earlier calls for mailboxes have kept this one waiting for {PATIENCE:g} s; ask again in a second"
        raise too_many(words, most=most) from None
    try:
        yield
    finally:
        room.release()
