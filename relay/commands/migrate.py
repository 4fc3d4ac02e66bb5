"""`postferry migrate`: bring the database to this version's schema."""

from __future__ import annotations

import argparse
import sys
from functools import cache

from relay.commands import installation
from relay.commands.terminal import describe, mark


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        _migrate,
        "Apply the migrations that this database lacks, each in a database transaction of its own. Safe to run from "
        "many hosts at once, and again: what is done is skipped. `postferry up` does it by itself.",
        "migrate",
    )


def _migrate(args: argparse.Namespace) -> int:
    from relay.store import db

    given = installation.read_with_database(args)
    applied = db.migrate(given.database_url, cache(_held_up))
    for name in applied:
        print(f"{mark('ok')} {name}")
    if not applied:
        print("nothing to do: the schema is up to date")
    return 0


def _held_up(name: str) -> None:
    said = f"{name} waits for another session, as a backup or another migration; it is tried again and again"
    print(f"{mark('busy', sys.stderr)} {said}", file=sys.stderr)
