"""`postferry up` as a user meets it: started, used as its ready block says, stopped, killed, started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.guardian import Ward
from relay.ready import Notice
from relay.store import db
from tests.keeping import Keeper, kept

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60.0


class Run:
    """One `postferry up` over a data folder, with all that it says."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self.home, self.environ = home, environ
        self.output = home / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relay", "up", "--data", "data"],
                **{"cwd": home, "env": environ, "stdout": out, "stderr": out, "start_new_session": True},
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str) -> str:
        """The first match in what it said, once it is there."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.said(), re.MULTILINE)

        until(lambda: found() is not None or self.process.poll() is not None)
        match = found()
        assert match, f"{pattern!r} was not said:\n{self.said()}{self.logs()}"
        return match[match.lastindex or 0]

    def ready(self) -> Run:
        self.wait_for("Postferry is ready")
        self.wait_for(r"s\.quit\(\)")
        return self

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def paste(self, line: str) -> str:
        """Runs a line of the ready block as a shell would."""
        given: dict[str, Any] = {"cwd": self.home, "env": self.environ, "timeout": SECONDS}
        shell = subprocess.run(["sh", "-c", line], capture_output=True, text=True, **given)
        return shell.stdout + shell.stderr

    def mails(self) -> list[str]:
        """What the sandbox has received."""
        return [path.read_bytes().decode() for path in sorted((self.home / "data/sandbox").glob("*.eml"))]

    def pid_of(self, words: str) -> int:
        """The one process of this run whose command line has these words, started by the supervisor itself."""
        mine = [pid for pid in family(self.home) if words in command_line(pid) and parent(pid) == self.process.pid]
        assert len(mine) == 1, [command_line(pid) for pid in family(self.home)]
        return mine[0]

    def logs(self) -> str:
        tails = (f"\n--- {log.name}\n{log.read_text()[-2000:]}" for log in (self.home / "data/logs").glob("*.log"))
        return "".join(tails)


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Returns when it is so; fails when that takes too long. There is no event to wait for across processes."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def family(home: Path) -> list[int]:
    """Every process that works for the run in `home`: by its command, its environment or its folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marks = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            marks += os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue
        if os.fsencode(home) in marks and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def shown(pid: int, file: str) -> str:
    """What /proc tells of a process; nothing of one that has ended since it was listed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b" ").decode()
    return ""


def command_line(pid: int) -> str:
    return shown(pid, "cmdline")


def parent(pid: int) -> int:
    words = shown(pid, "stat").rpartition(")")[2].split()
    return int(words[1]) if words else 0


@contextmanager
def home_folder(free_port: Callable[[], int]) -> Iterator[Callable[..., Run]]:
    """A folder to run in, and a function that starts a run there; whatever still runs at the end is killed."""
    keeper = Keeper("postferry-up-")
    home = keeper.folder
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("POSTFERRY_", "DATABASE_", "REDIS_"))
    }
    environ |= {
        "PYTHONPATH": str(ROOT),
        "POSTFERRY_SMTP_PORT": str(free_port()),
        "POSTFERRY_API_PORT": str(free_port()),
        "POSTFERRY_LEASE_SECONDS": "6",  # what a killed worker or server held is soon taken up again
        "POSTFERRY_LEASE_BUDGET": "3",
    }
    runs: list[Run] = []

    def start(**more: str) -> Run:
        runs.append(Run(home, {**environ, **more}))
        keeper.watch(Ward(0, runs[-1].process.pid, signal.SIGINT, 30))
        return runs[-1]

    try:
        yield start
    finally:
        for run in runs:
            if run.process.poll() is None:
                run.process.kill()
            run.process.wait()
            keeper.forget(run.process.pid)
        until(lambda: not family(home))
        keeper.close()


@pytest.fixture
def start(free_port: Callable[[], int]) -> Iterator[Callable[..., Run]]:
    with home_folder(free_port) as start:
        yield start


@pytest.fixture(scope="module")
def up(free_port: Callable[[], int]) -> Iterator[Run]:
    """One run that several tests use."""
    with home_folder(free_port) as start:
        yield start().ready()


def test_the_http_line_works(up: Run) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    answer = up.paste(up.wait_for(r"^  (curl .*)$"))
    assert '"queueId"' in answer, answer + up.logs()
    until(lambda: any("Hello over HTTP" in mail for mail in up.mails()))


def test_the_smtp_line_works(up: Run) -> None:
    line = up.wait_for(r"^  (python3 .*)$").replace("python3", sys.executable, 1)
    assert "250, b'2.0.0 Message queued for delivery as " in up.paste(line), up.logs()
    until(lambda: any("Hello over SMTP" in mail for mail in up.mails()))


def test_the_first_start_shows_the_token_it_keeps(up: Run) -> None:
    token = up.home / "data/admin.token"
    assert token.read_text().strip() in up.said()
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["secret.keys", "env", "admin.token"])
def test_secrets_are_for_their_owner_alone(up: Run, name: str) -> None:
    assert (up.home / "data" / name).stat().st_mode & 0o077 == 0


def test_a_second_one_on_the_same_folder_is_refused(up: Run) -> None:
    second = Run(up.home, up.environ)
    assert second.process.wait(SECONDS) != 0
    assert f"data is in use by `postferry up`, process {up.process.pid}" in second.said()
    assert "Traceback" not in second.said()


def test_a_role_that_dies_is_started_again(up: Run) -> None:
    os.kill(up.pid_of("-m workers.scheduler"), signal.SIGKILL)
    up.wait_for("scheduler was killed by SIGKILL; it is started again")
    up.wait_for("scheduler is back")


def test_one_more_worker_beside_it_needs_no_setting(up: Run) -> None:
    (up.home / ".postferry").symlink_to("data")
    notice = Notice(up.home / "notice")
    role = [sys.executable, "-m", "relay", "worker"]
    given = {name: text for name, text in up.environ.items() if not name.startswith("POSTFERRY_")}
    worker = subprocess.Popen(role, cwd=up.home, env={**given, "NOTIFY_SOCKET": str(notice.path)})
    with kept(worker.pid):
        try:
            until(lambda: notice.heard() or worker.poll() is not None)
            worker.terminate()
            assert worker.wait(SECONDS) == 0
        finally:
            worker.kill()
            worker.wait()
            notice.close()


def test_postgres_that_dies_is_started_again(up: Run) -> None:
    os.kill(up.pid_of("bin/postgres -D"), signal.SIGKILL)
    up.wait_for("postgres is back")
    before = len(up.mails())
    line = up.wait_for(r"^  (python3 .*)$").replace("python3", sys.executable, 1)
    until(lambda: "250, b'2.0.0 Message queued" in up.paste(line))
    until(lambda: len(up.mails()) > before)


def test_ctrl_c_stops_all_of_it(start: Callable[..., Run]) -> None:
    run = start().ready()
    assert run.end(signal.SIGINT) == 0
    assert family(run.home) == []
    assert "Traceback" not in run.said() + run.logs()


def test_ctrl_c_while_it_starts_stops_it_too(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_for("first start")
    assert run.end(signal.SIGTERM) == 0
    assert family(run.home) == []


def test_ctrl_c_while_the_database_is_made_is_no_fault(start: Callable[..., Run]) -> None:
    run = start()
    until(lambda: any((run.home / "data").glob("postgres*/base/1/PG_VERSION")))
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to all of its foreground
    assert run.process.wait(SECONDS) == 0
    assert "could not make" not in run.said()
    assert family(run.home) == []


def test_sigkill_leaves_no_orphan_and_loses_nothing(start: Callable[..., Run]) -> None:
    run = start().ready()
    # A message that is due after the kill, so that it has to survive it.
    host = run.environ["POSTFERRY_SMTP_PORT"]
    line = (
        f"{sys.executable} -c \"import smtplib, time; s = smtplib.SMTP('127.0.0.1', {host}); s.sendmail("
        "'sandbox@example.com', 'you@example.com', 'X-Send-At: %d\\nSubject: Later\\n\\nkept' % (time.time() + 2))\""
    )
    assert run.paste(line) == ""
    run.process.kill()
    run.process.wait()
    again = start().ready()
    assert "pf_" not in again.said()
    until(lambda: any("Subject: Later" in mail for mail in again.mails()))
    again.process.kill()
    again.process.wait()
    until(lambda: family(again.home) == [])


def test_a_taken_port_is_named_with_what_to_set(up: Run, start: Callable[..., Run]) -> None:
    taken = up.environ["POSTFERRY_API_PORT"]
    run = start(POSTFERRY_API_PORT=taken)
    assert run.process.wait(SECONDS) == 78
    assert f"port {taken} on 127.0.0.1 is taken" in run.said()
    assert "POSTFERRY_API_PORT=" in run.said()


def test_every_wrong_setting_is_listed(start: Callable[..., Run]) -> None:
    run = start(POSTFERRY_SMTP_PORT="ninety", POSTFERRY_WORKER_LEASES="many")
    assert run.process.wait(SECONDS) == 78
    assert "POSTFERRY_SMTP_PORT must be" in run.said()
    assert "POSTFERRY_WORKER_LEASES must be" in run.said()


def test_postgres_of_ones_own_is_used(start: Callable[..., Run], database_url: str, redis_url: str) -> None:
    run = start(DATABASE_URL=database_url, REDIS_URL=redis_url).ready()
    assert not (run.home / "data/postgres").exists()
    assert run.end() == 0


def test_a_role_that_ends_at_its_start_is_told_at_once_in_words_of_this_run(
    start: Callable[..., Run], database_url: str
) -> None:
    bad = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1?no_such=1"}
    first = start(**bad)
    assert first.process.wait(SECONDS) == 78
    for role in ("worker", "scheduler"):
        with (first.home / f"data/logs/{role}.log").open("a") as log:
            log.write("the disk is full\n" * 3)

    second = start(**bad)

    assert second.process.wait(SECONDS) == 78
    assert "ended with status 78 while it was starting" in second.said()
    assert "REDIS_URL has a parameter" in second.said()
    assert "the disk is full" not in second.said()


def test_ctrl_c_while_another_session_migrates_is_heard(
    start: Callable[..., Run], database_url: str, redis_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("select pg_advisory_lock(%s)", (db.MIGRATION_LOCK,))
        run = start(DATABASE_URL=database_url, REDIS_URL=redis_url)
        run.wait_for("schema migrations waits for another session")
        assert run.end(signal.SIGINT) == 0
    assert "Traceback" not in run.said()


def test_postgres_of_ones_own_that_is_away_is_said(start: Callable[..., Run], redis_url: str) -> None:
    run = start(DATABASE_URL="postgresql://postferry@127.0.0.1:1/none", REDIS_URL=redis_url)
    assert run.process.wait(SECONDS) == 69
    assert "PostgreSQL cannot be reached" in run.said()
    assert "Traceback" not in run.said()
