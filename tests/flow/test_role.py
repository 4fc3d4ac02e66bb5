"""A role that lacks what it needs ends at once, with 78 and every fault, as the README promises."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_all_that_is_missing_is_listed_at_once(process: Postferry) -> None:
    done = process("worker", DATABASE_URL="", REDIS_URL="", POSTFERRY_SECRET_KEYS="")

    assert done.code == 78
    head, *faults = done.err.splitlines()
    assert head == "postferry: the settings are wrong:"
    assert [fault.split()[0] for fault in faults] == ["DATABASE_URL", "REDIS_URL", "POSTFERRY_SECRET_KEYS"]


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=os.environ | environ)

    assert done.stdout == "True\n", done.stderr
