"""Refusals at RCPT TO, for accounts that suppress somebody: the others cost no query, and a store away no patience."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from relay.core import suppression
from relay.core.errors import Refused, StoreAway
from relay.store import accounts, db, suppressions

SECONDS = 2.0  # between two looks at who suppresses; and without any after the store was found away


class Suppressors:
    """Knows which accounts suppress somebody, to within SECONDS, and asks for their recipients alone.

    It may know less than there is: accept asks again, for whose mail it turns out to be.
    """

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._ids: frozenset[str] = frozenset()
        self._senders: Mapping[str, str] = {}
        self._due = 0.0
        self._look: asyncio.Task[None] | None = None

    async def refusal(self, account: str | None, sender: str, recipient: str) -> Refused | None:
        """Why the account that logged in, else the one that sends as `sender`, may not write to the recipient."""
        if asyncio.get_running_loop().time() >= self._due:
            await self._looked()
        if account is None:
            account = self._senders.get(sender.lower())
        if account is None or account not in self._ids:
            return None
        pair = (account, recipient)
        try:
            async with db.connection(self._pool) as conn:
                found = await suppressions.among(conn, [pair])
        except StoreAway:
            self._forget()
            return None
        return suppression.refused(account, found[pair].of(recipient)) if pair in found else None

    async def _looked(self) -> None:
        """Those who come at once share one look."""
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(self._find())
        await asyncio.shield(self._look)

    async def _find(self) -> None:
        try:
            async with db.connection(self._pool) as conn:
                self._ids, self._senders = await accounts.suppressing(conn)
            self._due = asyncio.get_running_loop().time() + SECONDS
        except StoreAway:
            self._forget()
        finally:
            self._look = None

    def _forget(self) -> None:
        """Until the next look nobody suppresses: each recipient would wait for a connection that does not come."""
        self._ids, self._senders = frozenset(), {}
        self._due = asyncio.get_running_loop().time() + SECONDS
