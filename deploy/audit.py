"""Known vulnerabilities of what the locks pin: python deploy/audit.py --tool .venv/audit/bin/pip-audit

Ends with status 1 when one is known, with 2 when the tool itself is broken. What could not be looked up, because the
service was away or knows nothing of it, is said at length and is no failure, unless `--strict` makes it one.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOCKS = sorted(Path(__file__).parent.glob("*.lock"))
PATIENCE = 900  # s for the tool; it asks for one package after the other

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_AWAY = re.compile(r"ConnectionError|ServiceError|ProxyError|SSLError|Timeout|Max retries|[Cc]ould not connect|Errno")


@dataclass(frozen=True, order=True)
class Package:
    """One version of one, and the locks that have it."""

    name: str
    version: str
    locks: tuple[str, ...] = field(compare=False, default=())

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({', '.join(self.locks)})"


@dataclass
class Findings:
    """`unknown`: what was not audited, and why."""

    audited: list[Package] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unknown: dict[Package, str] = field(default_factory=dict)


class Broken(Exception):
    """The tool did not do its work, for a reason of its own."""


def pinned(locks: Sequence[Path]) -> list[Package]:
    """Every package of every lock, for whatever machine it is meant."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock in locks:
        for name, version in _PINNED.findall(lock.read_text()):
            found.setdefault((_plain(name), version), []).append(lock.name)
    return sorted(Package(name, version, tuple(where)) for (name, version), where in found.items())


def rounds(packages: Sequence[Package]) -> Iterator[list[Package]]:
    """The packages, no two of one name at once: the tool would take neither."""
    left = list(packages)
    while left:
        first = {package.name: package for package in reversed(left)}
        yield sorted(first.values())
        left = [package for package in left if package not in first.values()]


def audit(tool: Sequence[str], packages: Sequence[Package]) -> Findings:
    """Asks the tool. Raises Broken."""
    findings = Findings()
    for several in rounds(packages):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(f"{package.name}=={package.version}\n" for package in several)
            file.flush()
            asked = ["--requirement", file.name, "--no-deps", "--disable-pip", "--format", "json"]
            said, why = _run([*tool, *asked, "--progress-spinner", "off"])
        judge(several, said, why, findings)
    return findings


def _run(command: Sequence[str]) -> tuple[str, str]:
    """What it wrote, and what it complained of."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired:
        return "", f"Timeout: no answer within {PATIENCE} s"
    except OSError as error:
        raise Broken(f"{command[0]} cannot be run: {error.strerror}") from None
    return ran.stdout, ran.stderr


def judge(packages: Sequence[Package], said: str, why: str, findings: Findings) -> None:
    """Adds what the tool said of these packages; what it did not speak of was not audited. Raises Broken."""
    told = _told(said, why)
    reason = "the vulnerability service cannot be reached" if told is None else "the service did not speak of it"
    for package in packages:
        one = (told or {}).get(package.name)
        if one is None or "vulns" not in one or one.get("version") != package.version:
            findings.unknown[package] = (one or {}).get("skip_reason") or reason
            continue
        findings.audited.append(package)
        findings.faults += [_fault(package, vulnerability) for vulnerability in one["vulns"]]


def _told(said: str, why: str) -> Mapping[str, Mapping[str, object]] | None:
    """By name; None: the service was away."""
    try:
        return {_plain(one["name"]): one for one in json.loads(said)["dependencies"]}
    except (ValueError, KeyError, TypeError):
        if _AWAY.search(why):
            return None
        raise Broken((why or said).strip()[-2000:] or "it said nothing") from None


def _fault(package: Package, vulnerability: Mapping[str, object]) -> str:
    aliases = vulnerability.get("aliases") or []
    also = f" ({', '.join(map(str, aliases))})" if isinstance(aliases, list) and aliases else ""
    fixed = vulnerability.get("fix_versions") or []
    mended = f"mended in {' or '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else "not mended yet"
    return f"{package}: {vulnerability['id']}{also}, {mended}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(findings: Findings) -> Iterator[str]:
    """What people read. The last line never says more than was done."""
    for fault in findings.faults:
        yield f"✗ {fault}"
    by_reason: dict[str, list[Package]] = {}
    for package, why in findings.unknown.items():
        by_reason.setdefault(re.sub(r":? ?\S+ \(\S+\)$", "", why), []).append(package)
    for why, packages in by_reason.items():
        names = ", ".join(f"{package.name} {package.version}" for package in packages)
        yield f"! NOT AUDITED, {why}: {len(packages)} packages"
        yield textwrap.fill(names, 116, initial_indent="!   ", subsequent_indent="!   ")
    total = len(findings.audited) + len(findings.unknown)
    if not findings.audited:
        yield f"! NOTHING WAS AUDITED: all {total} packages are as unknown as before"
        return
    mark = "✗" if findings.faults else "!" if findings.unknown else "✓"
    rest = f", {len(findings.unknown)} NOT AUDITED" if findings.unknown else ""
    faults = f"{len(findings.faults)} known vulnerabilities"
    yield f"{mark} {len(findings.audited)} of {total} packages audited{rest}: {faults}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="pip-audit, and what else it is to be told, as in a shell")
    parser.add_argument("--strict", action="store_true", help="what could not be looked up is a failure too")
    parser.add_argument("locks", nargs="*", type=Path, metavar="LOCK", help="in place of deploy/*.lock")
    given = parser.parse_args()
    try:
        findings = audit(shlex.split(given.tool), pinned(given.locks or LOCKS))
    except Broken as fault:
        print(f"✗ NOTHING WAS AUDITED, the tool is broken: {fault}", file=sys.stderr)
        return 2
    print("\n".join(lines(findings)))
    return 1 if findings.faults or (given.strict and findings.unknown) else 0


if __name__ == "__main__":
    sys.exit(main())
