"""What a fake does in place of its usual reply, step by step: the steps that most of them know."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Steps:
    """Built by its verbs, each of which returns it; the fake has a method for each."""

    steps: list[tuple[str, Any]] = field(default_factory=list, kw_only=True)

    def hang(self) -> Self:
        return self._then("hang")

    def wait(self, event: asyncio.Event) -> Self:
        return self._then("wait", event)

    def pause(self, seconds: float) -> Self:
        return self._then("pause", seconds)

    def drop(self) -> Self:
        return self._then("drop")

    def drip(self, seconds: float) -> Self:
        return self._then("drip", seconds)

    def _then(self, step: str, value: Any = None) -> Self:
        self.steps.append((step, value))
        return self
