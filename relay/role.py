"""The main of every role: settings, ports, metrics, logs; then its processes, until a signal."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from relay import log, meters, metrics, processes, scrape, vitals
from relay import settings as settings_module
from relay.core.errors import StoreAway, Unmigrated
from relay.core.vault import Vault, VaultError
from relay.settings import Settings, SettingsError
from relay.store import db, overview, schema

CONFIG, UNAVAILABLE = 78, 69  # sysexits.h
INTERRUPTED = 130
PATIENCE = 5.0  # s for a look at the schema
SOCKETS = 65_536  # that a process may have, where the system lets it: shells say 1,024

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]
Bind = Callable[[Settings], Sequence[socket.socket]]
Judge = Callable[[str], str]


def run(
    name: str,
    serve: Serve,
    *,
    count: Callable[[Settings], int] = lambda _: 1,
    bind: Bind | None = None,
    keys: bool,
    broker: Judge | None = None,
) -> int:
    """Runs `serve(settings, stopping)` in `count` processes and returns the exit code.

    `keys`: it opens secrets. `broker`: it needs Redis; this tells what is wrong with a URL, "" for nothing. The parent
    binds the role's ports too, without listening: that one is taken is said once, at the start.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of this process would have the tenants' passwords in it
    _allow_sockets()
    try:
        settings = settings_module.read()
        _check(settings, keys, broker)
        asyncio.run(_check_schema(settings))
    except SettingsError as error:
        _complain("the settings are wrong:", *(f"  {fault}" for fault in error.faults))
        return CONFIG
    except Unmigrated as fault:
        _complain(str(fault), f"  {fault.advice}")
        return CONFIG
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        held = bind(settings) if bind else ()
    except OSError as error:
        _complain(error.strerror or str(error))
        return UNAVAILABLE
    if bind and not held:
        _complain(f"every port of the role {name} is off: no port to listen on")
        return CONFIG
    own = _folder(settings, count(settings))
    try:
        metrics.prepare(replace(settings, metrics_dir=own) if own else settings)
    except OSError as error:
        _complain(f"POSTFERRY_METRICS_DIR cannot be used: {error.filename}: {error.strerror}")
        return UNAVAILABLE
    log.setup(settings, name)

    async def process(stopping: asyncio.Event) -> None:
        if name != "api":
            scrape.expose(settings)  # in every process, after the fork: a thread does not survive one
        async with vitals.told(name):
            try:
                await serve(settings, stopping)
            except Exception:
                await _check_schema(settings)  # PostgreSQL may have been away at the start
                raise

    try:
        return processes.run(count(settings), process)
    finally:
        for one in held:
            one.close()
        if own:
            shutil.rmtree(own, ignore_errors=True)


def _allow_sockets() -> None:
    """A role keeps thousands: of clients, of mailboxes, of receivers that it may soon post to again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SOCKETS if hard == resource.RLIM_INFINITY else min(hard, SOCKETS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # macOS promises more than it gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _check(settings: Settings, keys: bool, broker: Judge | None) -> None:
    """What others may do without, and this role may not. Raises SettingsError with every fault."""
    faults = []
    try:
        if settings.database_url:
            db.check_address(settings.database_url)
        else:
            faults.append("DATABASE_URL is not set; name a PostgreSQL: DATABASE_URL=postgresql://user:pass@host/db")
    except SettingsError as error:
        faults += error.faults
    if broker and not settings.redis_url:
        faults.append("REDIS_URL is not set; name a Redis or Valkey: REDIS_URL=redis://host:6379/0")
    elif broker and (fault := broker(settings.redis_url)):
        faults.append(f"REDIS_URL {fault}")
    try:
        if keys:
            Vault(settings.secret_keys)
    except VaultError as error:
        faults.append(str(error))
    if faults:
        unread = settings_module.unreadable(Path(".env"))  # what is missing may well stand there
        raise SettingsError([unread, *faults] if unread else faults)


async def _check_schema(settings: Settings) -> None:
    """Raises Unmigrated. While PostgreSQL is away nothing is known of it: the role starts, and waits."""
    with suppress(StoreAway, TimeoutError):
        async with asyncio.timeout(PATIENCE), overview.connected(settings.database_url) as conn:
            await schema.check(conn)


def _complain(*lines: str) -> None:
    """As the commands do: whoever starts a role by hand does not know that it took the command's place."""
    print("postferry:", "\n".join(lines), file=sys.stderr)


def _folder(settings: Settings, processes: int) -> Path | None:
    """For the metrics of a role of several processes, where the operator names none: whoever is asked tells of all."""
    if processes == 1 or settings.metrics_dir or meters.FOLDER in os.environ:
        return None
    return Path(tempfile.mkdtemp(prefix="postferry-metrics-"))
