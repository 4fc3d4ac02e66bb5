"""What the benches with a command of their own share: options, a folder, and how they tell what they found."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import machine, postfix

Row = Sequence[str]


@dataclass
class Table:
    """Some of what was found. The first row of `rows` names the columns."""

    rows: list[Row]
    title: str = ""

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<" + ">" * len(widths), widths, strict=False))
        lines = [shape.format(*row).rstrip() for row in self.rows]
        return "\n".join([self.title, *lines] if self.title else lines)

    def markdown(self) -> str:
        head, *rest = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in self.rows)
        rule = "|" + "---|" * len(self.rows[0])
        return "\n".join([*([self.title, ""] if self.title else ()), head, rule, *rest])


@dataclass
class Proof:
    """What one command found. `faults`: mail lost, doubled or refused, and what else must not be."""

    name: str
    about: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # for the JSON alone

    def text(self) -> str:
        told = [table.text() for table in self.tables]
        told += ["\n".join(self.notes)] if self.notes else []
        return "\n\n".join([*told, *(f"FAULT: {fault}" for fault in self.faults)])

    def markdown(self) -> str:
        """The block that the documents show between two marks."""
        m = self.about
        where = f"{m['cores']} cores ({m['cpu']}), {m['filesystem']} with an fsync of {m['fsync_ms_p50']:.1f} ms"
        told = [f"One run on {m['date'][:10]}, commit {m['commit']}: {where}, Postfix {m['postfix']}."]
        told += [table.markdown() for table in self.tables]
        told += [" ".join(self.notes)] if self.notes else []
        told += [f"**Fault:** {fault}" for fault in self.faults]
        return f"<!-- {self.name.upper()} -->\n" + "\n\n".join(told) + f"\n<!-- /{self.name.upper()} -->"


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """The options that each of them has."""
    found = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=about)
    found.add_argument("--markdown", action="store_true", help="print the block that docs/proof.md shows")
    found.add_argument("--json", type=Path, default=Path(f"bench-{name}.json"), help=f"bench-{name}.json")
    found.add_argument("--dir", type=Path, help="where to put data folders (default: the system's temporary folder)")
    found.add_argument("--keep", action="store_true", help="leave data and logs behind")
    return found


def begin(name: str, folder: Path) -> Proof:
    """A proof without figures yet."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    beside = postfix.missing() or postfix.version()
    return Proof(name, {"date": date, **machine.describe(folder), "postfix": beside})


def end(proof: Proof, given: argparse.Namespace) -> int:
    """Tells it, and writes it down. The exit code."""
    print(proof.markdown() if given.markdown else proof.text())
    given.json.write_text(json.dumps(asdict(proof), indent=2) + "\n")
    print(f"written to {given.json}", file=sys.stderr)
    return 1 if proof.faults else 0


@contextlib.contextmanager
def workplace(parent: Path | None, keep: bool) -> Iterator[Path]:
    """A folder on a real disk: in memory, a sync would cost nothing."""
    parent = parent or Path(tempfile.gettempdir())
    if machine.filesystem(parent)[1] in machine.IN_MEMORY:
        parent = Path("/var/tmp")
    folder = Path(tempfile.mkdtemp(prefix="postferry-bench-", dir=parent))
    folder.chmod(0o755)  # Postfix's own user has to reach its queue
    try:
        yield folder
    finally:
        if keep:
            print(f"data and logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def chart(values: Sequence[float], width: int = 48) -> str:
    """A series as one line of text, from 0 to its most: each mark is the mean of its share of the values."""
    if not values:
        return ""
    width = min(width, len(values))
    shares = [values[len(values) * n // width : len(values) * (n + 1) // width] for n in range(width)]
    means = [sum(share) / len(share) for share in shares]
    most = max(means) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(round(mean / most * 7), 7)] for mean in means)
