"""Whether a database has the schema that this version works with."""

from __future__ import annotations

import psycopg

from relay.core.errors import Unmigrated
from relay.store import db
from relay.store.db import Connection

NAMED = 3  # migrations that are named where several are missing
MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
"""What a statement raises over another schema: a role has no use of trying again, and ends."""


async def unapplied(conn: Connection) -> list[str]:
    """Names of the migrations that this database lacks."""
    row = await (await conn.execute("select to_regclass('migrations') is not null")).fetchone()
    done: set[str] = set()
    if row and row[0]:
        done = {name for (name,) in await (await conn.execute("select name from migrations")).fetchall()}
    return [name for name, _ in db.migrations() if name not in done]


async def check(conn: Connection) -> None:
    """Raises Unmigrated. A newer schema will do: it is made before the roles of its version are started."""
    try:
        missing = await unapplied(conn)
    except psycopg.errors.InsufficientPrivilege:
        return  # who may not read that table may still do the work
    except psycopg.errors.UndefinedColumn:
        raise db.foreign(conn.info.dbname) from None
    database = f"the database {conn.info.dbname!r}"
    if len(missing) == len(db.migrations()):
        raise Unmigrated(f"{database} has no Postferry schema")
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        lacks = ", ".join(missing[:NAMED]) + more
        raise Unmigrated(f"{database} has a schema older than this version: it lacks {lacks}")
