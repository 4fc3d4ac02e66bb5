"""What the bench ran on: cores, disk, versions; and what processes use of it: memory, CPU."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROC = Path("/proc")
IN_MEMORY = ("tmpfs", "ramfs", "overlay-tmpfs")
CORES = len(os.sched_getaffinity(0))
TICK = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def describe(folder: Path) -> dict[str, Any]:
    """The machine, and the disk that `folder` is on."""
    half, most = fsync_milliseconds(folder)
    device, kind = filesystem(folder)
    return {
        "cores": CORES,
        "cpu": field(PROC / "cpuinfo", "model name") or platform.processor(),
        "memory_mb": int(field(PROC / "meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "disk": device,
        "filesystem": kind,
        "fsync_ms_p50": half,
        "fsync_ms_p99": most,
        "load_before": os.getloadavg()[0],
        "commit": commit(),
    }


def where() -> str:
    """The day and the machine, for the line above a table."""
    model = field(PROC / "cpuinfo", "model name") or "unknown"
    return f"{datetime.now(UTC):%Y-%m-%d}, {CORES} cores, {model}, Linux {platform.release()}"


def field(file: Path, name: str) -> str:
    """The value of the first `name: value` line."""
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def fsync_milliseconds(folder: Path, times: int = 200) -> tuple[float, float]:
    """Median and 99th percentile of writing 4 KB and syncing it, as a commit does."""
    file = folder / "fsync.probe"
    taken = []
    with file.open("wb", buffering=0) as out:
        for _ in range(times):
            out.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(out.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    file.unlink()
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def filesystem(folder: Path) -> tuple[str, str]:
    """(device, type) of the mount that holds a folder."""
    best, found = -1, ("?", "?")
    for line in (PROC / "mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(point) and len(point) > best:
            best, found = len(point), (device, kind)
    return found


def commit() -> str:
    """The commit that is measured, with a + when the tree has changes."""
    try:
        run = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        parent = status(stat)[1]
        children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def status(stat: Path) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; all zero when the process has gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def cpu_seconds(pid: int) -> float:
    """CPU that a process, its descendants and those of them that have ended have used."""
    fields = (status(PROC / str(member) / "stat") for member in family(pid))
    return sum(int(number) for values in fields for number in values[11:15]) / TICK


def busy_seconds() -> float:
    """CPU that the whole machine has used."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(number) for number in (PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB. RSS counts a shared page in every process; PSS divides it between them."""

    rss: float = 0.0
    pss: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)


def memory(pid: int) -> Memory:
    """What a process and its descendants hold."""
    return sum((one_memory(member) for member in family(pid)), Memory())


def one_memory(pid: int) -> Memory:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory()
    sizes = {name: int(value.split()[0]) / 1024 for name, _, value in (line.partition(":") for line in lines)}
    return Memory(sizes.get("Rss", 0.0), sizes.get("Pss", 0.0))
