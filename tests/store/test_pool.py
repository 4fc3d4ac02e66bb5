"""The pool of connections to PostgreSQL, where it is more than psycopg's."""

from __future__ import annotations

import asyncio

import pytest

from relay.settings import Settings
from relay.store import db


async def turns_of_the_loop(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("moment", range(12))
async def test_who_is_cancelled_as_it_gets_a_connection_does_not_go_on(settings: Settings, moment: int) -> None:
    async def asks() -> None:
        async with db.connection(pool):
            await asyncio.sleep(60)

    async with db.pooled(settings, most=1) as pool:
        async with db.connection(pool):
            asking = asyncio.create_task(asks())
            await turns_of_the_loop(4)
        await turns_of_the_loop(moment)
        asking.cancel()
        await asyncio.wait([asking], timeout=5)
        assert asking.cancelled()
        async with db.connection(pool):
            pass  # what it had got was given back


@pytest.mark.parametrize("moment", range(1, 6))
async def test_who_is_cancelled_as_it_gives_a_connection_back_loses_none(settings: Settings, moment: int) -> None:
    """The pool is at that very moment about to give another one to somebody who has just begun to wait."""

    async def holds() -> None:
        async with db.connection(pool):
            held.release()
            await over.wait()

    async with db.pooled(settings, most=2) as pool:
        held, over = asyncio.Semaphore(0), asyncio.Event()
        first, second = (asyncio.create_task(holds()) for _ in range(2))
        for _ in range(2):
            await held.acquire()
        third = asyncio.create_task(holds())
        over.set()
        await turns_of_the_loop(moment)
        second.cancel()
        await asyncio.wait([first, second, third])
        async with db.connection(pool), db.connection(pool):
            pass  # both are there
