"""Name servers that say what a test wants."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from relay.net.guard import Resolver


def answering(*addresses: str, port: int = 0) -> Resolver:
    """Every name has these addresses; at this port, whichever was asked for, unless it is 0."""

    async def resolver(host: str, asked: int) -> Sequence[tuple[Any, ...]]:
        return [_found(address, port or asked) for address in addresses]

    return resolver


class Fickle:
    """Leads to a permitted address when it is judged, and elsewhere later: DNS rebinding."""

    def __init__(self, port: int) -> None:
        self.port, self.asked = port, 0

    async def __call__(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        return [_found("127.0.0.1" if self.asked == 1 else "10.0.0.1", self.port)]


def _found(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
