"""The commands over real roles: an upstream is verified, a message goes through worker and scheduler and is watched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.fakes.upstream import Upstream
from tests.flow.conftest import Postferry, Result
from tests.keeping import kept

CONTENT = b"From: shop@example.com\nSubject: hi\nContent-Type: text/html\n\n<p>Hello</p>\n"


@pytest.fixture
def roles(environ: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """A worker and a scheduler, started as an operator would."""
    log = (tmp_path / "roles.log").open("wb")
    running = [
        subprocess.Popen([sys.executable, "-P", "-m", "relay", role], env={**os.environ, **environ}, stderr=log)
        for role in ("worker", "scheduler")
    ]
    with kept(running[0].pid), kept(running[1].pid):
        yield
        for one in running:
            one.send_signal(signal.SIGTERM)
        assert [one.wait(60) for one in running] == [0, 0], (tmp_path / "roles.log").read_text()
    log.close()


async def called(process: Postferry, environ: dict[str, str], *argv: str, stdin: bytes = b"") -> Result:
    return await asyncio.to_thread(process, *argv, stdin=stdin, **environ)


async def add(process: Postferry, environ: dict[str, str], upstream: Upstream, *argv: str) -> None:
    place = ("--smtp-host", upstream.host, "--smtp-port", str(upstream.port), "--smtp-tls", "none")
    done = await called(process, environ, "account", "add", "shop", "--email", "shop@example.com", *place, *argv)
    assert done.code == 0, done.err


async def test_a_message_is_watched_until_it_is_sent(roles: None, process: Postferry, environ: dict[str, str]) -> None:
    async with Upstream() as upstream:
        await add(process, environ, upstream)

        done = await called(process, environ, "send", "shop", "--to", "r@example.com", "--file", "-", stdin=CONTENT)

        assert done.code == 0, done.out + done.err
        assert "sent r@example.com: 250" in done.out
        [mail] = await upstream.wait(1)
        assert (mail.sender, mail.recipients) == ("shop@example.com", ("r@example.com",))
        assert b"<p>Hello</p><img " in mail.content


async def test_a_refusal_is_told_with_the_upstreams_words(
    roles: None, process: Postferry, environ: dict[str, str]
) -> None:
    async with Upstream() as upstream:
        upstream.when("RCPT").say("550 5.1.1 no such user here")
        await add(process, environ, upstream)

        done = await called(process, environ, "send", "shop", "--to", "r@example.com", "--file", "-", stdin=CONTENT)

        assert done.code == 69
        assert "550 5.1.1 no such user here" in done.err


@pytest.mark.parametrize("role", ["scheduler", "notify", "mailbox"])
async def test_a_role_that_cannot_go_on_ends_by_itself(process: Postferry, environ: dict[str, str], role: str) -> None:
    """Here for want of the tables that it works with. It once stayed for ever, without a word, deaf to signals."""
    with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as conn:
        tables = [name for (name,) in conn.execute("select tablename from pg_tables where schemaname = 'public'")]
        for name in set(tables) - {"migrations"}:
            conn.execute(f"drop table if exists {name} cascade")

    done = await called(process, environ, role)

    assert done.code == 1
    assert "stopped by an unexpected error" in done.err


async def test_an_upstream_is_verified(process: Postferry, environ: dict[str, str]) -> None:
    async with Upstream(auth=("PLAIN",), users={"shop": "hunter2"}) as upstream:
        secret = {**environ, "SMTP_PASSWORD": "hunter2"}
        await add(process, secret, upstream, "--smtp-user", "shop")

        done = await called(process, environ, "account", "verify", "shop")

        assert done.code == 0, done.out + done.err
        assert "logged in as shop" in done.out
        assert "hunter2" not in done.out


async def test_a_wrong_password_is_told_with_advice(process: Postferry, environ: dict[str, str]) -> None:
    async with Upstream(auth=("PLAIN",), users={"shop": "another"}) as upstream:
        secret = {**environ, "SMTP_PASSWORD": "hunter2"}
        await add(process, secret, upstream, "--smtp-user", "shop")

        done = await called(process, environ, "account", "verify", "shop")

        assert done.code == 69
        assert "535" in done.out
        assert len(done.out.splitlines()) > 6
