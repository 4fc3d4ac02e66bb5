"""What `postferry up` runs: which servers and roles, with which environment, on which ports."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from relay import local, settings
from relay.datafolder import DataFolder
from relay.listen import LOOPBACK
from relay.ready import VARIABLE as READY_VARIABLE
from relay.ready import Notice
from relay.settings import Settings
from relay.supervisor import Child

ROLE_STAGE, SINK_STAGE, SERVER_STAGE = 0, 1, 2  # the order in which they are stopped


class PortTaken(Exception):
    """Somebody else listens on a port of ours; `variable` is the setting that chooses another."""

    def __init__(self, host: str, port: int, variable: str) -> None:
        super().__init__(f"port {port} on {host} is taken by another program")
        self.port, self.variable = port, variable


@dataclass(frozen=True, slots=True)
class Role:
    """One of our processes: `name` is its log's too, `module` what Python runs."""

    name: str
    module: str
    args: tuple[str, ...] = ()
    stage: int = ROLE_STAGE


def roles(chosen: Settings, folder: DataFolder) -> list[Role]:
    """The sink first: it is the upstream of what the others send."""
    sink = ("--dir", str(folder.sandbox), "--port", str(chosen.sandbox_port))
    found = [Role("sandbox", "relay.sandbox", sink, SINK_STAGE), Role("api", "api")]
    if chosen.smtp_port or (chosen.smtps_port and chosen.tls_certificate):
        found.append(Role("smtp", "relay.smtpd"))
    behind = [Role(name, f"workers.{name}") for name in ("scheduler", "notify", "mailbox")]
    return [*found, Role("worker", "workers"), *behind]


def servers(folder: DataFolder, environ: Mapping[str, str]) -> list[local.Server]:
    """The servers of our own: those that the environment does not name."""
    found: list[local.Server] = []
    if not environ.get("DATABASE_URL"):
        found.append(local.Postgres(folder.path / "postgres"))
    if not environ.get("REDIS_URL"):
        found.append(local.Valkey(folder.path / "valkey"))
    return found


def environment(folder: DataFolder, given: Mapping[str, str], own: list[local.Server]) -> dict[str, str]:
    """`given`, with what it leaves open filled in."""
    environ = dict(given)
    for server in own:
        environ["DATABASE_URL" if isinstance(server, local.Postgres) else "REDIS_URL"] = server.url
    if not environ.get("POSTFERRY_SECRET_KEYS"):
        environ["POSTFERRY_SECRET_KEYS"] = folder.secret_keys()
    if not environ.get("POSTFERRY_SANDBOX_PORT"):
        environ["POSTFERRY_SANDBOX_PORT"] = str(_any_port())
    if not environ.get("POSTFERRY_METRICS_DIR"):
        environ["POSTFERRY_METRICS_DIR"] = str(folder.fresh_metrics())
    if not environ.get("POSTFERRY_PUBLIC_URL"):
        chosen = settings.read(environ, None)
        environ["POSTFERRY_PUBLIC_URL"] = api_url(chosen)
    environ["POSTFERRY_LOG_FORMAT"] = "json"  # the logs are files; what is severe is shown readably
    return environ


def api_url(chosen: Settings) -> str:
    host = LOOPBACK.get(chosen.api_host, chosen.api_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{chosen.api_port}"


def check_ports(chosen: Settings) -> None:
    """Raises PortTaken: better told before anything is started."""
    for host, port, name in _ports(chosen):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as fault:
                if fault.errno == errno.EADDRINUSE:
                    raise PortTaken(host, port, settings.variable(name)) from None
                # What else may be wrong with an address, the role itself says best.


def role_child(role: Role, folder: DataFolder, environ: Mapping[str, str]) -> Child:
    """The role as a child to keep. It is ready when it says so."""
    place = local.socket_folder(folder.path, "ready-scheduler") / f"ready-{role.name}"
    notice = Notice(place)
    # -P: modules come from the installation, not from the folder that somebody happens to stand in.
    command = [sys.executable, "-P", "-m", role.module, *role.args]

    def spawn() -> subprocess.Popen[bytes]:
        with open_log(log_of(folder, role.name)) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environ, READY_VARIABLE: str(place)},
                start_new_session=True,
            )

    return Child(role.name, spawn, notice.heard, role.stage)


def server_child(server: local.Server, folder: DataFolder) -> Child:
    """The server as a child to keep."""

    def spawn() -> subprocess.Popen[bytes]:
        server.prepare()
        with open_log(log_of(folder, server.name)) as log:
            return server.start(log.fileno())

    return Child(server.name, spawn, server.ready, SERVER_STAGE, server.signal, grace=20)


def log_of(folder: DataFolder, name: str) -> Path:
    return folder.logs / f"{name}.log"


def open_log(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _ports(chosen: Settings) -> Iterator[tuple[str, int, str]]:
    if chosen.smtp_port:
        yield chosen.smtp_host, chosen.smtp_port, "smtp_port"
    if chosen.smtps_port and chosen.tls_certificate:
        yield chosen.smtp_host, chosen.smtps_port, "smtps_port"
    yield chosen.api_host, chosen.api_port, "api_port"
    yield "127.0.0.1", chosen.sandbox_port, "sandbox_port"


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
