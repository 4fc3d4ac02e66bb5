"""The group committer: what arrives while a commit is running shares the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

SPACING = 0.001  # s; under load a commit waits so long after the last one, and finds more to take along

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Gathers items of many tasks and hands them to `commit` together: at most `most`, with `lanes` commits in flight.

    What comes while fewer than `few` items are being committed takes a lane of its own, as long as there is one: at a
    slow disk it would else wait out a commit that is not its own. What comes while there are more shares the next one.
    `commit` returns one result an item, in order; a result that is an exception is raised to its own task alone. When
    `commit` itself raises, every task of that batch gets the exception. `weigh` and `heaviest` bound a batch by bytes.
    """

    def __init__(
        self,
        commit: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most: int = 200,
        lanes: int = 1,
        few: int = 1,
        weigh: Callable[[Item], int] = lambda item: 0,
        heaviest: int = 8 << 20,
    ) -> None:
        self._commit, self._most, self._lanes, self._few = commit, most, lanes, few
        self._weigh, self._heaviest = weigh, heaviest
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way = 0  # items that are being committed

    def add(self, item: Item) -> asyncio.Future[Result]:
        """Joins the next commit; the future holds the item's result once it is committed."""
        self._loop = self._loop or asyncio.get_running_loop()  # kept: before Python 3.12 it is a call of the system
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append((item, future))
        if not self._running or (len(self._running) < self._lanes and self._under_way < self._few):
            self._running.add(self._loop.create_task(self._run()))
        return future

    async def drain(self) -> None:
        """Waits until nothing is waiting or running."""
        while self._running:
            await asyncio.wait(set(self._running))

    async def _run(self) -> None:
        """Until nothing waits. It leaves its lane in that same step: what is added after it would wait for ever."""
        try:
            while self._waiting:
                await self._one(self._take())
                if self._waiting:
                    await asyncio.sleep(SPACING)
        finally:
            self._running -= {asyncio.current_task()}

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch = [self._waiting.popleft()]
        weight = self._weigh(batch[0][0])
        while self._waiting and len(batch) < self._most:
            weight += self._weigh(self._waiting[0][0])
            if weight > self._heaviest:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _one(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        self._under_way += len(batch)
        try:
            results = await self._commit([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        finally:
            self._under_way -= len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # its task was cancelled; the commit stands
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
