"""`postferry up`: everything on one machine under one supervisor, from an empty folder to a line to paste."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from relay import local, ready, settings, tail
from relay.commands.terminal import CONFIG, SOFTWARE, TEMPFAIL, UNAVAILABLE, Stop, mark, paint, span
from relay.datafolder import DataFolder, Held, write_private
from relay.listen import LOOPBACK
from relay.roles import (
    PortTaken,
    api_url,
    check_ports,
    environment,
    log_of,
    role_child,
    roles,
    server_child,
    servers,
)
from relay.supervisor import NotReady, Supervisor

SANDBOX = "sandbox"
SANDBOX_ADDRESS = "sandbox@example.com"
LOOK_SECONDS = 0.5
TITLES = {"postgres": "PostgreSQL", "valkey": "Valkey"}


def run(data: Path) -> int:
    """Runs until somebody stops it. Raises Stop, with advice, for what a person can put right."""
    try:
        folder = DataFolder(data)
        held = folder.hold(lambda: _say("busy", "the last run was killed; waiting until its processes have ended"))
        return asyncio.run(Up(data, folder).run(held))
    except Held as other:
        who = f"`postferry up`, process {other.pid}" if other.pid else "processes of an earlier run"
        end = f"stop it (kill {other.pid})" if other.pid else "see them with: ps -ef | grep postferry"
        raise Stop(f"{data} is in use by {who}", f"{end}, or choose another folder with --data", TEMPFAIL) from None
    except PortTaken as taken:
        other_port = f"{taken.variable}={taken.port + 1 if taken.port < 65535 else 1024}"
        raise Stop(
            str(taken), f"stop that program, or choose another port: {other_port} postferry up", CONFIG
        ) from None
    except local.LocalError as fault:
        first, *more = str(fault).splitlines()
        raise Stop(first, "\n".join(more), UNAVAILABLE) from None


class Up:
    """One run over one data folder. `shown` is that folder as the user spells it."""

    def __init__(self, shown: Path, folder: DataFolder) -> None:
        self._shown, self._folder = shown, folder
        self._began = time.monotonic()
        given = {**settings.env_file(Path(".env")), **os.environ}
        self._servers = servers(folder, given)
        self._environ = environment(folder, given, self._servers)
        self._settings = settings.read(self._environ, None)
        self._roles = roles(self._settings, folder)
        self._tails = [tail.Tail(log_of(folder, role.name)) for role in self._roles]
        names = [*(server.name for server in self._servers), *(role.name for role in self._roles)]
        # What earlier runs wrote explains nothing in this one.
        self._earlier = {log: tail.end(log) for log in (log_of(folder, name) for name in names)}
        self._first_time = not folder.admin_token.exists()

    async def run(self, held: int) -> int:
        check_ports(self._settings)
        ended = asyncio.Event()
        supervisor = Supervisor(lambda text: _say("warning", text), keep=(held,))
        _on_signals(ended, supervisor)
        try:
            await _unless(ended, self._start(supervisor))
            if not ended.is_set():
                _print(self._ready_block())
                ready.announce()
                await _unless(ended, self._follow_logs())
        except NotReady as fault:
            raise self._explain(fault) from None
        finally:
            _say("busy", "stopping; what was accepted is safe")
            await supervisor.stop()
        _say("ok", "stopped")
        return 0

    async def _start(self, supervisor: Supervisor) -> None:
        """Servers, then the schema and what is made once, then the roles."""
        if self._first_time:
            _say("busy", f"first start: everything is kept in {self._shown}")
        began = time.monotonic()
        await supervisor.start_all(server_child(server, self._folder) for server in self._servers)
        if self._servers:
            _say("ok", " and ".join(TITLES[server.name] for server in self._servers), time.monotonic() - began)
        await self._prepare_store()
        self._folder.tell_commands(
            {
                name: text
                for name, text in self._environ.items()
                if name in settings.BARE or name.startswith(settings.PREFIX)
            }
        )
        began = time.monotonic()
        await supervisor.start_all(role_child(role, self._folder, self._environ) for role in self._roles)
        _say("ok", ", ".join(role.name for role in self._roles), time.monotonic() - began)

    async def _prepare_store(self) -> None:
        """The schema, the sandbox account and the admin token: each is made once."""
        from relay import enrol
        from relay.core.vault import Vault
        from relay.store import accounts, db, tokens

        for name in await _migrated(self._settings.database_url):
            _say("ok", f"schema {name}")
        pool = await db.open_pool(self._settings, most=1)
        try:
            async with db.connection(pool) as conn:
                sandbox = await accounts.find(conn, SANDBOX)
            if sandbox is None:
                given = {"name": "Sandbox", "email": SANDBOX_ADDRESS, "smtp": {"host": SANDBOX, "port": 25}}
                await enrol.save(pool, Vault(self._settings.secret_keys), self._settings, SANDBOX, given)
            if self._first_time:
                async with db.connection(pool) as conn:
                    token = await tokens.create(conn, ["*"], None, "made by postferry up")
                write_private(self._folder.admin_token, token + "\n")
        finally:
            await pool.close()

    async def _follow_logs(self) -> None:
        """Until cancelled: what is severe in the roles' logs, on the terminal."""
        while True:
            for log in self._tails:
                for line in log.news():
                    _print(line)
                log.turn()
            await asyncio.sleep(LOOK_SECONDS)

    def _explain(self, fault: NotReady) -> Stop:
        log = log_of(self._folder, fault.child.name)
        words = tail.last_words(log, self._earlier[log]) or ["it said nothing"]
        code = CONFIG if fault.status == CONFIG else SOFTWARE  # 78: started again, it would end so again
        return Stop(str(fault), "\n".join([*words, f"the whole story: {log}"]), code)

    def _ready_block(self) -> str:
        """Where everything is, and two lines to paste."""
        chosen, kept = self._settings, self._shown / "admin.token"
        took = span(time.monotonic() - self._began)
        api = api_url(chosen)
        token = kept.read_text().strip() + f"   (shown this once; kept in {kept})" if self._first_time else f"in {kept}"
        tls = f" and {chosen.smtps_port} (TLS)" if chosen.tls_certificate and chosen.smtps_port else ""
        lines = [
            "",
            f"{paint('Postferry is ready', 'green')} after {took}. Ctrl-C stops all of it.",
            "",
            f"  SMTP         {chosen.smtp_host}:{chosen.smtp_port}{tls}" if chosen.smtp_port else "  SMTP         off",
            f"  API          {api}   described at {api}/docs",
            f"  Admin token  {token}",
            f"  Sandbox      mail of the account `sandbox` goes no further than {self._shown / 'sandbox'}",
            f"  Logs         {self._shown / 'logs'}",
            "",
            paint("Send something over HTTP:", "bold"),
            f"  {_http_line(api, kept)}",
            *_smtp_lines(chosen),
            "",
        ]
        return "\n".join(lines)


