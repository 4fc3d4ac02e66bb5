"""Writes env.example from the settings themselves: python deploy/env_example.py > deploy/env.example"""

from __future__ import annotations

import dataclasses
import textwrap

from relay import settings

HEAD = """\
# Every setting of Postferry, with its default. Copy to .env, or name it as the EnvironmentFile of the service;
# uncomment what you change. Written by `make env` from relay/settings.py.
"""


def text() -> str:
    return HEAD + "".join(_entry(option) for option in dataclasses.fields(settings.Settings))


def _entry(option: dataclasses.Field[object]) -> str:
    meaning = textwrap.fill(option.metadata["meaning"], 116, initial_indent="# ", subsequent_indent="# ")
    return f"\n{meaning}\n#{settings.variable(option.name)}={option.metadata['default']}\n"


if __name__ == "__main__":
    print(text(), end="")
