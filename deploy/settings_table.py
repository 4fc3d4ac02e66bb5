"""Writes the table of settings into README.md, from the settings: python deploy/settings_table.py README.md"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

from relay import settings

BLOCK = re.compile(r"(<!-- settings:[^>]*-->\n).*?(<!-- /settings -->)", re.DOTALL)
HEAD = "| setting | default | meaning |\n|---|---|---|\n"


def table() -> str:
    return HEAD + "".join(_row(option) for option in dataclasses.fields(settings.Settings))


def written(page: str) -> str:
    """The page with the table as it should be. Raises ValueError where it has no place for one."""
    text, places = BLOCK.subn(lambda found: found[1] + table() + found[2], page)
    if places != 1:
        raise ValueError(f"there are {places} places for the table of settings; there must be one")
    return text


def _row(option: dataclasses.Field[object]) -> str:
    default, meaning = option.metadata["default"], option.metadata["meaning"].replace("|", "\\|")
    return f"| `{settings.variable(option.name)}` | {f'`{default}`' if default else ''} | {meaning} |\n"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written(page.read_text()))
