"""Memory is lent in the order asked, and never more than there is."""

from __future__ import annotations

import asyncio

from relay.memory import Memory


class Borrower:
    """A task that holds some memory until it is told to give it back."""

    def __init__(self, memory: Memory, size: int, got: list[int]) -> None:
        self.back = asyncio.Event()
        self.task = asyncio.create_task(self._hold(memory, size, got))

    async def _hold(self, memory: Memory, size: int, got: list[int]) -> None:
        async with memory.hold(size):
            got.append(size)
            await self.back.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_large_request_is_not_overtaken_by_small_ones() -> None:
    memory, got = Memory(10), []
    first, large, small = (Borrower(memory, size, got) for size in (6, 8, 1))
    await settled()
    assert got == [6]
    first.back.set()
    await settled()
    assert got == [6, 8, 1]
    large.back.set()
    small.back.set()
    await asyncio.gather(first.task, large.task, small.task)


async def test_more_than_there_is_waits_for_all_of_it() -> None:
    memory, got = Memory(10), []
    some, huge = Borrower(memory, 1, got), Borrower(memory, 99, got)
    await settled()
    assert got == [1]
    some.back.set()
    await settled()
    assert got == [1, 99]
    huge.back.set()
    await asyncio.gather(some.task, huge.task)


async def test_nothing_is_free_at_once() -> None:
    memory, got = Memory(10), []
    all_of_it, nothing = Borrower(memory, 10, got), Borrower(memory, 0, got)
    await settled()
    assert got == [10, 0]
    for one in (all_of_it, nothing):
        one.back.set()
        await one.task
