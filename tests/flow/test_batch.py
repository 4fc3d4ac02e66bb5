"""Group commit: what arrives while a commit runs shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from relay.batch import Batcher


class Commits:
    """A commit that waits for its permission and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, batch: list[int]) -> Sequence[int | Exception]:
        self.batches.append(batch)
        self.begun.set()
        await self.go.wait()
        return [ValueError(item) if item < 0 else item * 10 for item in batch]


async def test_items_that_arrive_during_a_commit_share_the_next() -> None:
    commits = Commits()
    batcher: Batcher[int, int] = Batcher(commits)
    first = batcher.add(1)
    await commits.begun.wait()
    later = [batcher.add(item) for item in (2, 3, 4)]
    commits.go.set()
    assert await asyncio.gather(first, *later) == [10, 20, 30, 40]
    assert commits.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_bounded_by_count_and_weight() -> None:
    commits = Commits()
    commits.go.set()
    batcher: Batcher[int, int] = Batcher(commits, most=3, weigh=lambda item: item, heaviest=10)
    await asyncio.gather(*(batcher.add(item) for item in (1, 1, 1, 1, 9, 50, 1)))
    assert commits.batches == [[1, 1, 1], [1, 9], [50], [1]]


async def test_one_refusal_is_its_own() -> None:
    commits = Commits()
    commits.go.set()
    batcher: Batcher[int, int] = Batcher(commits)
    good, bad = batcher.add(1), batcher.add(-1)
    assert await good == 10
    with pytest.raises(ValueError, match="-1"):
        await bad


async def test_a_failed_commit_tells_everyone_and_the_next_one_runs() -> None:
    calls = 0

    async def commit(batch: list[int]) -> Sequence[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("away")
        return batch

    batcher: Batcher[int, int] = Batcher(commit)
    results = await asyncio.gather(batcher.add(1), batcher.add(2), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    assert await batcher.add(3) == 3


async def test_a_cancelled_task_leaves_the_others_alone() -> None:
    commits = Commits()
    batcher: Batcher[int, int] = Batcher(commits)
    gone, stays = batcher.add(1), batcher.add(2)
    await commits.begun.wait()
    gone.cancel()
    commits.go.set()
    assert await stays == 20


async def test_what_joins_as_the_last_commit_ends_is_committed_too() -> None:
    commits = Commits()
    commits.go.set()
    batcher: Batcher[int, int] = Batcher(commits)
    async with asyncio.timeout(5):
        assert await batcher.add(1) == 10
        assert await batcher.add(2) == 20  # without a step of the loop in between


async def test_while_few_are_being_committed_one_more_waits_for_its_own_commit_alone() -> None:
    commits = Commits()
    batcher: Batcher[int, int] = Batcher(commits, lanes=3, few=3)
    first = batcher.add(1)
    await commits.begun.wait()
    commits.begun.clear()
    second = [batcher.add(2), batcher.add(3)]
    await commits.begun.wait()
    assert commits.batches == [[1], [2, 3]]
    shared = [batcher.add(4), batcher.add(5)]  # as many as `few` are under way now: no third lane
    await asyncio.sleep(0)
    assert commits.batches == [[1], [2, 3]]
    commits.go.set()
    assert await asyncio.gather(first, *second, *shared) == [10, 20, 30, 40, 50]
    assert commits.batches == [[1], [2, 3], [4, 5]]
