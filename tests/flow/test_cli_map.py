"""The command line as a whole: its map, its help, its exit codes, and that no traceback reaches a person."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from relay import cli, commands
from relay.commands import terminal
from relay.core.errors import StoreAway
from tests.flow.conftest import Postferry

LEAVES = [
    *(f"account {name}" for name in ("add", "list", "show", "verify", "pause", "resume")),
    *(f"token {name}" for name in ("create", "list", "revoke")),
    *(f"webhook {name}" for name in ("list", "add", "show", "test", "log", "replay", "enable", "remove")),
    "keys rotate",
    *(command.name for command in commands.COMMANDS),
]


def test_help_is_a_map_of_every_command(bare: Postferry) -> None:
    shown = bare("--help")

    assert shown.code == 0
    assert all(f"  {command.name} " in shown.out for command in commands.COMMANDS)


def test_no_command_is_a_usage_error_that_teaches(bare: Postferry) -> None:
    shown = bare()

    assert shown.code == 64
    assert "usage: postferry COMMAND" in shown.out


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_command_has_a_description_and_an_example(bare: Postferry, leaf: str) -> None:
    shown = bare(*leaf.split(), "--help")

    assert shown.code == 0
    assert f"usage: postferry {leaf}" in shown.out
    if leaf not in ("account", "token", "webhook", "keys", "statistics"):
        assert f"examples:\n  postferry {leaf}" in shown.out


@pytest.mark.parametrize("leaf", ["", *LEAVES])
def test_help_fits_into_80_columns(bare: Postferry, monkeypatch: pytest.MonkeyPatch, leaf: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert [line for line in bare(*leaf.split(), "--help").out.splitlines() if len(line) > 80] == []


def test_an_example_is_broken_where_a_shell_goes_on() -> None:
    long = "report *.eml | jq -r 'select(.kind | test(\"bounce\")) | .recipients[] --raw'"

    assert terminal.example(long) == f"  postferry {long[:12]} \\\n      {long[13:]}"


def test_help_command_is_the_same(bare: Postferry) -> None:
    assert bare("help", "queue").out == bare("queue", "--help").out


def test_a_command_of_commands_alone_shows_them(bare: Postferry) -> None:
    shown = bare("account")

    assert shown.code == 64
    assert "verify" in shown.err


def test_a_slip_of_the_pen_is_understood(bare: Postferry) -> None:
    shown = bare("quue")

    assert shown.code == 64
    assert "did you mean 'queue'?" in shown.err


@pytest.mark.parametrize(
    ("argv", "words", "way"),
    [
        (("account", "lst"), "no command 'lst'; did you mean 'list'?", "account"),
        (("account", "remove", "x1"), "no command 'remove'; did you mean 'resume'? there are: add, list,", "account"),
        (("account", "xyzzy"), "no command 'xyzzy'; there are: add, list,", "account"),
        (("queue", "--jsn"), "unrecognized arguments: --jsn; did you mean '--json'?", "queue"),
        (("account", "add", "shop", "--smtphost=h"), "did you mean '--smtp-host'?", "account add"),
        (("account", "add", "shop", "--smtp-tls", "implict"), "did you mean 'implicit'?", "account add"),
        (("account", "add", "shop", "more"), "unrecognized arguments: more\n", "account add"),
    ],
)
def test_a_slip_in_a_command_is_understood_and_its_own_help_named(
    bare: Postferry, argv: tuple[str, ...], words: str, way: str
) -> None:
    shown = bare(*argv)

    assert shown.code == 64
    assert words in shown.err
    assert f"see: postferry {way} --help\n" in shown.err


def test_wrong_arguments_end_with_64_and_the_way_to_help(bare: Postferry) -> None:
    shown = bare("token", "revoke", "three")

    assert shown.code == 64
    assert "see: postferry token revoke --help" in shown.err


def test_version(bare: Postferry) -> None:
    assert bare("--version").out.startswith("postferry 0.")


def test_without_a_database_it_says_how_to_get_one(bare: Postferry, tmp_path: Path) -> None:
    shown = bare("queue")

    assert shown.code == 78
    assert f"has run in {tmp_path / '.postferry'}\n" in shown.err
    assert "postferry up" in shown.err


def test_wrong_settings_end_with_78_and_every_fault(bare: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTFERRY_SMTP_PORT", "many")
    monkeypatch.setenv("POSTFERRY_COLOUR", "blue")

    shown = bare("queue")

    assert shown.code == 78
    assert "POSTFERRY_SMTP_PORT must be a whole number" in shown.err
    assert "POSTFERRY_COLOUR is not a setting" in shown.err


def test_a_database_that_is_away_ends_with_69(bare: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x")

    shown = bare("queue")

    assert shown.code == 69
    assert "PostgreSQL cannot be reached" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("url", ["localhost", "mysql://x", "postgresql://me:hunter2@127.0.0.1/x?sslmod=require"])
@pytest.mark.parametrize("command", ["queue", "migrate", "doctor"])
def test_an_address_of_postgresql_that_is_none_ends_with_78(
    bare: Postferry, monkeypatch: pytest.MonkeyPatch, command: str, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    shown = bare(command)

    assert shown.code == 78
    assert "DATABASE_URL " in shown.err + shown.out
    assert "valid" not in shown.out
    assert "hunter2" not in shown.err + shown.out


def test_the_data_folder_of_up_is_found(bare: Postferry, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "env").write_text("DATABASE_URL=postgresql://nobody@127.0.0.1:1/x\n")

    assert bare("queue", "--data", "here").code == 69


def test_the_environment_goes_before_the_data_folder(postferry: Postferry, tmp_path: Path) -> None:
    (tmp_path / ".postferry").mkdir()
    (tmp_path / ".postferry" / "env").write_text("DATABASE_URL=postgresql://nobody@127.0.0.1:1/x\n")

    assert postferry("queue").code == 0


def test_a_database_without_the_schema_says_migrate(
    bare: Postferry, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", servers["postgres"])

    shown = bare("queue")

    assert shown.code == 78
    assert "the database 'postgres' has no Postferry schema\n  run: postferry migrate\n" in shown.err


def test_a_schema_older_than_the_commands_says_migrate(postferry: Postferry, environ: dict[str, str]) -> None:
    with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as conn:
        conn.execute("delete from migrations where name > '0008'")

    shown = postferry("queue")

    assert shown.code == 78
    assert "older than this version: it lacks 0008_mailbox, 0009_vacuum" in shown.err
    assert "run: postferry migrate\n" in shown.err


def fail(error: BaseException) -> object:
    def run(given: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreAway("gone"), 69),
        (PermissionError(13, "Permission denied", "x"), 77),
        (OSError("no space"), 69),
        (ZeroDivisionError("oh"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_words_and_codes(
    bare: Postferry, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(cli, "_run", fail(error))

    shown = bare("queue")

    assert shown.code == code
    assert "Traceback" not in shown.err + shown.out


def test_what_is_not_allowed_is_told_with_the_file(bare: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run", fail(PermissionError(13, "Permission denied", "there/env")))

    assert "not allowed: there/env: Permission denied\n" in bare("queue").err


@pytest.mark.parametrize("file", [".env", ".postferry/env"])
def test_settings_that_cannot_be_read_are_not_taken_for_none(bare: Postferry, tmp_path: Path, file: str) -> None:
    """As where another user has made them; root may read those, but follows no link for ever."""
    (tmp_path / ".postferry").mkdir()
    (tmp_path / file).symlink_to(tmp_path / file)

    shown = bare("queue")

    assert shown.code == 69
    assert f"{file}: {os.strerror(errno.ELOOP)}" in shown.err


def test_an_unexpected_error_says_how_to_see_more(bare: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run", fail(ZeroDivisionError("division by zero")))

    shown = bare("queue")

    assert "ZeroDivisionError: division by zero" in shown.err
    assert "POSTFERRY_LOG_LEVEL=debug" in shown.err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "relay", "doctor", "--settings"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()

    assert process.wait(120) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 65), ("<&- >&- 2>&-", 65)])
def test_a_command_whose_streams_are_closed_does_its_work(tmp_path: Path, closed: str, code: int) -> None:
    command = "doctor --settings" if code == 0 else "preview empty.eml --to ada@example.com"
    (tmp_path / "empty.eml").touch()
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -P -m relay {command} {closed}', sys.executable], cwd=tmp_path, capture_output=True
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (code, b"", b"")


def test_a_folder_that_is_none_is_named_in_words(bare: Postferry, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    shown = bare("up", "--data", str(tmp_path / "file"))

    assert (shown.code, shown.err) == (69, f"postferry: {tmp_path / 'file'}: File exists\n")


def test_no_colour_without_a_terminal(bare: Postferry) -> None:
    assert "\x1b" not in bare("--help").out


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from relay import cli; cli.main(['--help'])\n"
        "heavy = {'psycopg', 'asyncio', 'cryptography', 'prometheus_client', 'aiohttp', 'dramatiq'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert done.stderr.strip() == "[]"


Became = list[tuple[list[str], dict[str, str]]]


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> Became:
    """What the command became: the module and the environment of each."""
    became: Became = []
    monkeypatch.setattr(os, "execve", lambda path, argv, environ: became.append((argv[-2:], environ)))
    return became


def test_a_role_takes_the_place_of_the_command(bare: Postferry, became: Became, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "env").write_text("DATABASE_URL=postgresql://here\n")

    bare("scheduler", "--data", "data")
    bare("api")

    assert became[0][0] == ["-m", "workers.scheduler"]
    assert became[0][1]["DATABASE_URL"] == "postgresql://here"
    assert became[1][0] == ["-m", "api"]
    assert "DATABASE_URL" not in became[1][1]


def test_a_role_beside_a_running_up_needs_no_setting(
    bare: Postferry, became: Became, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of every command: the environment, .env, DIR/env."""
    (tmp_path / ".postferry").mkdir()
    (tmp_path / ".postferry" / "env").write_text(
        "DATABASE_URL=postgresql://here\nREDIS_URL=redis://here\nPOSTFERRY_LOG_LEVEL=error\nPOSTFERRY_API_PORT=1\n"
    )
    (tmp_path / ".env").write_text("POSTFERRY_LOG_LEVEL=debug\n")
    monkeypatch.setenv("POSTFERRY_API_PORT", "2")

    bare("worker")

    environ = became[0][1]
    assert (environ["DATABASE_URL"], environ["REDIS_URL"]) == ("postgresql://here", "redis://here")
    assert environ["POSTFERRY_API_PORT"] == "2"
    assert "POSTFERRY_LOG_LEVEL" not in environ, "the role reads .env itself"


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_role_with_a_database_of_its_own_takes_nothing_from_a_folder_that_lies_there(
    bare: Postferry, became: Became, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A service or a container behaves as ever, wherever it is started."""
    (tmp_path / ".postferry").mkdir()
    (tmp_path / ".postferry" / "env").write_text("DATABASE_URL=postgresql://here\nREDIS_URL=redis://here\n")
    if place == ".env":
        (tmp_path / ".env").write_text("DATABASE_URL=postgresql://elsewhere\n")
    else:
        monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere")

    bare("worker")
    bare("worker", "--data", ".postferry")

    assert "REDIS_URL" not in became[0][1]
    assert became[1][1]["REDIS_URL"] == "redis://here"
    assert all(environ.get("DATABASE_URL") != "postgresql://here" for _, environ in became)
