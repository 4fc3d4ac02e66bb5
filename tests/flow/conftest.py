"""What the tests of the commands share: `postferry` called in this process, and as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay import cli


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Postferry = Callable[..., Result]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Postferry:
    """`postferry` in this process, in an empty folder, with no setting made."""
    for name in list(os.environ):
        if name.startswith("POSTFERRY_") or name in ("DATABASE_URL", "REDIS_URL", "SMTP_PASSWORD", "IMAP_PASSWORD"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> Result:
        capsys.readouterr()
        try:
            code = cli.main(argv)
        except SystemExit as end:  # argparse, after --help or an error
            code = int(end.code or 0)
        seen = capsys.readouterr()
        return Result(code, seen.out, seen.err)

    return call


@pytest.fixture
def postferry(bare: Postferry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Postferry:
    """The same over this test's database and Redis."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return bare


@pytest.fixture
def process(tmp_path: Path) -> Postferry:
    """`python -m relay` as a process of its own, with the settings that are given."""

    def run(*argv: str, stdin: bytes = b"", **given: str) -> Result:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTFERRY_")}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "relay", *argv],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env={**kept, **given},
            timeout=120,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
