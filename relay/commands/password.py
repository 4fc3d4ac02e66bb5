"""Where a password comes from: a file, stdin, the environment or a question; never the command line, which all see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from relay.commands.terminal import USAGE, Stop

VARIABLE = "SMTP_PASSWORD"


def read(file: str | None, *, wanted: str, variable: str = VARIABLE) -> str | None:
    """The secret of `wanted`; None when nobody gave one. One line end at its end is not part of it."""
    if file == "-":
        return _line(sys.stdin.read())
    if file:
        try:
            return _line(Path(file).read_text())
        except OSError as error:
            raise Stop(f"cannot read the password: {error}", "", USAGE) from None
    if variable in os.environ:
        return os.environ[variable]
    if wanted and sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{wanted} (empty for none): ") or None
    return None


def _line(text: str) -> str | None:
    return text.removesuffix("\n").removesuffix("\r") or None
