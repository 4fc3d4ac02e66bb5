"""Addresses of machines, and the networks that they are in. An IPv4 address written as IPv6 is an IPv4 address."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def plain(address: Address) -> Address:
    """Out of its IPv6 clothes: ::ffff:192.0.2.1 is 192.0.2.1."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def read(text: str) -> Address | None:
    """The address that the text is; None: it is none."""
    try:
        return plain(ip_address(text))
    except ValueError:
        return None


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether it is an address in one of these networks."""
    return address is not None and any(address in network for network in networks)
