"""A bound on what many tasks hold in memory together, and on what one account's hold of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SHARES = 4  # of the whole: one account has one of them at most, so that its slow server leaves room for others


class Memory:
    """So many bytes, lent in the order asked. Whoever wants more than there is gets all of it, alone.

    A task that holds some must give it back before it asks for more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._whole = _Room(size)
        self._shares: dict[str, _Room] = {}

    @asynccontextmanager
    async def hold(self, size: int, account: str) -> AsyncIterator[None]:
        """Waits until `size` bytes are free, of all and of the account's share, and holds them for the block."""
        if not size:
            yield
            return
        share = self._shares.setdefault(account, _Room(self._size // SHARES))
        share.guests += 1
        try:
            async with share.hold(size), self._whole.hold(size):
                yield
        finally:
            share.guests -= 1
            if not share.guests:
                del self._shares[account]


class _Room:
    """Bytes that are lent."""

    def __init__(self, size: int) -> None:
        self.guests = 0  # tasks that hold some, or wait for it
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._size)
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._given_back.set()

    async def _take(self, size: int) -> None:
        """One waits at a time: a large request is not overtaken by small ones for ever."""
        async with self._turn:
            while self._free < size:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= size
