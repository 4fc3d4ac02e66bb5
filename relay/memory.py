"""A bound on what many tasks hold in memory together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Memory:
    """So many bytes, lent in the order asked. Whoever wants more than there is gets all of it, alone.

    A task that holds some must give it back before it asks for more.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Waits until `size` bytes are free, and holds them for the block."""
        size = min(size, self._size)
        if size:
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
