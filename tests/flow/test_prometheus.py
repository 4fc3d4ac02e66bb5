"""What operators are given works: a real Prometheus scrapes a running stack and answers every panel and every alert."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from relay.guardian import Guardian, Ward
from relay.store import db, tokens
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.flow.watched import ALERTS, DEPLOY, PANELS, RULES, declared, expressions, named, promtool, tool
from tests.stack import ALL, Stack, until
from tests.tenant import Tenant, living

SCRAPE = "500ms"


@dataclass(frozen=True)
class Prometheus:
    """A server that has seen some mail, good and bad, opens, and a failing webhook."""

    url: str
    since: float  # its start
    page: str = ""  # what it scrapes, at the end

    def ask(self, path: str, **given: str) -> Any:
        query = urllib.parse.urlencode(given)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{given}: {error.read().decode()}") from None

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=20) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expr: str) -> list[Any]:
        """All that it ever was."""
        found = self.ask("query_range", query=expr, start=f"{self.since}", end=f"{time.time()}", step="1")
        return list(found["result"])

    def names(self) -> set[str]:
        return set(self.ask("label/__name__/values"))


@pytest.fixture(scope="module")
def prometheus(
    roles: Stack, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--log.level=warn",
    ]
    guardian = Guardian()
    with (folder / "log").open("wb") as log:
        token = asyncio.run(_token(roles))
        _configure(folder, f"127.0.0.1:{roles.settings.api_port}", token)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    guardian.watch(Ward(0, process.pid, signal.SIGKILL, 1))
    try:
        server = Prometheus(url, time.time())
        yield replace(server, page=asyncio.run(_life(roles, server)))
    finally:
        process.terminate()
        process.wait(20)
        guardian.forget(process.pid)
        guardian.close()


def _configure(folder: Path, target: str, token: str) -> None:
    """deploy/prometheus.yml with another target, token and interval, and nothing else."""
    text = (DEPLOY / "prometheus.yml").read_text()
    for old, new in (("127.0.0.1:3000", target), ("15s", SCRAPE)):
        assert re.search(rf"^[^#]*{old}", text, re.MULTILINE)
        text = text.replace(old, new)
    (folder / "prometheus.yml").write_text(text)
    (folder / "metrics.token").write_text(token + "\n")
    shutil.copy(RULES, folder)
    promtool("check", "config", folder / "prometheus.yml")


async def _token(stack: Stack) -> str:
    pool = await db.open_pool(stack.settings, most=1)
    async with db.connection(pool) as conn:
        token = await tokens.create(conn, ["metrics"])
    await pool.close()
    return token


async def _life(stack: Stack, server: Prometheus) -> str:
    """Mail of every fate, an open, a report, refusals, and a webhook that fails; until all of it was scraped."""
    await stack.start(*ALL)
    await until(server.ready, 60)
    async with (
        Upstream() as upstream,
        Upstream(auth=("PLAIN",)) as strict,
        Receiver() as receiver,
        living(stack, "prom-a", upstream, limits={"perDay": 1000}, tracking={"opens": True}) as tenant,
        living(stack, "prom-b", strict, smtp=_wrong(strict)) as refused,
    ):
        receiver.when("/broken").say(500)
        await _subscribe(tenant, receiver.url("/fine"))
        await _subscribe(tenant, receiver.url("/broken"))
        upstream.when("RCPT", "none@").say("550 5.1.1 no such user")
        upstream.when("RCPT", "later@").say("451 4.2.0 try again")
        upstream.when("DOT", times=1).drop()
        await refused.submit("a@there.example", "b@there.example")
        for _ in range(2):  # a rate needs a series that was there before: what is first seen counts from there
            await _mail(tenant, refused)
            await _scraped(server, 2)
        await _open(tenant, upstream)
        await _report(stack, tenant)
        with suppress(AssertionError):  # what is missing by then, a test names
            await until(lambda: _told(server), 60)
        await _scraped(server, 4)
        async with tenant.http.get("/metrics") as response:
            return await response.text()


def _wrong(upstream: Upstream) -> dict[str, Any]:
    login = {"user": "ann", "pass": "wrong"}
    return {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}, "auth": login}


async def _subscribe(tenant: Tenant, url: str) -> None:
    status, answer = await tenant.ask("POST", "/v1/webhooks", {"account": tenant.id, "url": url})
    assert status == 200, answer


async def _mail(tenant: Tenant, refused: Tenant) -> None:
    for to in ("one@there.example", "none@there.example", "later@there.example"):
        await tenant.submit(to, html="<p>Hello</p>")
    await tenant.mail("two@there.example", html=True)
    await refused.submit("c@there.example")
    assert (await tenant.ask("POST", f"/v1/account/{tenant.id}/submit", {"subjet": "x"}))[0] == 400
    assert (await tenant.ask("GET", "/v1/accounts", headers={"Authorization": "Bearer none"}))[0] == 401


async def _open(tenant: Tenant, upstream: Upstream) -> None:
    mail = next(taken for taken in await upstream.wait(2) if b"/t/" in taken.content)
    found = re.search(rb"/t/[\w.=\r\n-]+?\.gif", mail.content)
    assert found is not None
    path = found[0].replace(b"=\r\n", b"").decode()
    for one in (path, "/t/made-up.gif"):
        async with tenant.http.get(one, headers={"User-Agent": "Mozilla/5.0 Thunderbird/128.0"}) as response:
            assert response.status == 200


REPORT = """
import asyncio, os, sys
from relay import bounces, metrics
from relay.core.bounce import Reported, judge
from relay.core.prose import Told
from relay.core.report import Kind
from relay.settings import read
from relay.store import db

