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

from relay import local
from relay.guardian import Guardian, Ward
from relay.settings import Settings, read
from relay.store import db
from tests.chaos.cable import Cable
from tests.chaos.sink import Sink
from tests.conftest import HASTY, environment
from tests.fakes.receiver import Receiver
from tests.stack import Machine, Stack, until

DISK = 640  # MB of the database's own file system, where one can be mounted
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
}
BESIDE = ("worker", "scheduler", "notify")
PATIENCE = 60.0  # s until all is well after everything was brought back


class Stage:
    """Everything of one run. `cables` by name; `disk` is None where no file system of our own can be mounted."""

    def __init__(self, folder: Path, sink: Sink, receiver: Receiver) -> None:
        self.folder, self.sink, self.receiver = folder, sink, receiver
        self.disk = _mounted(folder / "disk")
        self.postgres = Machine(local.Postgres(folder / "disk" / "postgres", SMALL), folder / "postgres.log")
        self.valkey = Machine(local.Valkey(folder / "valkey"), folder / "valkey.log")
        self.cables: dict[str, Cable] = {}
        self._guardian = Guardian()
        self._up: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        database = str(local.socket_folder(self.folder / "disk", ".s.PGSQL.5432.lock") / ".s.PGSQL.5432")
        for name in ("postgres", "postgres beside"):
            await self._lay(Cable(name, socket=database))
        for name in ("valkey", "valkey beside"):
            await self._lay(Cable(name, socket=str(self.valkey.server.socket)))  # type: ignore[attr-defined]
        await self._lay(Cable("upstream", port=self.sink.port))
        await self._lay(Cable("endpoint", port=self.receiver.port))
        given = environment(self._database("postgres"), self._redis("valkey"), free_port) | HASTY
        given |= {f"POSTFERRY_{name}": value for name, value in OWN.items()}
        given["POSTFERRY_SANDBOX_PORT"] = str(free_port())
        self.environ, self.settings = given, read(given, None)
        await self._lay(Cable("smtp", port=self.settings.smtp_port))
        await self._lay(Cable("api", port=self.settings.api_port))
        db.migrate(self.direct.database_url)
        await self.start_up()
        there = {"DATABASE_URL": self._database("postgres beside"), "REDIS_URL": self._redis("valkey beside")}
        (self.folder / "beside").mkdir()
        self.beside = Stack(given | there, self.folder / "beside")
        await self.beside.start(*BESIDE)

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

    def role(self, name: str) -> int | None:
        """The process of a role under the supervisor."""
        module = {"smtp": "relay.smtpd", "api": "api", "worker": "workers"}.get(name, f"workers.{name}")
        assert self._up is not None
        for pid in _children(self._up.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[2:4] == [b"-m", module.encode()] or words[3:4] == [module.encode()]:
                    return pid
        return None

    def fill_disk(self) -> None:
        """Not a byte is left on the database's file system."""
        assert self.disk is not None
        with suppress(OSError), (self.disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(1 << 20))

    def free_disk(self) -> None:
        assert self.disk is not None
        (self.disk / "ballast").unlink(missing_ok=True)

    def postgres_runs(self) -> bool:
        return self.postgres.runs()

    async def heal(self) -> None:
        """Everything runs and every cable carries."""
        if self.disk is not None:
            self.free_disk()
        self.postgres.start()
        self.valkey.start()
        if self._ended():
            await self.start_up()
        await self.beside.start(*BESIDE)

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
        if self.disk is not None:
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(self.disk)], check=False)

    async def _lay(self, cable: Cable) -> None:
        await cable.start()
        self.cables[cable.name] = cable

    def _database(self, cable: str) -> str:
        return f"postgresql://{local.OWNER}@127.0.0.1:{self.cables[cable].port}/postgres"

    def _redis(self, cable: str) -> str:
        return f"redis://127.0.0.1:{self.cables[cable].port}/0"

    def _ended(self) -> bool:
        return self._up is None or self._up.poll() is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mounted(place: Path) -> Path | None:
    """A file system of its own, small enough to fill. Only root may mount one."""
    place.mkdir()
    if os.geteuid() != 0:
        return None
    size = f"size={DISK}m,mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "postferry-chaos", str(place)], capture_output=True)
    return place if done.returncode == 0 else None


def _children(pid: int) -> Iterator[int]:
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    yield int(place.name)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    time.sleep(0.05)
    return False


def _plain() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("POSTFERRY_")}
