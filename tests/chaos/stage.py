"""The processes of a ledger run, and the cables between them: `postferry up` on one host, single roles on another."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg

from relay import local
from relay.guardian import Guardian, Ward
from relay.settings import Settings, read
from relay.store import db
from tests.bench.ports import free_port
from tests.chaos.box import Box
from tests.chaos.cable import Cable, Way
from tests.chaos.disk import Disk
from tests.chaos.sink import Sink
from tests.conftest import HASTY, environment
from tests.fakes.receiver import Receiver
from tests.stack import Machine, Stack, until

SMALL = {**local.DURABLE, "max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "64MB"}
OWN = {
    "DATA_TIMEOUT": "4",
    "COMMAND_TIMEOUT": "4",
    "RETRY_FIRST": "0.5",
    "RETRY_MOST": "4",
    "DELIVERY_ATTEMPTS": "200",
    "UPSTREAM_RETRY": "0.2",
    "REFUSED_RETRY": "0.5",
    "WEBHOOK_TIMEOUT": "2",
    "WEBHOOK_RETRIES": "0.2 0.5 1 " + "2 " * 60,
    "COPY_RETRIES": "0.2 0.5 1 " + "2 " * 60,
    "COPY_LOOKS": "0.5 1 3",
}
THERE = ("worker", "scheduler", "notify", "mailbox")
UP, BESIDE = "up.test", "beside.test"  # the names of the two hosts
PATIENCE = 60.0  # s until all is well after everything was brought back


class Stage:
    """Everything of one run. `cables` by name; `box` where there is a Dovecot."""

    def __init__(self, folder: Path, disk: Disk, sink: Sink, receiver: Receiver) -> None:
        self.folder, self.disk, self.sink, self.receiver = folder, disk, sink, receiver
        self.box = None if Box.missing() else Box(free_port(), free_port())
        self.postgres = Machine(local.Postgres(disk.folder / "postgres", SMALL), folder / "postgres.log")
        self.valkey = Machine(local.Valkey(folder / "valkey"), folder / "valkey.log")
        self.cables: dict[str, Cable] = {}
        self._guardian = Guardian()
        self._up: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        database = str(local.socket_folder(self.disk.folder, ".s.PGSQL.5432.lock") / ".s.PGSQL.5432")
        for name in ("postgres", "postgres beside"):
            await self._lay(Cable(name, socket=database))
        for name in ("valkey", "valkey beside"):
            await self._lay(Cable(name, socket=str(self.valkey.server.socket)))  # type: ignore[attr-defined]
        await self._lay(Cable("upstream", port=self.sink.port))
        await self._lay(Cable("endpoint", port=self.receiver.port))
        if self.box:
            await self._lay(Cable("mailbox", port=self.box.port))
        given = environment(self._database("postgres"), self._redis("valkey"), free_port) | HASTY
        given |= {f"POSTFERRY_{name}": value for name, value in OWN.items()}
        given |= {"POSTFERRY_SANDBOX_PORT": str(free_port()), "POSTFERRY_HOSTNAME": UP}
        self.environ, self.settings = given, read(given, None)
        await self._lay(Cable("smtp", port=self.settings.smtp_port))
        await self._lay(Cable("api", port=self.settings.api_port))
        db.migrate(self.direct.database_url)
        await self.start_up()
        there = {"DATABASE_URL": self._database("postgres beside"), "REDIS_URL": self._redis("valkey beside")}
        there["POSTFERRY_HOSTNAME"] = BESIDE
        (self.folder / "beside").mkdir()
        self.beside = Stack(given | there, self.folder / "beside")
        await self.beside.start(*THERE)

    @property
    def direct(self) -> Settings:
        """Settings that lead to the database past every cable: for the reckoning."""
        return read({**getattr(self, "environ", {}), "DATABASE_URL": self.postgres.server.url}, None)

    @property
    def token(self) -> str:
        return (self.folder / "up" / "admin.token").read_text().strip()

    async def start_up(self) -> None:
        """`postferry up`, until its API answers."""
        self._up = await asyncio.to_thread(self._spawned)
        self._guardian.watch(Ward(0, self._up.pid, signal.SIGTERM, 10))
        await until(lambda: self._ended() or _answers(self.settings.api_port), PATIENCE)
        assert not self._ended(), f"postferry up ended: see {self.folder}/up.log"

    def _spawned(self) -> subprocess.Popen[bytes]:
        with (self.folder / "up.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "relay", "up", "--data", str(self.folder / "up")],
                env={**_plain(), **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill_up(self) -> None:
        """SIGKILL of the supervisor; its processes are ended by their guardian."""
        assert self._up is not None
        self._up.kill()
        await asyncio.to_thread(self._up.wait)
        self._guardian.forget(self._up.pid)

    async def running(self, name: str) -> int:
        """The process of a role under the supervisor; one that was killed before is waited for."""
        await until(lambda: self.role(name) is not None, PATIENCE)
        pid = self.role(name)
        assert pid is not None
        return pid

    def role(self, name: str) -> int | None:
        module = {"smtp": "relay.smtpd", "api": "api", "worker": "workers"}.get(name, f"workers.{name}")
        assert self._up is not None
        for pid in _children(self._up.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[2:4] == [b"-m", module.encode()] or words[3:4] == [module.encode()]:
                    return pid
        return None

    async def postgres_well(self) -> None:
        """It answers. What ended by itself is started again, as whoever keeps it would."""
        end = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(_connects, self.postgres.server.url):
            assert time.monotonic() < end, "PostgreSQL does not come back"
            if not self.postgres.runs():
                self.postgres.forget()
                await asyncio.to_thread(self.postgres.start)

    async def heal(self) -> None:
        """Everything runs and every cable carries."""
        self.disk.free()
        await self.postgres_well()
        self.valkey.start()
        for cable in self.cables.values():
            cable.become(Way.OPEN)
        if self._ended():
            await self.start_up()
        await self.beside.start(*THERE)

    async def close(self) -> None:
        if hasattr(self, "beside"):
            self.beside.close()
        if self._up is not None and not self._ended():
            self._up.terminate()
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._up.wait, 20)
        self._guardian.close()
        self.valkey.close()
        self.postgres.close()
        for cable in self.cables.values():
            await cable.stop()
        if self.box:
            self.box.stop()
        self.disk.remove()

    async def _lay(self, cable: Cable) -> None:
        await cable.start()
        self.cables[cable.name] = cable

    def _database(self, cable: str) -> str:
        return f"postgresql://{local.OWNER}@127.0.0.1:{self.cables[cable].port}/postgres"

    def _redis(self, cable: str) -> str:
        return f"redis://127.0.0.1:{self.cables[cable].port}/0"

    def _ended(self) -> bool:
        return self._up is None or self._up.poll() is not None


def _children(pid: int) -> Iterator[int]:
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    yield int(place.name)


def _connects(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as conn:
            return conn.execute("select 1") is not None
    except psycopg.Error:
        time.sleep(0.1)
        return False


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    time.sleep(0.05)
    return False


def _plain() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("POSTFERRY_")}
