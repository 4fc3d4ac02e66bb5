"""A fresh Postferry in a folder of its own: PostgreSQL as durable as in production, Valkey, each role a process."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from relay import enrol, local
from relay.core.vault import Vault
from relay.guardian import Guardian, Ward, stop
from relay.settings import Settings, read
from relay.store import db, tokens
from tests.bench import mail
from tests.bench.ports import free_port, wait_for_port
from tests.stack import wait_ready

ROLES = {
    "smtp": ["-m", "relay.smtpd"],
    "api": ["-m", "api"],
    "worker": ["-m", "workers"],
    "scheduler": ["-m", "workers.scheduler"],
    "notify": ["-m", "workers.notify"],
    "mailbox": ["-m", "workers.mailbox"],
}
COUNTING = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on"}
HELLO = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
TRACKED, PLAIN = "bench", "plain"  # accounts


class Postferry:
    """Its servers run from entry to exit; its roles start and stop as told, save SMTP and API, which always run."""

    name = "postferry"

    def __init__(self, folder: Path, sink: int, connections: int, counting_statements: bool = False) -> None:
        self.folder, self.sink, self.connections = folder, sink, connections
        self.options = dict(local.DURABLE) | (COUNTING if counting_statements else {})
        self.smtp_port, self.api_port = free_port(), free_port()
        self.token = ""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.wards: dict[str, Ward] = {}

    def __enter__(self) -> Postferry:
        self.folder.mkdir(parents=True)
        self.guardian = Guardian()
        try:
            self._start_servers()
            asyncio.run(self._enrol())
            self.start("smtp")
            self.start("api")
            wait_for_port(self.smtp_port, self.processes["smtp"], self.log("smtp"))
            wait_for_port(self.api_port, self.processes["api"], self.log("api"), hello=HELLO)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*(name for name in self.processes if name in ROLES))
        self.stop(*self.processes)
        self.guardian.close()

    def start(self, role: str) -> None:
        """Start a role."""
        self._spawn(role, ROLES[role], self.environment)

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch(name, process, Ward(0, process.pid, 15, 10))

    def stop(self, *names: str) -> None:
        """Stop roles or servers, in good order, and wait until they have ended."""
        stop([self.wards[name] for name in names])
        for name in names:
            self.guardian.forget(self.wards.pop(name).pid)
            self.processes.pop(name).wait()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check_alive(self) -> None:
        """Raise with the end of its log when something has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                end = self.log(name).read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{end}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers, which has to be a 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.load(response)
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {answer}")
        return answer

    def database(self, name: str) -> str:
        """A new, migrated database in the same cluster."""
        with psycopg.connect(self.postgres.url, autocommit=True) as conn:
            conn.execute(f'create database "{name}"')
        url = self.postgres.url.replace("/postgres?", f"/{name}?")
        db.migrate(url)
        return url

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Workers and scheduler run inside, so that mail flows."""
        self.start("worker")
        self.start("scheduler")
        try:
            yield
        finally:
            self.stop("scheduler", "worker")

    @contextmanager
    def api_over(self, url: str) -> Iterator[int]:
        """One more API process, over another database; tells its port."""
        port, name = free_port(), f"api over {url.partition('?')[0].rpartition('/')[2]}"
        environment = self.environment | {"DATABASE_URL": url, "POSTFERRY_API_PORT": str(port)}
        self._spawn(name, ROLES["api"], environment)
        try:
            wait_for_port(port, self.processes[name], self.log(name), hello=HELLO)
            yield port
        finally:
            self.stop(name)

    def _start_servers(self) -> None:
        self.postgres = local.Postgres(self.folder / "postgres", self.options)
        valkey = local.Valkey(self.folder / "valkey")
        for server in (self.postgres, valkey):
            server.prepare()
            with self.log(server.name).open("wb") as log:
                process = server.start(log.fileno())
            self._watch(server.name, process, Ward(1, process.pid, server.signal, 20))
            wait_ready(server, process)
        db.migrate(self.postgres.url)
        self.environment = os.environ | self._settings(valkey.url)

    def _watch(self, name: str, process: subprocess.Popen[bytes], ward: Ward) -> None:
        self.processes[name], self.wards[name] = process, ward
        self.guardian.watch(ward)

    def _settings(self, redis: str) -> dict[str, str]:
        """Defaults, but for where things are; and the sink is on loopback, which upstreams may not be by default."""
        given = {
            "SECRET_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "PUBLIC_URL": f"http://127.0.0.1:{self.api_port}",
            "HOSTNAME": "postferry.bench",
            "SMTP_PORT": self.smtp_port,
            "SMTPS_PORT": 0,
            "API_PORT": self.api_port,
            "ALLOW_NETWORKS": "127.0.0.0/8",
            "METRICS_DIR": self.folder / "metrics",
            "LOG_FORMAT": "json",
        }
        (self.folder / "metrics").mkdir(exist_ok=True)
        urls = {"DATABASE_URL": self.postgres.url, "REDIS_URL": redis}
        return urls | {f"POSTFERRY_{name}": str(value) for name, value in given.items()}

    async def _enrol(self) -> None:
        """The two accounts, whose upstream is the sink, and the token that may submit for them."""
        for account, sender in ((TRACKED, mail.SENDER), (PLAIN, mail.PLAIN_SENDER)):
            await self._save(account, sender, self.sink, tracked=account == TRACKED)
        async with await psycopg.AsyncConnection.connect(self.postgres.url, autocommit=True) as conn:
            self.token = await tokens.create(conn, ["*"], None, "bench")

    def enrol(self, account: str, sender: str, port: int) -> None:
        """One more account, whose upstream is a server on this port; or one of ours, changed."""
        asyncio.run(self._save(account, sender, port, tracked=False))

    async def _save(self, account: str, sender: str, port: int, *, tracked: bool) -> None:
        settings: Settings = read(self.environment, dotenv=None)
        given = {
            "email": sender,
            "smtp": {"host": "127.0.0.1", "port": port, "secure": False},
            "limits": {"connections": self.connections},
            "tracking": {"opens": tracked},
        }
        pool = await db.open_pool(settings, most=1)
        try:
            await enrol.save(pool, Vault(settings.secret_keys), settings, account, given)
        finally:
            await pool.close()
