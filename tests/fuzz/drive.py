"""One target under atheris, in a process of its own: what it imports is instrumented, what it finds is written down.

`python -m tests.fuzz.drive TARGET SECONDS FOLDER`. libFuzzer ends the process; the findings are files by then.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.target import Target, named

GRACE = 60  # s that one input may take before the process is ended, and the input kept
MEMORY = 2048  # MB


class Findings:
    """Each fault once: the first input that showed it, with its traceback beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()

    def add(self, data: bytes, fault: BaseException) -> None:
        name = fingerprint(fault)
        if name in self.seen:
            return
        self.seen.add(name)
        (self.folder / name).write_bytes(data)
        text = "".join(traceback.format_exception(fault))
        (self.folder / f"{name}.txt").write_text(text, errors="replace")


def fingerprint(fault: BaseException) -> str:
    """The same for faults of one kind at one place."""
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(fault.__traceback__)[-3:]]
    digest = hashlib.sha256("\n".join([type(fault).__name__, *frames]).encode()).hexdigest()
    return f"{type(fault).__name__}-{digest[:12]}"


def watched(target: Target, findings: Findings) -> Callable[[bytes], None]:
    """The check, going on after what it finds."""

    def once(data: bytes) -> None:
        try:
            target.run(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as fault:
            findings.add(data, fault)

    return once


def prepared(target: Target, folder: Path) -> list[str]:
    """What libFuzzer is told: how long, from which inputs, with which words."""
    corpus, crashes = folder / "corpus" / target.name, folder / "crashes" / target.name
    for made in (corpus, crashes):
        made.mkdir(parents=True, exist_ok=True)
    for old in crashes.iterdir():  # what was found before comes first, and is found again unless it was mended
        old.unlink() if old.suffix == ".txt" else old.rename(corpus / old.name)
    for seed in target.own_seeds:
        (corpus / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)
    words = folder / f"{target.name}.words"
    words.write_text("".join(f'"{_spelt(word)}"\n' for word in target.words))
    return [
        *(f"-artifact_prefix={crashes}/", f"-max_len={target.longest}", f"-dict={words}", f"-timeout={GRACE}"),
        *(f"-rss_limit_mb={MEMORY}", "-report_slow_units=3600", "-print_final_stats=1", "-verbosity=1", str(corpus)),
    ]


def _spelt(word: bytes) -> str:
    return "".join(chr(byte) if byte < 128 and chr(byte).isalnum() else f"\\x{byte:02x}" for byte in word)


def main() -> None:
    import atheris  # here alone: nobody else needs it

    name, seconds, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    with atheris.instrument_imports(include=["relay", "api"], enable_loader_override=False):
        target = named(name)
    options = prepared(target, folder)
    findings = Findings(folder / "crashes" / target.name)
    atheris.Setup([sys.argv[0], f"-max_total_time={max(1, round(seconds))}", *options], watched(target, findings))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
