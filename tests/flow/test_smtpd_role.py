"""The role as processes: several on one port, started again when they die, gone with their parent; a real store."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay import enrol
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db
from tests.fakes.ingress import certificate, trusting
from tests.keeping import kept

MESSAGE = "From: a@one.example\r\nTo: b@two.example\r\nSubject: hello\r\nX-Account: a1\r\n\r\nbody\r\n"


@asynccontextmanager
async def running(environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The role in a session of its own; what is left of it is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay.smtpd"),
        env=os.environ | environ,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with kept(process.pid):
            yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def heard(process: asyncio.subprocess.Process, text: str, times: int = 1) -> str:
    """Reads the log until the text was there so many times; returns the last such line."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while line := (await process.stderr.readline()).decode():
            times -= text in line
            if not times:
                return line
    raise AssertionError(f"it never said {text!r}")


def send(port: int) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        return smtp.sendmail("a@one.example", ["b@two.example"], MESSAGE)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
async def account(pool: db.Pool, settings: Settings) -> str:
    given = {"email": "a@one.example", "smtp": {"host": "127.0.0.1", "port": 2}}
    await enrol.save(pool, Vault(settings.secret_keys), settings, "a1", given)
    return "a1"


@pytest.fixture
def two(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"POSTFERRY_SMTP_PROCESSES": "2"}


@pytest.mark.usefixtures("account")
async def test_mail_that_was_acknowledged_is_in_the_store(
    environ: dict[str, str], settings: Settings, pool: db.Pool, tmp_path: Path
) -> None:
    files = {f"POSTFERRY_{name.upper()}": str(path) for name, path in certificate(tmp_path).items()}

    def send_both() -> None:
        assert send(settings.smtp_port) == {}
        with smtplib.SMTP_SSL("127.0.0.1", settings.smtps_port, timeout=10, context=trusting()) as smtp:
            assert smtp.sendmail("a@one.example", ["c@two.example", "d@two.example"], MESSAGE) == {}

    async with running(environ | files) as process:
        await heard(process, "listening", 2)
        await asyncio.to_thread(send_both)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    async with db.connection(pool) as conn:
        rows = await conn.execute("select recipient from deliveries order by id")
        assert [row[0] for row in await rows.fetchall()] == ["b@two.example", "c@two.example", "d@two.example"]


@pytest.mark.usefixtures("account")
async def test_a_process_that_dies_is_started_again(two: dict[str, str], settings: Settings) -> None:
    async with running(two) as process:
        await heard(process, "listening", 2)
        first, second = children(process.pid)
        os.kill(first, signal.SIGKILL)
        await heard(process, "listening")
        assert second in children(process.pid)
        assert first not in children(process.pid)
        for _ in range(10):
            assert await asyncio.to_thread(send, settings.smtp_port) == {}


async def test_sigterm_ends_all_of_them_in_good_order(two: dict[str, str], settings: Settings) -> None:
    async with running(two) as process:
        await heard(process, "listening", 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.smtp_port)
        assert (await reader.readline()).startswith(b"220")
        process.terminate()
        assert (await reader.readline()).startswith(b"421 4.3.2")
        writer.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_none_outlives_its_parent(two: dict[str, str]) -> None:
    async with running(two) as process:
        await heard(process, "listening", 2)
        handles = [os.pidfd_open(child) for child in children(process.pid)]
        process.kill()
        await process.wait()
        for handle in handles:
            await gone(handle)


async def test_a_port_that_is_taken_is_said_at_once(environ: dict[str, str], settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.smtp_port))
        other.listen()
        code, said = await refused(environ)
    assert code == 69
    assert f"cannot listen on 127.0.0.1 port {settings.smtp_port}" in said


@pytest.mark.parametrize(
    ("given", "status", "fault"),
    [
        ({"POSTFERRY_SMTP_HOST": "no.such.invalid"}, 69, "cannot listen on no.such.invalid port"),
        ({"POSTFERRY_METRICS_DIR": __file__}, 69, f"POSTFERRY_METRICS_DIR cannot be used: {__file__}: File exists"),
        ({"POSTFERRY_SMTP_PORT": "many"}, 78, "POSTFERRY_SMTP_PORT must be a whole number"),
        ({"POSTFERRY_SMTP_PORT": "0"}, 78, "no port to listen on"),
    ],
)
async def test_what_cannot_be_had_or_is_wrong_is_said_by_its_name(
    environ: dict[str, str], given: dict[str, str], status: int, fault: str
) -> None:
    code, said = await refused(environ | given)
    assert code == status
    assert fault in said
    assert "Traceback" not in said


async def refused(environ: dict[str, str]) -> tuple[int | None, str]:
    """Exit code and words of a role that does not start."""
    async with running(environ) as process:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.read(), 60)
        return await process.wait(), said.decode()


async def gone(handle: int) -> None:
    """Waits until the process behind a pidfd has ended."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 60)
    finally:
        loop.remove_reader(handle)
        os.close(handle)
