"""Memory is lent in the order asked, never more than there is, and never all of it to one account."""

from __future__ import annotations

import asyncio

from relay.memory import Memory


class Borrower:
    """A task that holds some memory until it is told to give it back."""

    def __init__(self, memory: Memory, size: int, got: list[int], account: str = "") -> None:
        self.back = asyncio.Event()
        self.task = asyncio.create_task(self._hold(memory, size, got, account or str(size)))

    async def _hold(self, memory: Memory, size: int, got: list[int], account: str) -> None:
        async with memory.hold(size, account):
            got.append(size)
            await self.back.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def ended(*borrowers: Borrower) -> None:
    for one in borrowers:
        one.back.set()
    await asyncio.gather(*(one.task for one in borrowers))


async def test_a_large_request_is_not_overtaken_by_small_ones() -> None:
    memory, got = Memory(10), []
    first, large, small = (Borrower(memory, size, got) for size in (6, 8, 1))
    await settled()
    assert got == [6]
    first.back.set()
    await settled()
    assert got == [6, 8, 1]
    await ended(first, large, small)


async def test_more_than_there_is_waits_for_all_of_it() -> None:
    memory, got = Memory(10), []
    some, huge = Borrower(memory, 1, got), Borrower(memory, 99, got)
    await settled()
    assert got == [1]
    some.back.set()
    await settled()
    assert got == [1, 99]
    await ended(some, huge)


async def test_nothing_is_free_at_once() -> None:
    memory, got = Memory(10), []
    all_of_it, nothing = Borrower(memory, 10, got), Borrower(memory, 0, got)
    await settled()
    assert got == [10, 0]
    await ended(all_of_it, nothing)


async def test_an_account_that_has_its_share_waits_for_itself_and_others_do_not() -> None:
    memory, got = Memory(40), []
    first, more, other = (Borrower(memory, size, got, who) for size, who in ((7, "a"), (6, "a"), (8, "b")))
    await settled()
    assert got == [7, 8]
    first.back.set()
    await settled()
    assert got == [7, 8, 6]
    await ended(first, more, other)
