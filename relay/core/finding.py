"""What a check of the installation found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Finding(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    finding: Finding
    detail: str
    advice: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, Finding.OK, detail)
