"""Whose address it is that asks: what a client writes of itself is believed as far as our own proxies wrote it."""

from __future__ import annotations

import time
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from api.call import client

READER = "198.51.100.7"


def asked(peer: str, told: str, *proxies: str) -> str:
    lines = [("X-Forwarded-For", line) for line in told.split("|") if line]
    request: Any = SimpleNamespace(remote=peer, headers=CIMultiDict(lines))
    settings: Any = SimpleNamespace(proxy_networks=tuple(map(ip_network, proxies)))
    return client(request, settings)


@pytest.mark.parametrize(
    ("peer", "told", "proxies", "expected"),
    [
        (READER, "", (), READER),
        (READER, "192.0.2.1", (), READER),  # nobody is a proxy: whatever it says of itself
        (READER, "192.0.2.1", ("10.0.0.0/8",), READER),  # it came past the proxies
        ("10.0.0.1", "", ("10.0.0.0/8",), "10.0.0.1"),
        ("10.0.0.1", READER, ("10.0.0.0/8",), READER),
        ("10.0.0.1", f"192.0.2.1, {READER}", ("10.0.0.0/8",), READER),  # the first is the reader's own word
        ("10.0.0.1", f"192.0.2.1, {READER}, 10.0.0.2", ("10.0.0.0/8",), READER),
        ("10.0.0.1", f"{READER}, , ", ("10.0.0.0/8",), READER),
        ("10.0.0.1", "nobody", ("10.0.0.0/8",), "nobody"),
        ("10.0.0.1", f"192.0.2.1|{READER}", ("10.0.0.0/8",), READER),  # a proxy that adds a line of its own
        ("10.0.0.1", "192.0.2.1, nobody", ("10.0.0.0/8",), "nobody"),
        ("10.0.0.1", f"{READER}:50123", ("10.0.0.0/8",), READER),  # Azure's Application Gateway writes ports
        ("10.0.0.1", f"{READER}:50123, 10.0.0.2:443", ("10.0.0.0/8",), READER),
        ("10.0.0.1", "[2001:db8::7]:50123", ("10.0.0.0/8",), "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", ("10.0.0.0/8",), "2001:db8::7"),
        ("10.0.0.1", f"{READER}, ::ffff:10.0.0.2", ("10.0.0.0/8",), READER),
        ("::ffff:10.0.0.1", READER, ("10.0.0.0/8",), READER),
    ],
)
def test_who_asks(peer: str, told: str, proxies: tuple[str, ...], expected: str) -> None:
    assert asked(peer, told, *proxies) == expected


def test_a_long_list_of_our_own_proxies_costs_nothing() -> None:
    begun = time.process_time()
    for _ in range(10):
        asked("10.0.0.1", "10.0.0.1," * 10_000, "10.0.0.0/8", "fd00::/8")
    assert time.process_time() - begun < 1  # a few ms
