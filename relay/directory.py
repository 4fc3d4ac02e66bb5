"""Who is who, asked for each message at every door: accounts and tokens, remembered for a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from relay.core import suppression
from relay.core.errors import Refused, StoreAway
from relay.core.tenant import Account
from relay.store import accounts, db, suppressions, tokens
from relay.store.tokens import Token

KEPT_SECONDS = 1.0
KEPT = 10_000
K = TypeVar("K")
V = TypeVar("V")


class Directory:
    """Looks accounts and tokens up. A change shows after a second at most.

    When PostgreSQL is away the last known answer is given (what is then accepted fails on its own); StoreAway where
    there is none. The accounts come without their secrets: a door does not talk to upstream.
    """

    def __init__(self, pool: db.Pool, *, seconds: float = KEPT_SECONDS) -> None:
        self._pool = pool
        self._accounts = _Memory(self._find_account, seconds)
        self._senders = _Memory(self._find_sender, seconds)
        self._tokens = _Memory(self._find_token, seconds)
        self._blind_until = 0.0

    async def account(self, id: str) -> Account | None:
        return await self._accounts.get(id)

    async def account_for_sender(self, email: str) -> Account | None:
        """The one account that sends as this address; None when there is none, or several."""
        return await self._senders.get(email.lower()) if email else None

    async def suppressed(self, account: str, recipient: str) -> Refused | None:
        """Why the account may not write to the recipient. An account that never suppressed anybody costs no query.

        None also while PostgreSQL is away: accept asks again, and has one patience for all recipients.
        """
        if time.monotonic() < self._blind_until:
            return None
        try:
            known = await self._accounts.get(account)
            if known is None or not known.suppresses:
                return None
            pair = (account, recipient)
            async with db.connection(self._pool) as conn:
                found = await suppressions.among(conn, [pair])
        except StoreAway:
            self._blind_until = time.monotonic() + KEPT_SECONDS
            return None
        return suppression.refused(account, found[pair].of(recipient)) if pair in found else None

    async def token(self, plaintext: str) -> Token | None:
        """The token, if it is one of ours. What does not look like one costs no query."""
        if not plaintext.startswith(tokens.PREFIX) or len(plaintext) != tokens.LENGTH:
            return None
        return await self._tokens.get(tokens.digest(plaintext))

    def knows(self, plaintext: str) -> bool:
        """The token was good when it was last asked for: no guess."""
        return self._tokens.has(tokens.digest(plaintext))

    def forget(self, id: str) -> None:
        """An account was changed here: the next question about it goes to the store."""
        self._accounts.forget(id)

    async def _find_account(self, id: str) -> Account | None:
        async with db.connection(self._pool) as conn:
            return await accounts.get(conn, None, id)

    async def _find_sender(self, email: str) -> Account | None:
        async with db.connection(self._pool) as conn:
            found = await accounts.by_email(conn, None, email)
        return found[0] if len(found) == 1 else None

    async def _find_token(self, digest: bytes) -> Token | None:
        async with db.connection(self._pool) as conn:
            return await tokens.find_digest(conn, digest)


class _Memory(Generic[K, V]):
    """Answers kept for some seconds; those who ask for the same thing at once share one look-up.

    That there is none is not kept: what was just made is found, and guesses do not push out what is in use.
    """

    def __init__(self, find: Callable[[K], Coroutine[Any, Any, V | None]], seconds: float) -> None:
        self._find, self._seconds = find, seconds
        self._known: dict[K, tuple[float, V]] = {}
        self._asked: dict[K, asyncio.Task[V | None]] = {}

    def has(self, key: K) -> bool:
        return key in self._known

    async def get(self, key: K) -> V | None:
        known = self._known.get(key)
        if known and known[0] > time.monotonic():
            return known[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.get_running_loop().create_task(self._find(key))
            task.add_done_callback(lambda done: self._answered(key, done))
        try:
            return await asyncio.shield(task)
        except StoreAway:
            if known is None:
                raise
            self._keep(key, known[1])  # for as long as ever: waiting once is enough
            return known[1]

    def forget(self, key: K) -> None:
        self._known.pop(key, None)
        self._asked.pop(key, None)

    def _answered(self, key: K, task: asyncio.Task[V | None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._asked.get(key) is not task:
            return  # forgotten while it was on its way
        del self._asked[key]
        if failed:
            return
        self._known.pop(key, None)
        found = task.result()
        if found is not None:
            self._keep(key, found)

    def _keep(self, key: K, found: V) -> None:
        self._known[key] = (time.monotonic() + self._seconds, found)
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
