"""A stack whose PostgreSQL and Redis are its own, so that a test may end them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count

import psycopg
import pytest

from relay import local
from relay.store import db
from tests.conftest import HASTY, MakeTenant, environment
from tests.fakes.upstream import Upstream
from tests.stack import ALL, FLEETING, Machine, Stack
from tests.tenant import Tenant

CAREFUL = {**FLEETING, "synchronous_commit": "on"}  # a commit survives the end of the server, if not a power cut
APART = count(1)


@pytest.fixture(scope="session")
def postgres(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("postgres")
    machine = Machine(local.Postgres(folder / "postgres", CAREFUL), folder / "postgres.log")
    machine.start()
    db.migrate(machine.server.url)
    yield machine
    machine.close()


@pytest.fixture
def apart(postgres: Machine) -> str:
    """A database there of this test's own: the roles of other tests may still work on the server's first one."""
    postgres.start()
    name = f"apart_{next(APART)}"
    with psycopg.connect(postgres.server.url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    url = postgres.server.url.replace("/postgres?", f"/{name}?")
    db.migrate(url)
    return url


@pytest.fixture(scope="session")
def valkey(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("valkey")
    machine = Machine(local.Valkey(folder / "valkey"), folder / "valkey.log")
    machine.start()
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def processes(
    postgres: Machine, valkey: Machine, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    given = environment(postgres.server.url, valkey.server.url, free_port) | HASTY
    stack = Stack(given, tmp_path_factory.mktemp("roles"))
    yield stack
    stack.close()


@pytest.fixture
async def own(processes: Stack, postgres: Machine, valkey: Machine) -> AsyncIterator[Stack]:
    """All of it running, whatever an earlier test ended."""
    postgres.start()
    valkey.start()
    await processes.start(*ALL)
    processes.said()
    yield processes
    processes.tell()


@pytest.fixture
async def client(own: Stack, upstream: Upstream, make_tenant: MakeTenant) -> Tenant:
    return await make_tenant(own, upstream)
