"""The way to PostgreSQL: a pool, one translation of outages, and migrations under an advisory lock."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from relay.core.errors import Refused, StoreAway, Unmigrated
from relay.settings import Settings, SettingsError

HALF_OPEN = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server that vanished without a word is noticed within half a minute; by default it would take hours."""

VANISHED = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
"""The same for the other end: a host that vanished leaves sessions, which the server would keep for hours, with what
they have locked. No database transaction of ours waits for anything but the database."""

IN_ORDER = {"enable_bitmapscan": "off"}
"""What an index has in order is not read whole and sorted: after a burst that the planner has not seen yet, it takes an
account's part of a table for a few rows."""

PLANS = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(
    ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"
)
"""A plan that is kept must not come from a moment when the tables were small: such roles look rows up, by id."""

PROMPT = {"lock_timeout": "5s"}
"""Whoever waits at a door is told, in place of waiting for somebody who has locked a table; what waited is undone."""

AWAY = (
    *(PoolTimeout, PoolClosed, psycopg.OperationalError, psycopg.InterfaceError),
    psycopg.errors.IdleInTransactionSessionTimeout,  # we stood still: the server has let go of us
    psycopg.errors.ReadOnlySqlTransaction,  # a standby, or a primary that was replaced
)


class Locked(StoreAway):
    """Somebody has had for long what this needs: PostgreSQL is there, and nothing was done (451 4.3.0, 503)."""


Connection: TypeAlias = AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Connection]

MIGRATION_LOCK = 0x706F7374  # "post"
PATIENCE = "2s"  # that a migration waits for a table: whoever comes to it after, mail too, waits behind
AGAIN = 5.0  # s that the others are left alone then


def check_address(database_url: str) -> None:
    """Raises SettingsError for what PostgreSQL's library cannot read. It is asked here: a pool would try for ever.

    Its own words are not passed on: they repeat what may be a part of the password.
    """
    try:
        port = conninfo_to_dict(database_url).get("port")
        good = all(part.isdecimal() for part in str(port or "").split(",") if part)
    except psycopg.ProgrammingError:
        good = False
    if not good:
        raise SettingsError(
            [
                "DATABASE_URL is nothing that PostgreSQL's library can read: a parameter is misspelt, the port is no "
                "number, or a character of user or password is not escaped (%40 is @)"
            ]
        )


async def open_pool(
    settings: Settings,
    *,
    most: int,
    generic: bool = False,
    prompt: bool = False,
    slowest: float | None = None,
) -> Pool:
    """A pool of autocommit connections. It opens even while PostgreSQL is away: they are made when they can be.

    `generic`: plans are made once and kept, for roles whose statements are few, large and the same all day.
    `prompt`: clients wait, so what somebody else has locked is not waited out.
    `slowest`: seconds after which a statement is ended.
    """

    wanted = VANISHED | IN_ORDER | (PLANS if generic else {}) | (PROMPT if prompt else {})
    if slowest is not None:
        wanted |= {"statement_timeout": f"{slowest}s"}

    async def configure(conn: Connection) -> None:
        await conn.execute(
            "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as wanted(name, value)",
            (list(wanted), list(wanted.values())),
        )

    pool: Pool = AsyncConnectionPool(
        settings.database_url,
        min_size=1,
        max_size=most,
        open=False,
        timeout=5,
        reconnect_timeout=3,  # s; then whoever asks next tries anew. The pool's own pauses double, up to half a minute
        kwargs={"autocommit": True, "connect_timeout": 5, "application_name": "postferry", **HALF_OPEN},
        check=_check,
        configure=configure,
    )
    await pool.open()
    return pool


