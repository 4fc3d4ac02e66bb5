"""What two hosts carry beside one: the same mails handed over and sent on, by one host and by both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    name: str


async def compare(islands: object, messages: int) -> list[Row]:
    return []


def table(rows: list[Row]) -> list[str]:
    return []
