"""How many webhooks one notify process posts a second: to one endpoint and to ten, on loopback, PostgreSQL durable.

    python -m tests.bench.webhooks [EVENTS]

The receiver is a process of its own that answers 204 and looks at nothing. A post is claimed, signed, posted, and
settled with its log row.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from relay import local
from relay.core import webhook
from relay.core.vault import Vault
from relay.store import db
from tests.bench.ports import free_port
from tests.stack import Machine, Stack, until

DATA = (
    '{"queueId": "0197", "messageId": "<0197@here.example>", "recipient": "r@there.example",'
    ' "response": "250 2.0.0 ok", "envelope": {"from": "s@here.example", "to": ["r@there.example"]}}'
)
PENDING = "select 1 from postings where state = 'pending' limit 1"


class _Answering(asyncio.Protocol):
    """204 to every request; a request's end is known by its length alone."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._got = transport, b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._got) < end + 4 + length:
                return
            self._got = self._got[end + 4 + length :]
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def receive(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port)
    await server.serve_forever()


async def measure(stack: Stack, url: str, endpoints: int, events: int) -> float:
    """Posts a second, from the first one claimed to the last one settled."""
    vault = Vault(stack.settings.secret_keys)
    secret = webhook.new_secret(os.urandom(32))
    with psycopg.connect(stack.settings.database_url, autocommit=True) as conn:
        conn.execute("truncate accounts, endpoints, postings, posts, events cascade")
        conn.execute("insert into accounts (id) values ('a')")
        for number in range(endpoints):
            row = conn.execute(
                "insert into endpoints (account_id, url, secret) values ('a', %s, '') returning id",
                (f"{url}/{number}",),
            ).fetchone()
            assert row is not None
            sealed = vault.seal(f"endpoint/{row[0]}", "secret", secret)
            conn.execute("update endpoints set secret = %s where id = %s", (sealed, row[0]))
        conn.execute(
            "insert into events (account_id, type, data) select 'a', 'messageSent', %s::jsonb"
            " from generate_series(1, %s)",
            (DATA, events // endpoints),
        )
        await stack.start("notify")
        await until(lambda: conn.execute("select 1 from posts limit 1").fetchone() is not None)
        begun = time.monotonic()

        await until(lambda: conn.execute(PENDING).fetchone() is None, 120)
        seconds = time.monotonic() - begun
        await stack.stop("notify")
        states = dict(conn.execute("select state::text, count(*) from postings group by 1").fetchall())
        assert set(states) == {"delivered"}, states
        return events / seconds


def bench(events: int) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machine = Machine(local.Postgres(folder / "postgres", local.DURABLE), folder / "postgres.log")
        receiver = subprocess.Popen([sys.executable, "-m", "tests.bench.webhooks", "--receive", str(port)])
        try:
            machine.start()
            db.migrate(machine.server.url)
            given = {
                "DATABASE_URL": machine.server.url,
                "POSTFERRY_SECRET_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
                "POSTFERRY_ALLOW_NETWORKS": "127.0.0.0/8",
            }
            stack = Stack(given, folder)
            for endpoints in (1, 10):
                rate = asyncio.run(measure(stack, f"http://127.0.0.1:{port}", endpoints, events))
                print(f"{events} webhooks to {endpoints} endpoints: {rate:.0f} a second")
            stack.close()
        finally:
            receiver.kill()
            receiver.wait()
            machine.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--receive"]:
        import uvloop

        uvloop.run(receive(int(sys.argv[2])))
    else:
        bench(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