def _http_line(api: str, token: Path) -> str:
    body = '{"to": [{"address": "you@example.com"}], "subject": "Hello over HTTP", "html": "<p>It works.</p>"}'
    return (
        f'curl {api}/v1/account/{SANDBOX}/submit -H "Authorization: Bearer $(cat {shlex.quote(str(token))})"'
        f" -H 'Content-Type: application/json' -d '{body}'"
    )


def _smtp_lines(chosen: settings.Settings) -> list[str]:
    """smtplib rather than curl: whoever runs this has Python, and not every curl speaks SMTP."""
    if not chosen.smtp_port:
        return []
    host = LOOPBACK.get(chosen.smtp_host, chosen.smtp_host)
    mail = f"From: {SANDBOX_ADDRESS}\\nTo: you@example.com\\nSubject: Hello over SMTP\\n\\nIt works."
    program = (
        f"import smtplib; s = smtplib.SMTP('{host}', {chosen.smtp_port}); s.set_debuglevel(1); "
        f"s.sendmail('{SANDBOX_ADDRESS}', 'you@example.com', '{mail}'); s.quit()"
    )
    return [paint("and over SMTP:", "bold"), f'  python3 -c "{program}"']


async def _migrated(database_url: str) -> list[str]:
    """Beside the event loop, so that Ctrl-C is heard; it then ends with the try that is under way."""
    from relay.store import db

    ended = threading.Event()

    @cache
    def tell(name: str) -> None:
        _say("busy", f"schema {name} waits for another session, as a backup or another migration")

    def held_up(name: str) -> None:
        if ended.is_set():
            raise asyncio.CancelledError
        tell(name)

    try:
        return await asyncio.to_thread(db.migrate, database_url, held_up)
    finally:
        ended.set()


async def _unless(ended: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Does the work, or leaves off when somebody wants an end."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        return
    working.result()


def _on_signals(ended: asyncio.Event, supervisor: Supervisor) -> None:
    """The first asks for an end, the next for a quick one."""

    def heard() -> None:
        if ended.is_set():
            supervisor.kill()
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, heard)


def _say(state: str, text: str, seconds: float | None = None) -> None:
    took = paint(f"  {span(seconds)}", "dim") if seconds is not None else ""
    _print(f"{mark(state)} {text}{took}")


def _print(text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal may be gone: no reason to leave processes behind
        print(text, flush=True)
