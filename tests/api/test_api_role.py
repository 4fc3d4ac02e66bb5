"""The API as processes: started, stopped, several on one port, and told what is wrong before they serve."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from relay.settings import Settings
from tests.keeping import kept


@asynccontextmanager
async def role(environ: dict[str, str], **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m api`, ended when the test is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", env=environ | more, stderr=asyncio.subprocess.PIPE
    )
    try:
        with kept(process.pid):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def listening(process: asyncio.subprocess.Process, times: int = 1) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while times:
            line = await process.stderr.readline()
            assert line, "ended before it listened"
            times -= b'"listening"' in line


async def healthy(settings: Settings) -> bool:
    url = f"http://127.0.0.1:{settings.api_port}/health"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status == 200


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
async def test_it_serves_until_it_is_told_to_stop(
    environ: dict[str, str], settings: Settings, processes: int, stop: signal.Signals
) -> None:
    async with role(environ, POSTFERRY_API_PROCESSES=str(processes)) as process:
        await listening(process, processes)
        assert await healthy(settings)
        process.send_signal(stop)
        async with asyncio.timeout(60):
            assert await process.wait() == 0


async def test_bad_settings_are_all_told(environ: dict[str, str]) -> None:
    async with role(environ, POSTFERRY_API_PROCESSES="0", POSTFERRY_LOG_LEVEL="loud") as process:
        _, errors = await process.communicate()
    assert process.returncode == 78
    assert b"POSTFERRY_API_PROCESSES" in errors
    assert b"Traceback" not in errors


async def test_without_a_key_it_says_how_to_make_one(environ: dict[str, str]) -> None:
    async with role(environ, POSTFERRY_SECRET_KEYS="") as process:
        _, errors = await process.communicate()
    assert process.returncode == 78
    assert b"POSTFERRY_SECRET_KEYS" in errors


async def test_a_taken_port_is_told(environ: dict[str, str], free_port: Callable[[], int]) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with server, role(environ, POSTFERRY_API_PORT=str(port)) as process:
        _, errors = await process.communicate()
    assert process.returncode == 69
    assert str(port).encode() in errors
    assert b"Traceback" not in errors


async def test_it_starts_while_the_store_is_away_and_says_so(environ: dict[str, str], settings: Settings) -> None:
    async with role(environ, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none") as process:
        await listening(process)
        assert not await healthy(settings)
