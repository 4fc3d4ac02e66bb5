"""A fault of ours, put in where the store is asked, to see that the loop that met it goes on."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest


def once(monkeypatch: pytest.MonkeyPatch, room: ModuleType, name: str) -> asyncio.Event:
    """The first call of this function of the room raises. The event: it was called again, and works."""
    works, again, faults = getattr(room, name), asyncio.Event(), [KeyError("boom")]

    async def faulty(*given: Any, **more: Any) -> Any:
        if faults:
            raise faults.pop()
        again.set()
        return await works(*given, **more)

    monkeypatch.setattr(room, name, faulty)
    return again
