"""The main of every role: settings, ports, metrics, logs; then its processes, until a signal."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

from relay import log, metrics, processes
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
    metrics.prepare(settings)
    log.setup(settings, name)
    if name != "api" and count(settings) == 1:
        metrics.expose(settings)
    try:
        return processes.run(count(settings), lambda stopping: serve(settings, stopping))
    finally:
        for one in held:
            one.close()
