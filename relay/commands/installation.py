"""The installation that a command is about: its settings, its database, its keys."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay import settings
from relay.commands.terminal import CONFIG, Run, Stop

if TYPE_CHECKING:
    from relay.core.vault import Vault
    from relay.store.db import Connection, Pool


@dataclass(frozen=True)
class Installation:
    """What a command works with: valid settings that name a database, and a connection to it."""

    settings: settings.Settings
    conn: Connection

    @property
    def vault(self) -> Vault:
        from relay.core.vault import Vault

        return Vault(self.settings.secret_keys)

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[Pool]:
        """For the parts of the plot that want one."""
        from relay.store import db

        async with db.pooled(self.settings, most=2) as pool:
            yield pool


def asynchronous(work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]]) -> Run:
    """A command's function from its asynchronous form."""

    def perform(args: argparse.Namespace) -> int:
        import asyncio  # a third of the start of a command that has no need of it

        return asyncio.run(work(args))

    return perform


def read(args: argparse.Namespace) -> settings.Settings:
    """The environment, then `.env`, then what the `postferry up` in the data folder wrote down."""
    return settings.read(environment(Path(args.data)), None)


def environment(folder: Path) -> dict[str, str]:
    return {**known(folder), **settings.env_file(Path(".env")), **os.environ}


def known(folder: Path) -> dict[str, str]:
    """What `postferry up` wrote into DIR/env: addresses and keys of the servers it started. Empty without one."""
    return settings.env_file(folder / "env")


def read_with_database(args: argparse.Namespace) -> settings.Settings:
    given, folder = read(args), Path(args.data).absolute()
    if not given.database_url:
        for file in (Path(".env"), folder / "env"):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                file.open().close()  # PermissionError: it may be all there, and another user's
        raise Stop(
            f"there is no database: DATABASE_URL is not set, and no `postferry up` has run in {folder}",
            "start one:     postferry up\nor its folder: --data DIR\nor name yours: export DATABASE_URL=postgresql://user@host/database",
            CONFIG,
        )
    return given


@asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[Installation]:
    """StoreAway when PostgreSQL cannot be reached, Unmigrated when it has not this version's schema."""
    given = read_with_database(args)
    from relay.store import overview, schema

    async with overview.connected(given.database_url) as conn:
        await schema.check(conn)
        yield Installation(given, conn)
