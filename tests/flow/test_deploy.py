"""What lies in deploy/ fits the program: settings, commands, locks."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from deploy import env_example
from relay import commands, role, settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
TEXTS = sorted(path for path in [*DEPLOY.rglob("*"), ROOT / "Procfile"] if path.is_file() and path.suffix != ".pyc")
LOCKS = sorted(DEPLOY.glob("*.lock"))


def test_the_example_lists_every_setting_as_it_is() -> None:
    assert (DEPLOY / "env.example").read_text() == env_example.text(), "write it anew: make env"


def test_the_example_uncommented_is_a_valid_environment(tmp_path: Path) -> None:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    (tmp_path / "env").write_text("\n".join(line.removeprefix("#") for line in lines if re.match(r"#[A-Z_]+=", line)))
    assert settings.read({}, tmp_path / "env") == settings.read({}, None)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_only_settings_that_exist_are_named(path: Path) -> None:
    known = {settings.variable(option.name) for option in dataclasses.fields(settings.Settings)}
    assert set(re.findall(r"POSTFERRY_[A-Z_]+", path.read_text())) <= known


@pytest.mark.parametrize(
    "path", [ROOT / "Procfile", *sorted(DEPLOY.glob("systemd/*.service"))], ids=lambda path: path.name
)
def test_only_commands_that_exist_are_run(path: Path) -> None:
    words = re.findall(r"postferry (\w+)$", path.read_text(), re.MULTILINE)
    assert all(commands.find(word) for word in words)


def test_the_procfile_and_the_target_have_every_role() -> None:
    roles = {"smtp", "api", "worker", "scheduler", "notify", "mailbox"}
    assert {line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()} == roles
    assert set(re.findall(r"postferry@(\w+)", (DEPLOY / "systemd/postferry.target").read_text())) == roles


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("systemd/*.service")), ids=lambda path: path.name)
def test_a_unit_is_not_started_for_ever_with_settings_that_are_wrong(unit: Path) -> None:
    assert f"\nRestartPreventExitStatus={role.CONFIG}\n" in unit.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_by_hash_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    pins = re.findall(r"^[a-z0-9][^ ]*==[^ ]+", text, re.MULTILINE)
    assert len(pins) > 20 or lock.stem == "profile"  # which is one program
    assert text.count("\n    --hash=sha256:") >= len(pins)
    assert not re.search(r"://|index-url|find-links", text)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_what_the_project_asks_for(lock: Path) -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = told["project"]["optional-dependencies"]
    ours = told["project"]["dependencies"]
    everything = ours + extras["embedded"] + extras["dev"]  # `geo` is 100 MB, for those who want it
    wanted = {
        "runtime": ours,
        "requirements": everything,
        "fuzz": everything + extras["fuzz"],
        "audit": told["dependency-groups"]["audit"],
        "profile": told["dependency-groups"]["profile"],
    }[lock.stem]
    names = {re.split(r"[^\w.-]", need)[0] for need in wanted}
    pinned = set(re.findall(r"^([a-z0-9][\w.-]*)==", lock.read_text(), re.MULTILINE))
    assert names - pinned == set()


@pytest.mark.parametrize(("part", "whole"), [("runtime", "requirements"), ("requirements", "fuzz")])
def test_locks_of_one_program_pin_alike(part: str, whole: str) -> None:
    pins = [
        set(re.findall(r"^[a-z0-9][\w.-]*==\S+", (DEPLOY / f"{name}.lock").read_text(), re.MULTILINE))
        for name in (part, whole)
    ]
    assert pins[0] <= pins[1], f"{part}.lock is not a part of {whole}.lock: make lock"
