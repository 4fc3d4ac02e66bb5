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
            raise Stop(f"cannot read the password from {file}: {error.strerror}", "", USAGE) from None
        except UnicodeDecodeError:
            raise Stop(f"cannot read the password from {file}: it is no text in UTF-8", "", USAGE) from None
    if variable in os.environ:
        return os.environ[variable]
    if wanted and sys.stdin.isatty():
        return _ask(f"{wanted} (empty for none): ", variable) or None
    return None


def _ask(prompt: str, variable: str) -> str:
    import getpass

    try:
        return getpass.getpass(prompt)
    except EOFError:
        print(file=sys.stderr)  # the prompt has no line end of its own
        raise Stop(
            "no password was given, and nothing is saved",
            f"Enter alone is an empty one; it may also come from a file, or from {variable} in the environment",
            USAGE,
        ) from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise


def _line(text: str) -> str | None:
    return text.removesuffix("\n").removesuffix("\r") or None