async def scalar(conn: Connection, query: str, given: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
    """The first value of the first row; None where there is no row."""
    row = await (await conn.execute(query.encode(), given)).fetchone()
    return row[0] if row else None


@asynccontextmanager
async def pooled(
    settings: Settings, *, most: int, generic: bool = False, prompt: bool = False, slowest: float | None = None
) -> AsyncIterator[Pool]:
    """The same for a block; closed whatever ends it. One that nobody closes keeps its process from ending."""
    pool = await open_pool(settings, most=most, generic=generic, prompt=prompt, slowest=slowest)
    try:
        yield pool
    finally:
        await pool.close()


async def _check(conn: Connection) -> None:
    """An idle connection has nothing to say. One that does was most likely cut; a question then shows it.

    So a restart of PostgreSQL costs nobody a refusal afterwards, and in good times a look costs no round trip.
    """
    look = select.poll()
    look.register(conn.fileno(), select.POLLIN)
    if look.poll(0):
        await conn.execute("select 1")


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool; PostgreSQL being away, now or in the middle, is StoreAway.

    Before Python 3.12 `asyncio.wait_for`, with which the pool waits, loses a cancel that comes as a connection is
    handed out. It is made up for here: else the task goes on, and who waits for its end may wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    with away_is_said():
        conn = await pool.getconn()
        try:
            if task.cancelling() > cancelled:
                raise asyncio.CancelledError
            async with conn:
                yield conn
        finally:
            await asyncio.shield(pool.putconn(conn))  # cut short, the pool would count it and never have it again


@asynccontextmanager
async def patient(pool: Pool) -> AsyncIterator[Connection]:
    """The same of a pool with a `slowest`: what took longer is Refused (503)."""
    async with connection(pool) as conn:
        try:
            yield conn
        except psycopg.errors.QueryCanceled as error:
            raise Refused("This took too long just now; ask for less of it", status=503, code="TooSlow") from error


@asynccontextmanager
async def lock_timeout(conn: Connection, seconds: float) -> AsyncIterator[None]:
    """In the block each statement waits so long for a lock, and no longer."""
    choose = "select set_config('lock_timeout', %s, false)"
    before = await scalar(conn, "select current_setting('lock_timeout')")
    await conn.execute(choose, (f"{max(1, round(seconds * 1000))}ms",))  # 0 would be for ever
    try:
        yield
    finally:
        await conn.execute(choose, (before,))


async def ping(pool: Pool) -> None:
    """Raises StoreAway when PostgreSQL does not answer."""
    async with connection(pool) as conn:
        await conn.execute("select 1")


class away_is_said:
    """Turns the errors of an absent or stopping PostgreSQL into StoreAway, a lock that took too long into Locked."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            raise Locked(str(error)) from error
        if isinstance(error, AWAY):
            raise StoreAway(str(error) or type(error).__name__) from error


def migrate(database_url: str, held_up: Callable[[str], None] = lambda name: None) -> list[str]:
    """Applies what is missing, one database transaction each, and returns the names. Safe from many hosts at once.

    `held_up` is told, again and again, of what waits for another session; what it raises ends the wait.
    """
    applied = []
    check_address(database_url)
    with away_is_said(), psycopg.connect(database_url, autocommit=True, connect_timeout=10) as conn:
        while not _done(conn, ("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))):
            held_up("migrations")
        conn.execute(
            "create table if not exists migrations (name text primary key, at timestamptz not null default now())"
        )
        for name, text in pending(conn):
            while not _done(conn, (text, None), ("insert into migrations (name) values (%s)", (name,))):
                held_up(name)
                time.sleep(AGAIN)
            applied.append(name)
    return applied


def _done(conn: psycopg.Connection[Any], *statements: tuple[str, Sequence[Any] | None]) -> bool:
    """False: somebody had for long what this needs, as a backup has all tables, and nothing was done."""
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", (PATIENCE,))
            for text, given in statements:
                conn.execute(text.encode(), given)
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def pending(conn: psycopg.Connection[Any]) -> Sequence[tuple[str, str]]:
    """Name and text of each migration that this database does not have."""
    try:
        done = {row[0] for row in conn.execute("select name from migrations")}
    except psycopg.errors.UndefinedColumn:
        raise foreign(conn.info.dbname) from None
    return [(name, text) for name, text in migrations() if name not in done]


def foreign(database: str) -> Unmigrated:
    """Another program keeps its own account of migrations there."""
    words = f"the database {database!r} has a table `migrations` that is not Postferry's"
    return Unmigrated(words, "give Postferry a database of its own")


def migrations() -> list[tuple[str, str]]:
    """Name and text of every migration, in order."""
    folder = resources.files(__package__).joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.removesuffix(".sql"), file.read_text("utf-8")) for file in files]
