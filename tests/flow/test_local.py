"""PostgreSQL and Valkey of our own: made, started, killed, started again."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from relay import local
from relay.guardian import Guardian, Ward, stop
from tests.stack import wait_ready


@contextmanager
def running(server: local.Server, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server, prepared, started and ready; stopped in good order at the end."""
    server.prepare()
    with log.open("ab") as output:
        process = server.start(output.fileno())
    guardian = Guardian()
    guardian.watch(Ward(0, process.pid, server.signal, 10))
    try:
        wait_ready(server, process)
        yield process
    finally:
        stop([Ward(0, process.pid, server.signal, 10)])
        process.wait()
        guardian.forget(process.pid)
        guardian.close()


def answer(url: str, question: str) -> str:
    with psycopg.connect(url) as conn:
        row = conn.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster as the first start makes it."""
    made = local.Postgres(tmp_path_factory.mktemp("cluster") / "postgres")
    made.prepare()
    return made.folder


@pytest.fixture
def postgres(cluster: Path, tmp_path: Path) -> local.Postgres:
    """One that has been made and never started."""
    shutil.copytree(cluster, tmp_path / "postgres")
    return local.Postgres(tmp_path / "postgres")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def test_postgres_is_durable(postgres: local.Postgres, log: Path) -> None:
    with running(postgres, log), psycopg.connect(postgres.url) as conn:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        assert [conn.execute(f"show {name}".encode()).fetchone() for name in names] == [("on",)] * 3


def test_postgres_listens_on_its_socket_alone(postgres: local.Postgres, log: Path) -> None:
    with running(postgres, log):
        assert answer(postgres.url, "show listen_addresses") == ""
        assert stat.S_IMODE(postgres.sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE((postgres.sockets / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_what_was_committed_survives_sigkill(postgres: local.Postgres, log: Path) -> None:
    with running(postgres, log) as process:
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            conn.execute("create table kept as select 42 as number")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with running(postgres, log):
        assert answer(postgres.url, "select number from kept") == "42"


def test_a_pid_file_that_names_somebody_else_is_only_in_the_way(postgres: local.Postgres, log: Path) -> None:
    postgres.prepare()
    (postgres.folder / "postmaster.pid").write_text(f"{os.getppid()}\n{postgres.folder}\n0\n5432\n\n\n\nready\n")
    with running(postgres, log):
        assert answer(postgres.url, "select 1") == "1"


def test_an_orphan_of_ours_is_stopped_first(postgres: local.Postgres, log: Path) -> None:
    with running(postgres, log) as orphan, running(postgres, log):
        assert orphan.wait() == 0
        assert answer(postgres.url, "select 1") == "1"


def test_a_first_start_that_was_cut_short_starts_anew(tmp_path: Path, log: Path) -> None:
    postgres = local.Postgres(tmp_path / "postgres")
    half = postgres.folder.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with running(postgres, log):
        assert answer(postgres.url, "select 1") == "1"
    assert not half.exists()


def test_a_deep_folder_has_its_sockets_elsewhere(cluster: Path, tmp_path: Path, log: Path) -> None:
    deep = tmp_path / "/".join(["very-deep-folder"] * 8)
    shutil.copytree(cluster, deep / "postgres")
    postgres = local.Postgres(deep / "postgres")
    try:
        with running(postgres, log):
            assert answer(postgres.url, "select 1") == "1"
            assert deep not in postgres.sockets.parents
    finally:
        postgres.sockets.rmdir()


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(local.LocalError, match="belongs to somebody else"):
        local.socket_folder(tmp_path, "socket")


def test_root_becomes_nobody_where_namespaces_are_forbidden(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of containers: as root, PostgreSQL is started as the system's user nobody, or says what is in its way."""
    monkeypatch.setattr(local, "_identity", local.Demoted if os.geteuid() == 0 else local.Identity)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        postgres = local.Postgres(Path(name) / "postgres")
        if os.geteuid() == 0 and not reachable_by_nobody(postgres):
            with pytest.raises(local.LocalError, match="the user nobody cannot reach"):
                postgres.prepare()
            return
        with running(postgres, log):
            assert answer(postgres.url, "select 1") == "1"
            assert postgres.folder.stat().st_uid == (local.NOBODY if os.geteuid() == 0 else os.geteuid())


def test_nothing_is_loaded_between_fork_and_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may hold the loader's lock at the fork: it would be held in the child for ever, and the start hang."""
    identity = local._identity()
    monkeypatch.setattr(local.ctypes, "CDLL", None)
    subprocess.run(["true"], check=True, timeout=60, **identity.become)


def reachable_by_nobody(postgres: local.Postgres) -> bool:
    program = local._postgres_program("postgres")
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [program, *program.parents])


def test_a_folder_out_of_nobodys_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(local.Demoted, "become", {})
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o000 if os.geteuid() else 0o700)
    try:
        with pytest.raises(local.LocalError, match="cannot reach"):
            local.Demoted().reach(closed / "data")
    finally:
        closed.chmod(0o700)


def test_missing_programs_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(local.LocalError, match=r"postferry\[embedded\].*DATABASE_URL"):
        local._postgres_program("postgres")


def test_a_server_that_cannot_start_says_so_at_once(postgres: local.Postgres, log: Path) -> None:
    postgres.options["shared_buffers"] = "nonsense"
    with pytest.raises(local.LocalError, match="postgres ended with status 1"), running(postgres, log):
        pass
    assert "nonsense" in log.read_text()


def test_valkey_keeps_nothing_and_evicts_nothing(tmp_path: Path, log: Path) -> None:
    valkey = local.Valkey(tmp_path / "valkey")
    with running(valkey, log), redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        shown = client.config_get("save", "appendonly", "maxmemory-policy", "port")
    assert shown == {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "port": "0"}
    assert list(valkey.folder.iterdir()) == []


def test_valkey_starts_over_the_socket_of_a_killed_one(tmp_path: Path, log: Path) -> None:
    valkey = local.Valkey(tmp_path / "valkey")
    with running(valkey, log) as process:
        process.kill()
        process.wait()
    with running(valkey, log), redis.Redis.from_url(valkey.url) as client:
        assert client.ping()
