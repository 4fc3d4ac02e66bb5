"""Addresses as they are written, and the networks that they are in."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.core import networks

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("text", "read", "inside"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("11.1.2.3", "11.1.2.3", False),
        ("::ffff:11.1.2.3", "11.1.2.3", False),
        ("10.1.2.3:443", "None", False),
        ("", "None", False),
        ("localhost", "None", False),
    ],
)
def test_an_address_is_read_in_any_clothes(text: str, read: str, inside: bool) -> None:
    assert str(networks.read(text)) == read
    assert networks.within(networks.read(text), NETWORKS) is inside
