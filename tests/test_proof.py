"""The proof is held to the tests that it names: each is there, and each line of its table has some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "proof.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", PAGE)))
LIST = PAGE.partition("## The attack list")[2].partition("\n## ")[0]


def names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_some() -> None:
    assert len(NAMED) > 80


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_is_there(file: str) -> None:
    assert {name for where, name in NAMED if where == file} <= names(TESTS / file)


def test_every_attack_has_what_stands_against_it_and_a_test() -> None:
    rows = [line.strip("|").split("|") for line in LIST.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert [row for row in rows if len(row) != 3 or not row[1].strip() or "::test_" not in row[2]] == []
