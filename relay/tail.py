"""Roles log to files; what is a warning or worse is shown on the terminal too."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

SEVERE = re.compile(rb'"level": "(?:warning|error|critical)"')
MOST_LINES = 10  # of one log in one look: a flood belongs in the file
LONGEST_LOOK = 1 << 20
LARGEST = 64 << 20  # bytes of a log file before it becomes the old one


class Tail:
    """Follows one role's log from its present end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = end(path)

    def news(self) -> Iterator[str]:
        """The severe lines since the last look, one readable line each."""
        lines = [line for line in self._fresh().splitlines() if SEVERE.search(line)]
        for line in lines[:MOST_LINES]:
            yield readable(line)
        if len(lines) > MOST_LINES:
            yield f"... and {len(lines) - MOST_LINES} more in {self.path}"

    def turn(self) -> None:
        """Keeps the log from growing for ever: one old file, one new. The role's descriptor appends, so it goes on.

        On a full disk what is old is lost: neither the log nor whoever looks at it may keep mail from going on.
        """
        if self._at > LARGEST:
            with suppress(OSError):
                shutil.copyfile(self.path, self.path.with_suffix(".log.old"))
            with suppress(OSError):
                os.truncate(self.path, 0)
            self._at = 0

    def _fresh(self) -> bytes:
        """Whole lines that were not seen yet; of a flood, its end."""
        try:
            with self.path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._at if self._at <= end else 0, end - LONGEST_LOOK))
                start, found = log.tell(), log.read(LONGEST_LOOK)
        except OSError:
            return b""
        whole = found[: found.rfind(b"\n") + 1]
        self._at = start + len(whole)
        return whole


def readable(line: bytes) -> str:
    """`10:12:01 worker    warning  upstream refused our login  account=a1`; what is no JSON stays as it is."""
    try:
        entry = json.loads(line)
        time = datetime.fromisoformat(entry.pop("time")).astimezone().strftime("%H:%M:%S")
        role, level, message = entry.pop("role"), entry.pop("level"), entry.pop("message")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _printable(line.decode(errors="replace"))
    fields = "".join(f"  {name}={value}" for name, value in entry.items() if name not in ("logger", "exception"))
    return _printable(f"{time} {role:<9} {level:<8} {message}{fields}")


def end(path: Path) -> int:
    """The bytes that a log has by now."""
    return path.stat().st_size if path.exists() else 0


def last_words(path: Path, since: int = 0, most: int = 5) -> list[str]:
    """The end of a log, for whoever wants to know why its process ended; without the log's first `since` bytes."""
    try:
        lines = path.read_bytes()[since:][-16_384:].splitlines()
    except OSError:
        return []
    return [readable(line) for line in lines[-most:] if line.strip()]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
