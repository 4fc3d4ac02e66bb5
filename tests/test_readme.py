"""The documents say what the program does: settings, commands, calls, headers and links are checked by the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from api.app import OPERATIONS
from api.operation import Operation
from deploy import settings_table
from relay import commands, settings
from relay.core import mime, model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "deploy" / "env.example").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
VARIABLES = [settings.variable(option.name) for option in dataclasses.fields(settings.Settings)]
ELSEWHERE = re.compile(r"[a-z]+:|//")


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_setting_is_in_readme_and_example(variable: str) -> None:
    assert f"| `{variable}` |" in README
    assert re.search(rf"^#?{variable}=", EXAMPLE, re.MULTILINE)


def test_the_table_of_settings_is_as_the_settings_are() -> None:
    assert settings_table.written(README) == README, "write it anew: make env"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_only_settings_that_exist_are_named(page: Path) -> None:
    assert set(re.findall(r"POSTFERRY_[A-Z][A-Z_]*[A-Z]", page.read_text())) <= set(VARIABLES)


@pytest.mark.parametrize("command", [command.name for command in commands.COMMANDS])
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"^\|.*`postferry {command}\b", README, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_only_commands_that_exist_are_named(page: Path) -> None:
    named = re.findall(r"(?:^\$ |`|[|&] )postferry ([a-z]+)", page.read_text(), re.MULTILINE)
    assert [name for name in named if commands.find(name) is None] == []


@pytest.mark.parametrize("target", re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
def test_every_target_of_the_makefile_is_in_the_readme(target: str) -> None:
    assert f"`make {target}`" in README or f"$ make {target} " in README or f"`{target}`" in README


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_call_of_the_api_is_in_the_readme(operation: Operation) -> None:
    lines = [line for line in README.splitlines() if re.search(rf"[ `]{re.escape(operation.path)}`", line)]
    assert lines
    assert operation.path == "/openapi.json" or any(f"`{operation.method}" in line for line in lines)


@pytest.mark.parametrize("word", [*mime._CONTROL_NAMES, b"Bcc"])
def test_every_control_header_is_in_the_readme(word: bytes) -> None:
    assert f"`{word.decode()}`".lower() in README.lower()


def test_the_states_are_those_of_the_transition_table() -> None:
    drawn = re.findall(r"(\w+) ─+▶ ([\w |]+?)(?= {3}| \(|$)", README, re.MULTILINE)
    said = {name: set(targets.replace(" ", "").split("|")) for name, targets in drawn if name in set(model.State)}
    table = {state.value: {one.value for one in targets} for state, targets in model.TRANSITIONS.items() if targets}
    assert said == table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not ELSEWHERE.match(link)]
    assert [link for link in targets if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not heading or heading in _headings(target))


def _headings(page: Path) -> set[str]:
    """Headings as a link names them: lower case, spaces as hyphens, without punctuation."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:relay|api|workers|deploy|tests|docs)/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_file_of_the_core_and_the_net_is_on_the_map() -> None:
    files = [path.name for folder in ("core", "net") for path in (ROOT / "relay" / folder).glob("[a-z]*.py")]
    assert [name for name in files if f"{name}`" not in README] == []


def test_every_module_of_the_plot_is_on_the_map() -> None:
    on_map = README.partition("## Map of the code")[2].partition("\n## ")[0]
    modules = [path.stem for path in (ROOT / "relay").glob("[a-z]*.py")]
    assert [name for name in modules if not re.search(rf"`(?:relay/)?{name}(?:\.py)?`", on_map)] == []
