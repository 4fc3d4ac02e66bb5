"""Tasks that would run for ever are ended, even if a cancel of theirs is lost."""

from __future__ import annotations

import asyncio

import pytest

from relay import ending


async def test_a_cancel_that_was_lost_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN", 0.05)
    lost: list[int] = []

    async def hard_of_hearing() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(1)
                if len(lost) == 2:
                    raise

    task = asyncio.create_task(hard_of_hearing())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ending.end([task])

    assert task.cancelled()


async def test_what_a_task_raises_in_the_end_is_nobodys() -> None:
    async def fail() -> None:
        raise ValueError

    await ending.end([asyncio.create_task(fail())])