async def main(account, recipient):
    settings = read(os.environ, dotenv=None)
    metrics.prepare(settings)
    pool = await db.open_pool(settings, most=1)
    async with db.connection(pool) as conn:
        said = judge(Told(recipient, "failed", "5.1.1", "550 5.1.1 no such user", source="smtp"))
        print(await bounces.record(conn, account, Reported(Kind.BOUNCE, "imap", "k", recipients=(said,))))
    await pool.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def _report(stack: Stack, tenant: Tenant) -> None:
    """A mail comes back; the report is recorded by a process that shares the metrics, as the mailbox role's does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", REPORT, tenant.id, "two@there.example"),
        env={**os.environ, **stack.environ},
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert said == b"1\n"


async def _scraped(server: Prometheus, times: int) -> None:
    """So many times more."""
    expr = 'count_over_time(up{job="postferry"}[1h])'

    def count() -> int:
        try:
            found = server.ask("query", query=expr)["result"]
        except OSError:
            return 0
        return int(found[0]["value"][1]) if found else 0

    before = await asyncio.to_thread(count)

    async def more() -> bool:
        return await asyncio.to_thread(count) >= before + times

    await until(more, 60)


async def _told(server: Prometheus) -> bool:
    """Everything that a panel or an alert names was seen."""
    return not (named() - await asyncio.to_thread(server.names))


def test_every_metric_that_a_panel_or_an_alert_names_is_exported(prometheus: Prometheus) -> None:
    assert named() - prometheus.names() == set()


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    asked = [(panel["title"], expr) for panel in PANELS for expr in expressions(panel)]
    assert [(title, expr) for title, expr in asked if "$" in expr or not prometheus.query(expr)] == []


def test_every_alert_is_evaluated_without_a_fault(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(ALERTS)
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        prometheus.query(rule["query"])


def test_the_page_is_as_prometheus_wants_it(prometheus: Prometheus) -> None:
    promtool("check", "metrics", input=prometheus.page)


def test_no_metric_is_exported_that_is_not_declared(prometheus: Prometheus) -> None:
    ours = {name for name in prometheus.names() if name.startswith("postferry_")}
    assert ours - declared().keys() == set()
