"""What it costs to watch mailboxes: processor time and rate of looks that find nothing new, which nearly all do.

    .venv/bin/python -m tests.bench.watch [ACCOUNTS]        # 1,000 by default; some ten seconds

A PostgreSQL of its own, and a mailbox server in a process of its own; each look is a connection, TLS, a login, and two
questions. What is told is of the watching process alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from relay import local
from relay.core.vault import Vault, new_key
from relay.mailboxes import Mailboxes
from relay.settings import Settings, read
from relay.store import accounts, db
from relay.watch import Watcher
from tests.fakes.mailbox import MailboxServer
from tests.stack import FLEETING, Machine, until

ACCOUNTS = 1000
AT_ONCE = 100  # connections
SERVER = "--server"


async def serve() -> None:
    """The mailbox server, until its standard input ends."""
    async with MailboxServer(implicit=True) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def mailbox_server() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.bench.watch", SERVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(10)


@contextmanager
def database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="postferry-bench-") as folder:
        machine = Machine(local.Postgres(Path(folder) / "postgres", FLEETING), Path(folder) / "log")
        machine.start()
        try:
            db.migrate(machine.server.url)
            yield machine.server.url
        finally:
            machine.close()


async def enrol(pool: db.Pool, vault: Vault, port: int, count: int) -> None:
    fields = {
        "imap.host": "127.0.0.1",
        "imap.port": port,
        "imap.secure": True,
        "imap.tls.rejectUnauthorized": False,
        "imap.auth.user": "ann",
        "imap.auth.pass": "secret",
    }
    async with db.connection(pool) as conn, conn.transaction():
        for number in range(count):
            await accounts.save(conn, vault, f"a{number}", lambda _: dict(fields))


async def measure(settings: Settings, port: int, count: int) -> None:
    pool, vault = await db.open_pool(settings, most=6), Vault(settings.secret_keys)
    await enrol(pool, vault, port, count)
    for name in ("the first look", "a look that finds nothing new"):
        boxes = Mailboxes(settings, None, idle=0.0)
        stopping, begun, used = asyncio.Event(), time.monotonic(), time.process_time()
        room = asyncio.create_task(Watcher(pool, settings, vault, boxes, look=0.05).run(stopping))
        await until(lambda: settled(pool, count), 300)
        seconds, used = time.monotonic() - begun, time.process_time() - used
        stopping.set()
        await room
        await boxes.close()
        async with db.connection(pool) as conn:
            await conn.execute("update mailboxes set due_at = now(), looked_at = null")
        print(f"{name}: {1000 * used / count:.1f} ms of a processor, {count / seconds:.0f} looks a second")
    print(f"{count} mailboxes, each looked at every five minutes: {100 * used / 300:.1f} % of a processor")
    await pool.close()


async def settled(pool: db.Pool, count: int) -> bool:
    await asyncio.sleep(0.2)
    async with db.connection(pool) as conn:
        row = await (await conn.execute("select count(*) from mailboxes where looked_at is not null")).fetchone()
        bad = await (await conn.execute("select error from mailboxes where error <> '' limit 1")).fetchone()
    assert bad is None, json.dumps(bad)
    return bool(row and row[0] == count)


def main() -> None:
    if SERVER in sys.argv:
        asyncio.run(serve())
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ACCOUNTS
    with database() as url, mailbox_server() as port:
        given = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1", "POSTFERRY_SECRET_KEYS": new_key()}
        settings = replace(read(given, dotenv=None), mailbox_connections=AT_ONCE)
        settings = replace(settings, allow_networks=(ip_network("127.0.0.0/8"),))
        asyncio.run(measure(settings, port, count))


if __name__ == "__main__":
    main()
