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
from dataclasses import replace
from pathlib import Path

from relay import log, meters, metrics, processes, scrape, vitals
from relay import settings as settings_module
from relay.core.vault import Vault, VaultError
from relay.settings import Settings, SettingsError

CONFIG, UNAVAILABLE = 78, 69  # sysexits.h

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]
Bind = Callable[[Settings], Sequence[socket.socket]]


def run(
    name: str, serve: Serve, *, count: Callable[[Settings], int] = lambda _: 1, bind: Bind | None = None, keys: bool
) -> int:
    """Runs `serve(settings, stopping)` in `count` processes and returns the exit code. `keys`: it opens secrets.

    The parent binds the role's ports too, without listening: that one is taken is said once, at the start.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of this process would have the tenants' passwords in it
    try:
        settings = settings_module.read()
        if keys:
            Vault(settings.secret_keys)
    except (SettingsError, VaultError) as faults:
        print(faults, file=sys.stderr)
        return CONFIG
    try:
        held = bind(settings) if bind else ()
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return UNAVAILABLE
    if bind and not held:
        print(f"every port of the role {name} is off: no port to listen on", file=sys.stderr)
        return CONFIG
    own = _folder(settings, count(settings))
    metrics.prepare(replace(settings, metrics_dir=own) if own else settings)
    log.setup(settings, name)

    async def process(stopping: asyncio.Event) -> None:
        if name != "api":
            scrape.expose(settings)  # in every process, after the fork: a thread does not survive one
        async with vitals.told(name):
            await serve(settings, stopping)

    try:
        return processes.run(count(settings), process)
    finally:
        for one in held:
            one.close()
        if own:
            shutil.rmtree(own, ignore_errors=True)


def _folder(settings: Settings, processes: int) -> Path | None:
    """For the metrics of a role of several processes, where the operator names none: whoever is asked tells of all."""
    if processes == 1 or settings.metrics_dir or meters.FOLDER in os.environ:
        return None
    return Path(tempfile.mkdtemp(prefix="postferry-metrics-"))
