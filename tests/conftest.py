"""What every test may ask for: its own database and Redis, settings, a pool. Real servers, started once a run."""

from __future__ import annotations

import base64
import gc
import os
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import redis

from relay import local
from relay.guardian import Ward, stop
from relay.settings import Settings, read
from relay.store import db
from tests.dovecot import Dovecot
from tests.fakes.upstream import Upstream
from tests.keeping import Keeper
from tests.stack import ALL, FLEETING, PATIENCE, Stack, wait_ready
from tests.tenant import Tenant, living

pytest_plugins = ["tests.hanging"]
# A slow moment of the machine is no fault of what a test looks at.
hypothesis.settings.register_profile("patient", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")
CI = os.environ.get("CI") == "true"
TEMPLATE = "postferry_template"
ROOM = 1 << 30  # bytes wanted in /dev/shm, which containers often keep small
SERVERS: dict[str, str] = {}  # {"postgres": URL, "redis": URL}, or {"missing": why}
DATABASES = count(1)
TENANTS = count(1)
HASTY = {
    "POSTFERRY_LEASE_SECONDS": "3",
    "POSTFERRY_LEASE_BUDGET": "1",
    "POSTFERRY_UPSTREAM_RETRY": "0.1",
    "POSTFERRY_REFUSED_RETRY": "0.3",
    "POSTFERRY_CONNECT_TIMEOUT": "2",
    "POSTFERRY_COMMAND_TIMEOUT": "2",
    "POSTFERRY_DATA_TIMEOUT": "2",
    "POSTFERRY_RETRY_MOST": "0.5",
    "POSTFERRY_MAILBOX_POLL": "0.1",
    "POSTFERRY_MAILBOX_POLL_MOST": "0.2",
}
"""Times of a stack under test: what takes minutes in life takes moments."""

MakeTenant = Callable[..., Awaitable[Tenant]]


class Servers:
    """One PostgreSQL and one Valkey for the whole run, in a folder that ends with it."""

    def __init__(self) -> None:
        self.guardian = Keeper("postferry-test-", _place())
        self.folder = self.guardian.folder
        self.running: list[tuple[Ward, subprocess.Popen[bytes]]] = []

    def start(self) -> dict[str, str]:
        postgres = local.Postgres(self.folder / "postgres", {**FLEETING, "max_connections": "500"})
        valkey = local.Valkey(self.folder / "valkey")
        for server in (valkey, postgres):
            self._run(server)
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            conn.execute(f"create database {TEMPLATE}")
        db.migrate(_database(postgres.url, TEMPLATE))
        return {"postgres": postgres.url, "redis": valkey.url}

    def stop(self) -> None:
        stop(ward for ward, _ in self.running)
        for ward, process in self.running:
            process.wait()
            self.guardian.forget(ward.pid)
        self.guardian.close()

    def _run(self, server: local.Server) -> None:
        server.prepare()
        log = self.folder / f"{server.name}.log"
        with log.open("wb") as output:
            process = server.start(output.fileno())
        ward = Ward(0, process.pid, server.signal, 10)
        self.guardian.watch(ward)
        self.running.append((ward, process))
        try:
            wait_ready(server, process)
        except local.LocalError as fault:
            raise local.LocalError(f"{fault}:\n{log.read_text()}") from fault


RUN = pytest.StashKey[Servers]()


def pytest_configure(config: pytest.Config) -> None:
    """The controller starts the servers; the workers of pytest-xdist are told where they are."""
    if hasattr(config, "workerinput"):
        SERVERS.update(config.workerinput["servers"])
    elif not config.option.collectonly and not config.option.help:
        config.stash[RUN] = servers = Servers()
        try:
            SERVERS.update(servers.start())
        except local.LocalError as fault:
            SERVERS["missing"] = str(fault)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Nine thousand tests stay to the end: the garbage collector need not look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if (servers := config.stash.get(RUN, None)) is not None:
        servers.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: three for two cores, since many a test waits for a process or for its hour."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min((3 * cores + 1) // 2, 24)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = dict(SERVERS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """On a laptop a test that lacks a tool is skipped out loud; in CI that is a failure."""
    return _judge_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    return _judge_skip((yield))


def _judge_skip(report: Any) -> Any:
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"
    return report


@pytest.fixture(scope="session")
def servers() -> dict[str, str]:
    """Where the run's PostgreSQL (`postgres`) and Valkey (`redis`) are."""
    if "missing" in SERVERS:
        pytest.skip(SERVERS["missing"])
    return SERVERS


@pytest.fixture
def database_url(servers: dict[str, str], worker: str) -> Iterator[str]:
    """A fresh, migrated database, dropped after the test."""
    with _fresh(servers["postgres"], f"test_{worker}_{next(DATABASES)}") as url:
        yield url


@pytest.fixture
def redis_url(servers: dict[str, str], worker: str) -> str:
    """An empty Redis database that no other worker of this run uses."""
    url = f"{servers['redis']}?db={_number(worker)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """The name of this pytest process: `master`, or gw0, gw1, …"""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "master"))


@pytest.fixture(scope="session")
def free_port(worker: str) -> Callable[[], int]:
    """A function that finds a loopback port nobody uses, below those the system gives to outgoing connections.

    Each pytest process of a run has its own: what one has found and not taken yet, another may not find.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = range(20_000 + max(0, _number(worker) - 1), 32_000, workers)
    first = random.randrange(len(own))  # another run's are elsewhere
    ports = (own[(first + step) % len(own)] for step in count())
    return lambda: next(port for port in ports if _free(port))


@pytest.fixture
def environ(database_url: str, redis_url: str, free_port: Callable[[], int]) -> dict[str, str]:
    """The environment that `settings` is read from: what a role's process of this test is given."""
    return environment(database_url, redis_url, free_port)


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    """Settings of this test: its own database and Redis, loopback upstreams allowed, short timeouts."""
    return read(environ, dotenv=None)


@pytest.fixture(scope="session")
def roles(
    servers: dict[str, str], worker: str, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One stack for the whole run: starting one takes seconds. Its tests keep apart by account."""
    with _fresh(servers["postgres"], f"stack_{worker}") as database_url:
        redis_url = f"{servers['redis']}?db={32 + _number(worker)}"
        roles = Stack(environment(database_url, redis_url, free_port) | HASTY, tmp_path_factory.mktemp("roles"))
        yield roles
        roles.close()


@pytest.fixture
async def stack(roles: Stack) -> AsyncIterator[Stack]:
    """SMTP, API, worker and scheduler, running; what an earlier test killed is started again."""
    await roles.start(*ALL)
    roles.said()
    yield roles
    roles.tell()


@pytest.fixture
async def make_tenant() -> AsyncIterator[MakeTenant]:
    """A function from a stack and an upstream to an account of its own; `given`: more settings of the account."""
    async with AsyncExitStack() as opened:

        async def make(stack: Stack, upstream: Upstream, **given: Any) -> Tenant:
            return await opened.enter_async_context(living(stack, f"t{next(TENANTS)}", upstream, **given))

        yield make


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def tenant(stack: Stack, upstream: Upstream, make_tenant: MakeTenant) -> Tenant:
    """An account of the shared stack; its upstream is `upstream`."""
    return await make_tenant(stack, upstream)


@pytest.fixture(scope="session")
def dovecot(free_port: Callable[[], int]) -> Iterator[Dovecot]:
    """A real mailbox server, one for each pytest process that asks for it."""
    if why := Dovecot.missing():
        pytest.skip(why)
    dovecot = Dovecot(free_port(), free_port())
    yield dovecot
    dovecot.stop()


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[db.Pool]:
    """An open pool of connections to this test's database."""
    pool = await db.open_pool(settings, most=4)
    pool.timeout = PATIENCE
    yield pool
    await pool.close()


def environment(database_url: str, redis_url: str, free_port: Callable[[], int]) -> dict[str, str]:
    """Settings of a test: loopback upstreams allowed, ports nobody uses, short times."""
    api_port = str(free_port())
    given = {
        "HOSTNAME": "relay.test",
        "PUBLIC_URL": f"http://127.0.0.1:{api_port}",
        "SECRET_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "ALLOW_NETWORKS": "127.0.0.0/8 ::1/128",
        "SMTP_PORT": str(free_port()),
        "SMTPS_PORT": str(free_port()),
        "API_PORT": api_port,
        "SMTP_PROCESSES": "1",
        "SMTP_AUTH_DELAY": "0.05",
        "CONNECT_TIMEOUT": "5",
        "COMMAND_TIMEOUT": "5",
        "DATA_TIMEOUT": "5",
        "TICK_SECONDS": "0.05",
        "RETRY_FIRST": "0.2",
        "RETRY_MOST": "1",
        "LOG_FORMAT": "json",
        "VERIFY_ACCOUNTS": "0",  # else an account's servers have callers that the test knows nothing of
    }
    nobody = {"SSL_CERT_FILE": os.devnull}  # to read the system's authorities takes a tenth of a second of each role
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **nobody} | {
        f"POSTFERRY_{name}": value for name, value in given.items()
    }


@contextmanager
def _fresh(postgres: str, name: str) -> Iterator[str]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        _patiently(conn, f"create database {name} template {TEMPLATE} strategy file_copy")
        yield _database(postgres, name)
        _patiently(conn, f"drop database {name} with (force)")


def _patiently(conn: psycopg.Connection, statement: str) -> None:
    """PostgreSQL gives whoever is still in a database 5 s to leave, which is little on a busy machine."""
    for _ in range(12):
        with suppress(psycopg.errors.ObjectInUse):
            conn.execute(statement)
            return
    conn.execute(statement)


def _number(worker: str) -> int:
    """0, or from 1 for the processes of pytest-xdist."""
    return int(worker.removeprefix("gw")) + 1 if worker != "master" else 0


def _place() -> Path | None:
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM:
        return memory
    return None


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
