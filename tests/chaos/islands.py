"""Two hosts, a store and the world, each a network namespace, and the lines between them.

one ── postgres ──┐
 │ ─── valkey ────┤ store: PostgreSQL and Valkey, on TCP
two ── postgres ──┤
 │ ─── valkey ────┘
 └ and each one to the world: this process, where mail comes from and goes to
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from relay import local
from relay.ready import Notice
from relay.settings import Settings, read
from relay.store import db, tokens
from tests.bench import machine
from tests.chaos.senders import Door
from tests.chaos.stage import OWN, SMALL
from tests.chaos.wires import Line, Net, another
from tests.conftest import HASTY, environment
from tests.stack import ALL, Machine, Stack

NAMES = ("one", "two")
WORLD = "10.77.200.1"  # the one address that upstream and endpoint have for both hosts
OURS = "10.77.0.0/16"
POSTGRES_PORT, VALKEY_PORT, SMTP_PORT, API_PORT = 5432, 6379, 2525, 3000
BUFFERS = {"shared_buffers": "128MB", "max_wal_size": "512MB"}


class Host(Stack):
    """The roles of one host, in its namespace. `lines` by where they lead to."""

    def __init__(self, name: str, number: int, net: Net, ends: dict[str, Net], given: dict[str, str], folder: Path):
        self.name, self._net = f"{name}.test", net
        self.lines = {place: Line(net, end, 3 * number + step) for step, (place, end) in enumerate(ends.items())}
        for line in self.lines.values():
            line.lay()
        net.ip("route", "add", WORLD, "via", self.lines["world"].far_address)
        database = f"postgresql://{local.OWNER}@{self.lines['postgres'].far_address}:{POSTGRES_PORT}/postgres"
        broker = f"redis://{self.lines['valkey'].far_address}:{VALKEY_PORT}/0"
        own = {"DATABASE_URL": database, "REDIS_URL": broker, "POSTFERRY_HOSTNAME": self.name}
        folder.mkdir()
        super().__init__(given | own, folder)

    @property
    def door(self) -> Door:
        return Door(self.lines["world"].near_address, SMTP_PORT, API_PORT)

    @property
    def api(self) -> str:
        return f"http://{self.door.host}:{API_PORT}"

    def cut(self, *places: str) -> None:
        for place in places or self.lines:
            self.lines[place].cut()

    def mend(self) -> None:
        for line in self.lines.values():
            line.mend()

    def cpu(self) -> float:
        """Seconds of it that what runs now has used."""
        return sum(machine.cpu_seconds(one.pid) for name, one in self._processes.items() if self.runs(name))

    def _spawn(self, *given: object) -> Notice:
        with self._net.inside():
            return super()._spawn(*given)  # type: ignore[arg-type]


class Islands:
    """All of it. `world` is the namespace this process is in."""

    def __init__(self, folder: Path, world: Net) -> None:
        self.folder, self.world, self.store = folder, world, another()
        world.ip("address", "add", f"{WORLD}/32", "dev", "lo")
        self._hba = folder / "hba.conf"
        self._hba.write_text(f"local all all trust\nhost all all {OURS} trust\n")
        self._hba.chmod(0o644)
        everywhere = {"listen_addresses": "0.0.0.0", "port": str(POSTGRES_PORT), "hba_file": str(self._hba)}
        database = local.Postgres(folder / "postgres", {**SMALL, **BUFFERS, **everywhere})
        open_to_all = {"port": str(VALKEY_PORT), "bind": "0.0.0.0", "protected-mode": "no"}
        self.postgres = Machine(database, folder / "postgres.log")
        self.valkey = Machine(local.Valkey(folder / "valkey", open_to_all), folder / "valkey.log")
        self.hosts: dict[str, Host] = {}

    async def start(self, **changed: str) -> None:
        """Until all roles of both hosts are ready; `changed`: settings of theirs."""
        with self.store.inside():
            self.postgres.start()
            self.valkey.start()
        db.migrate(self.direct.database_url)
        given = self.environ | {f"POSTFERRY_{name}": value for name, value in changed.items()}
        for number, name in enumerate(NAMES):
            ends = {"postgres": self.store, "valkey": self.store, "world": self.world}
            self.hosts[name] = Host(name, number, another(), ends, given, self.folder / name)
        for host in self.hosts.values():
            await host.start(*ALL)

    @property
    def direct(self) -> Settings:
        """Settings that lead to the store past every line."""
        return read(self.environ, None)

    @property
    def environ(self) -> dict[str, str]:
        """Of a host, but for what leads to the store."""
        if not hasattr(self, "_environ"):
            given = environment(self.postgres.server.url, self.valkey.server.url, lambda: API_PORT) | HASTY
            own = OWN | {"SMTP_HOST": "0.0.0.0", "SMTP_PORT": str(SMTP_PORT), "SMTPS_PORT": "0", "API_HOST": "0.0.0.0"}
            own |= {"ALLOW_NETWORKS": OURS, "TRUSTED_NETWORKS": OURS, "PUBLIC_URL": f"http://{WORLD}:{API_PORT}"}
            own["SECRET_KEYS"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
            self._environ = given | {f"POSTFERRY_{name}": value for name, value in own.items()}
        return self._environ

    def cpu(self) -> float:
        """Seconds of it that PostgreSQL and Valkey have used."""
        return sum(machine.cpu_seconds(server.pid) for server in (self.postgres, self.valkey))

    async def token(self) -> str:
        """Of an administrator."""
        pool = await db.open_pool(self.direct, most=1)
        async with db.connection(pool) as conn:
            token = await tokens.create(conn, ["*"])
        await pool.close()
        return token

    def close(self) -> None:
        for host in self.hosts.values():
            host.mend()
            host.close()
        self.valkey.close()
        self.postgres.close()
