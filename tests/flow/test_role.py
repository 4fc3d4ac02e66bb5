"""A role that lacks what it needs ends at once, with 78 and every fault, as the README promises."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psycopg
import pytest

from relay.settings import Settings
from relay.store import db
from tests.flow.conftest import Postferry

ROLES = ("smtp", "api", "worker", "scheduler", "notify", "mailbox")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_needs_postgresql(process: Postferry, environ: dict[str, str], role: str) -> None:
    done = process(role, **environ | {"DATABASE_URL": ""})

    assert done.code == 78
    assert "DATABASE_URL is not set" in done.err


@pytest.mark.parametrize("role", ["worker", "scheduler"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "REDIS_URL is not set"),
        ("127.0.0.1:6379", "REDIS_URL must be a URL such as redis://"),
        ("redis://127.0.0.1:1?no_such=1", "REDIS_URL has a parameter"),
    ],
)
def test_who_needs_redis_says_so(process: Postferry, environ: dict[str, str], role: str, url: str, words: str) -> None:
    done = process(role, **environ | {"REDIS_URL": url})

    assert done.code == 78
    assert words in done.err


@pytest.mark.parametrize("url", ["localhost", "mysql://x", "postgresql://me:hunter2@127.0.0.1/x?sslmod=require"])
def test_an_address_of_postgresql_that_is_none_is_told(process: Postferry, environ: dict[str, str], url: str) -> None:
    done = process("scheduler", **environ | {"DATABASE_URL": url})

    assert done.code == 78
    assert "DATABASE_URL" in done.err
    assert "hunter2" not in done.err


def test_who_misses_what_may_stand_in_a_file_that_cannot_be_read_says_so(process: Postferry, tmp_path: Path) -> None:
    """As where `.env` is another user's; root may read that, but follows no link for ever."""
    (tmp_path / ".env").symlink_to(tmp_path / ".env")

    done = process("smtp", DATABASE_URL="")

    assert done.code == 78
    assert f".env cannot be read: {os.strerror(errno.ELOOP)}; let the user" in done.err


def test_all_that_is_missing_is_listed_at_once(process: Postferry) -> None:
    done = process("worker", DATABASE_URL="", REDIS_URL="", POSTFERRY_SECRET_KEYS="")

    assert done.code == 78
    head, *faults = done.err.splitlines()
    assert head == "postferry: the settings are wrong:"
    assert [fault.split()[0] for fault in faults] == ["DATABASE_URL", "REDIS_URL", "POSTFERRY_SECRET_KEYS"]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_needs_a_schema(
    process: Postferry, environ: dict[str, str], servers: dict[str, str], role: str
) -> None:
    done = process(role, **environ | {"DATABASE_URL": servers["postgres"]})

    assert done.code == 78
    assert done.err == "postferry: the database 'postgres' has no Postferry schema\n  run: postferry migrate\n"


@pytest.mark.parametrize("role", ROLES)
def test_every_role_needs_the_schema_of_its_version(process: Postferry, environ: dict[str, str], role: str) -> None:
    lacks = forget_the_last_migration(environ["DATABASE_URL"])

    done = process(role, **environ)

    assert done.code == 78
    assert f"has a schema older than this version: it lacks {lacks}\n  run: postferry migrate\n" in done.err


# What meets a database that was away when the role was started, and has no schema when it comes.
LATE = r"""
import sys
from relay import role
from relay.store import db

async def serve(settings, stopping):
    async with db.pooled(settings, most=1) as pool, db.connection(pool) as conn:
        await conn.execute("drop table if exists migrations")
        await conn.execute("select * from migrations")

sys.exit(role.run("worker", serve, count=lambda settings: settings.worker_processes, keys=False))
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_schema_that_is_missing_later_is_told_too(environ: dict[str, str], processes: str) -> None:
    given = os.environ | environ | {"POSTFERRY_WORKER_PROCESSES": processes, "POSTFERRY_LOG_FORMAT": "text"}

    done = subprocess.run([sys.executable, "-c", LATE], env=given, capture_output=True, text=True, timeout=120)

    assert done.returncode == 78
    assert "has no Postferry schema; run: postferry migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schema_that_may_not_be_looked_at_stops_nobody(environ: dict[str, str]) -> None:
    """As with a database user who was granted what the work needs, and no more."""
    calm = LATE.replace("drop table if exists migrations", "select 1").replace("select * from migrations", "select 2")
    given = os.environ | environ | {"DATABASE_URL": environ["DATABASE_URL"] + "&options=-crole%3Dpg_monitor"}

    done = subprocess.run([sys.executable, "-c", calm], env=given, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")


def forget_the_last_migration(database_url: str) -> str:
    name, _ = db.migrations()[-1]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("delete from migrations where name = %s", (name,))
    return name


FRUGAL = """
import resource
from relay import role
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
async def serve(settings, stopping):
    print(resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, role.SOCKETS), hard))
role.run("notify", serve, keys=False)
"""


def test_a_role_may_have_as_many_sockets_as_the_system_lets_it(environ: dict[str, str]) -> None:
    """Given a shell's small limit, then a role raises it: kept connections to receivers alone may be thousands."""
    command = [sys.executable, "-c", FRUGAL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environ)

    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("role", ["api.__main__", "workers.__main__", "workers.notify", "workers.mailbox"])
async def test_a_role_that_fails_as_it_starts_leaves_no_pool_open(
    role: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a pool's connections heeds no cancel: the loop, and so the process, would wait for it for ever."""
    module, before = import_module(role), asyncio.all_tasks()

    def broken(keys: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "Vault", broken)
    with pytest.raises(ZeroDivisionError):
        await module.serve(settings, asyncio.Event())

    assert asyncio.all_tasks() == before
