"""`postferry account`, `token` and `keys`, over a real database."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from relay import enrol
from relay.core.account import Faulty
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, overview, tokens
from relay.store.db import Connection
from tests.flow.conftest import Postferry

T = TypeVar("T")
HOST = ("--smtp-host", "smtp.example.com")


def ask(database_url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        async with overview.connected(database_url) as conn:
            return await work(conn)

    return asyncio.run(run())


def password_of(environ: dict[str, str], account: str) -> str:
    vault = Vault([environ["POSTFERRY_SECRET_KEYS"]])
    found = ask(environ["DATABASE_URL"], lambda conn: accounts.get(conn, vault, account))
    assert found
    assert found.smtp
    return found.smtp.password


def test_an_account_is_added_and_shown_without_its_secret(
    postferry: Postferry, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("hunter2\n")

    added = postferry(
        *("account", "add", "shop", "--email", "Shop@Example.com", *HOST, "--smtp-port", "465"),
        *("--smtp-user", "shop", "--smtp-password-file", "secret", "--per-hour", "200", "--no-track"),
    )
    shown = postferry("account", "show", "shop")

    assert added.code == 0, added.err
    told = json.loads(shown.out)
    assert (told["account"], told["state"], told["email"]) == ("shop", "active", "shop@example.com")
    assert told["smtp"] == {
        "host": "smtp.example.com",
        "port": 465,
        "secure": True,
        "auth": {"user": "shop", "pass": "******"},
    }
    assert told["limits"] == {"connections": 5, "messagesPerConnection": 100, "perHour": 200}
    assert told["tracking"]["opens"] is False
    assert password_of(environ, "shop") == "hunter2"


def test_what_may_be_done_next_is_over_the_same_data_folder(postferry: Postferry) -> None:
    here = postferry("account", "add", "here", "--email", "a@example.com", *HOST)
    there = postferry("account", "add", "there", "--email", "b@example.com", *HOST, "--data", "my mail")

    assert "postferry account verify here\n" in here.err
    assert "postferry account verify there --data 'my mail'\n" in there.err


@pytest.mark.parametrize(
    "argv",
    [
        ("account", "verify", "nobody"),
        ("queue", "nobody"),
        ("statistics", "verify", "--account", "nobody"),
        ("token", "create", "--scope", "api", "--account", "nobody"),
        ("token", "list"),
        ("token", "revoke", "99"),
        ("webhook", "list"),
        ("webhook", "log", "99"),
    ],
)
def test_what_is_told_to_paste_is_over_the_same_data(
    postferry: Postferry, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    folder = str(tmp_path / "else where")

    shown = postferry(*argv, "--data", folder)

    (line,) = re.findall(r": postferry .*", shown.out + shown.err)
    assert line.endswith(f" --data '{folder}'")


def test_the_password_may_come_from_the_environment(
    postferry: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "from the environment")

    postferry("account", "add", "shop", *HOST, "--smtp-user", "shop")

    assert password_of(environ, "shop") == "from the environment"


def test_the_password_may_come_from_stdin(process: Postferry, environ: dict[str, str]) -> None:
    given = ("--smtp-user", "shop", "--smtp-password-file", "-")
    done = process("account", "add", "shop", *HOST, *given, stdin=b"spaces stay \n", **environ)

    assert done.code == 0, done.err
    assert password_of(environ, "shop") == "spaces stay "


def test_an_account_may_come_as_the_apis_json(process: Postferry, environ: dict[str, str]) -> None:
    config = {
        "account": "shop",
        "name": "The shop",
        "smtp": {"host": "smtp.example.com", "auth": {"user": "u", "pass": "p"}},
    }

    done = process("account", "add", "shop", "--json", "-", stdin=json.dumps(config).encode(), **environ)

    assert done.code == 0, done.err
    assert password_of(environ, "shop") == "p"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--smtp-host", "127.0.0.2", "--smtp-port", "0"], "smtp.port must be a whole number"),
        (["--smtp-host", "10.0.0.1"], "smtp.host"),
        (["--email", "a@b\r\nRCPT TO:<x@y>"], "email"),
        ([*HOST, "--per-hour", "0"], "limits.perHour"),
    ],
)
def test_bad_settings_are_refused_by_name(
    postferry: Postferry, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    monkeypatch.delenv("POSTFERRY_ALLOW_NETWORKS")

    refused = postferry("account", "add", "shop", *argv)

    assert refused.code == 65
    assert words in refused.err
    assert "no account" in postferry("account", "show", "shop").err


@pytest.mark.parametrize("id", ["x 3", "", "a/b", ".a", "a\n", "ü", "a" * 129])
def test_an_id_that_the_api_would_not_take_is_refused(postferry: Postferry, id: str) -> None:
    refused = postferry("account", "add", id, *HOST)

    assert refused.code == 65
    assert "account must be 1 to 128 letters, digits" in refused.err
    assert json.loads(postferry("account", "list", "--json").out) == []


async def test_the_rule_for_ids_is_no_doors_own(pool: db.Pool, settings: Settings) -> None:
    with pytest.raises(Faulty, match="account must be 1 to 128"):
        await enrol.save(pool, Vault(settings.secret_keys), settings, "x 3", {})


def test_what_an_account_lacks_to_send_is_said_in_place_of_how_to(postferry: Postferry) -> None:
    added = postferry("account", "add", "shop", "--email", "a@b.example")

    assert added.code == 0
    assert "it has no upstream to send through yet: postferry account add shop --update --smtp-host" in added.err
    assert "postferry send" not in added.err
    assert "postferry send shop" in postferry("account", "add", "shop", "--update", *HOST).err


def test_an_email_that_another_account_has_is_taken_and_told(postferry: Postferry, tmp_path: Path) -> None:
    shared = "shop@example.com is the email of account crm too: mail from it needs a login or X-Account now"
    (tmp_path / "moved.json").write_text('{"email": "Shop@Example.com"}')
    postferry("account", "add", "crm", *HOST, "--email", "shop@example.com")

    added = postferry("account", "add", "shop", *HOST, "--email", "SHOP@example.com")
    renamed = postferry("account", "add", "shop", "--update", "--name", "The shop")
    moved = postferry("account", "add", "shop", "--update", "--email", "other@example.com")
    back = postferry("account", "add", "shop", "--update", "--json", "moved.json")

    told = [done.err.count(shared) for done in (added, renamed, moved, back)]
    assert [done.code for done in (added, renamed, moved, back)] == [0, 0, 0, 0]
    assert told == [1, 0, 0, 1]
    assert "email of" not in added.out


def test_accounts_without_an_email_share_none(postferry: Postferry, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"email": null}')
    for name in ("crm", "shop"):
        assert "email of" not in postferry("account", "add", name, "--json", "none.json").err


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ((*HOST, "--smtp-user", "shop"), "its upstream has a user and no password"),
        (("--imap-host", "imap.example.com", "--imap-user", "box"), "its mailbox has a user and no password"),
    ],
)
def test_a_login_without_a_password_is_remarked_on(
    process: Postferry, environ: dict[str, str], user: tuple[str, ...], words: str
) -> None:
    added = process("account", "add", "shop", *user, **environ)
    renamed = process("account", "add", "shop", "--update", "--name", "The shop", **environ)
    given = {**environ, f"{user[0][2:6].upper()}_PASSWORD": "hunter2"}
    mended = process("account", "add", "shop", "--update", *user[-2:], **given)

    assert [done.code for done in (added, renamed, mended)] == [0, 0, 0]
    assert [words in done.err for done in (added, renamed, mended)] == [True, True, False]


def test_a_password_file_that_cannot_be_read_is_named(postferry: Postferry, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")

    for file, reason in (("nowhere", "No such file or directory"), ("latin", "it is no text in UTF-8")):
        refused = postferry("account", "add", "shop", *HOST, "--smtp-user", "a", "--smtp-password-file", file)
        assert refused.code == 64
        assert f"cannot read the password from {file}: {reason}" in refused.err


def _waits(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith(("S", "Z"))


# Runs a Python program at a terminal of its own; tests in the background ignore SIGINT, which it must not.
AT_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
screen = os.open(sys.argv[1], os.O_RDWR)
for stream in range(3):
    os.dup2(screen, stream)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def at_a_terminal(environ: dict[str, str], tmp_path: Path, key: bytes) -> tuple[int, str]:
    """The command at a terminal, where somebody presses this key when the password is asked for; what it says then."""
    keyboard, screen = os.openpty()
    argv = ("-P", "-m", "relay", "account", "add", "shop", *HOST, "--smtp-user", "shop")
    command = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, os.ttyname(screen), *argv],
        cwd=tmp_path,
        env={**os.environ, **environ},
        start_new_session=True,
    )
    try:
        try:
            shown = b""
            while b"(empty for none): " not in shown:
                assert select.select([keyboard], [], [], 60)[0], shown
                shown += os.read(keyboard, 1000)
        finally:
            os.close(screen)  # the command alone has it now: what is read ends with it
        while not _waits(command.pid):  # a signal in the instant before Python's read is not heard until the next
            time.sleep(0.01)
        os.write(keyboard, key)
        code = command.wait(60)
        said = b""
        with suppress(OSError):  # EIO, at the end
            while more := os.read(keyboard, 1000):
                said += more
        return code, said.decode()
    finally:
        command.kill()
        command.wait()
        os.close(keyboard)


def test_ctrl_c_at_the_password_ends_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    assert at_a_terminal(environ, tmp_path, b"\x03") == (130, "\r\n")


def test_ctrl_d_at_the_password_ends_kindly(environ: dict[str, str], tmp_path: Path) -> None:
    code, said = at_a_terminal(environ, tmp_path, b"\x04")

    assert code == 64
    assert "no password was given, and nothing is saved" in said
    assert "SMTP_PASSWORD" in said


MAILBOX = ("--imap-host", "imap.example.com")


@pytest.mark.parametrize(
    ("argv", "passwords"),
    [
        (("--smtp-user", "shop", *MAILBOX), ("of smtp", "of smtp")),
        (("--smtp-user", "shop", *MAILBOX, "--imap-user", "shop"), ("of smtp", "of smtp")),
        (("--smtp-user", "shop", *MAILBOX, "--imap-user", "box"), ("of smtp", None)),
        (
            ("--smtp-user", "shop", *MAILBOX, "--imap-user", "box", "--imap-password-file", "box"),
            ("of smtp", "of imap"),
        ),
    ],
)
def test_a_mailbox_has_the_same_login_unless_another_is_given(
    postferry: Postferry,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    argv: tuple[str, ...],
    passwords: tuple[str, str | None],
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "of smtp")
    (tmp_path / "box").write_text("of imap\n")

    done = postferry("account", "add", "shop", *HOST, *argv)

    assert done.code == 0, done.err
    vault = Vault([environ["POSTFERRY_SECRET_KEYS"]])
    found = ask(environ["DATABASE_URL"], lambda conn: accounts.get(conn, vault, "shop"))
    assert found
    assert found.smtp
    assert found.imap
    assert (found.smtp.password, found.imap.password or None) == passwords
    assert (found.imap.port, found.imap.tls) == (993, "implicit")


def test_a_mailbox_is_given_later(
    postferry: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    postferry("account", "add", "shop", *HOST)
    monkeypatch.setenv("IMAP_PASSWORD", "of imap")

    done = postferry("account", "add", "shop", "--update", *MAILBOX, "--imap-port", "143", "--imap-user", "box")
    shown = json.loads(postferry("account", "show", "shop").out)

    assert done.code == 0, done.err
    assert shown["imap"] == {"host": "imap.example.com", "port": 143, "auth": {"user": "box", "pass": "******"}}
    assert (shown["mailbox"]["lookedAt"], shown["mailbox"]["error"]) == (None, None)


def test_stdin_has_one_password(process: Postferry, environ: dict[str, str]) -> None:
    both = ("--smtp-user", "a", "--smtp-password-file", "-", "--imap-user", "b", "--imap-password-file", "-")

    assert process("account", "add", "shop", *HOST, *MAILBOX, *both, stdin=b"x\n", **environ).code == 64


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_json_that_is_none_is_refused(postferry: Postferry, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)

    assert postferry("account", "add", "shop", "--json", "a.json").code == 65


def test_add_does_not_change_and_update_does_not_add(postferry: Postferry) -> None:
    assert "to make it, leave --update out" in postferry("account", "add", "shop", "--update", *HOST).err
    assert postferry("account", "add", "shop", *HOST).code == 0
    assert "--update" in postferry("account", "add", "shop", *HOST).err

    changed = postferry("account", "add", "shop", "--update", "--name", "The shop")

    assert changed.code == 0
    assert json.loads(postferry("account", "show", "shop").out)["smtp"]["host"] == "smtp.example.com"


def test_accounts_are_listed_and_searched(postferry: Postferry) -> None:
    for name in ("alpha", "beta"):
        postferry("account", "add", name, *HOST, "--email", f"{name}@example.com")

    assert postferry("account", "list").out.splitlines()[1].split()[:4] == [
        "alpha",
        "active",
        "alpha@example.com",
        "smtp.example.com:587",
    ]
    assert [one["account"] for one in json.loads(postferry("account", "list", "beta", "--json").out)] == ["beta"]


def test_show_may_be_asked_for_json_as_the_others(postferry: Postferry) -> None:
    postferry("account", "add", "shop", *HOST)

    assert json.loads(postferry("account", "show", "shop", "--json").out)["account"] == "shop"


@pytest.mark.parametrize("argv", [("list", "\udcff"), ("show", "\udcff"), ("add", "shop", "--name", "\udcff")])
def test_what_is_no_text_is_the_givers_fault(postferry: Postferry, argv: tuple[str, ...]) -> None:
    refused = postferry("account", *argv)

    assert refused.code == 65
    assert refused.err == "postferry: '\\udcff' is no text in UTF-8\n"


def test_no_accounts_says_how_to_add_one(postferry: Postferry) -> None:
    assert "postferry account add" in postferry("account", "list").out


def test_pause_and_resume(postferry: Postferry) -> None:
    postferry("account", "add", "shop", *HOST)

    postferry("account", "pause", "shop", "--reason", "moving house")
    assert json.loads(postferry("account", "show", "shop").out)["reason"] == "moving house"

    postferry("account", "resume", "shop")
    assert json.loads(postferry("account", "show", "shop").out)["state"] == "active"


@pytest.mark.parametrize("command", ["show", "verify", "pause", "resume"])
def test_unknown_accounts_are_named(postferry: Postferry, command: str) -> None:
    shown = postferry("account", command, "nobody")

    assert shown.code == 65
    assert "there is no account 'nobody'" in shown.err


def test_a_token_goes_to_stdout_alone_and_works(postferry: Postferry, environ: dict[str, str]) -> None:
    postferry("account", "add", "shop", *HOST)

    made = postferry("token", "create", "--scope", "smtp", "--account", "shop", "--description", "web shop")

    text = made.out.strip()
    found = ask(environ["DATABASE_URL"], lambda conn: tokens.find(conn, text))
    assert found
    assert (found.scopes, found.account) == (("smtp",), "shop")
    assert "not shown again" in made.err


def test_tokens_are_listed_without_their_text_and_revoked(postferry: Postferry, environ: dict[str, str]) -> None:
    text = postferry("token", "create", "--scope", "api", "--scope", "metrics", "--scope", "api").out.strip()

    (listed,) = json.loads(postferry("token", "list", "--json").out)
    assert listed["scopes"] == ["api", "metrics"]
    assert listed["created"].endswith("Z")
    assert text not in postferry("token", "list").out

    assert postferry("token", "revoke", str(listed["id"])).code == 0
    assert ask(environ["DATABASE_URL"], lambda conn: tokens.find(conn, text)) is None
    assert postferry("token", "revoke", str(listed["id"])).code == 65


def test_a_token_for_nobody_is_refused(postferry: Postferry) -> None:
    assert postferry("token", "create", "--scope", "api", "--account", "nobody").code == 65


def test_keys_rotate_lets_the_old_key_go(
    postferry: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2")
    postferry("account", "add", "shop", *HOST, "--smtp-user", "shop")
    old, new = environ["POSTFERRY_SECRET_KEYS"], base64.urlsafe_b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("POSTFERRY_SECRET_KEYS", f"{new} {old}")

    assert "1 account " in postferry("keys", "rotate").out

    assert password_of({**environ, "POSTFERRY_SECRET_KEYS": new}, "shop") == "hunter2"


def test_secrets_need_a_key(postferry: Postferry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTFERRY_SECRET_KEYS")
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2")

    refused = postferry("account", "add", "shop", *HOST, "--smtp-user", "shop")

    assert refused.code == 78
    assert "doctor --new-key" in refused.err
