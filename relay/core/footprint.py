"""How much of an opener's address is kept: all of it, its network, or nothing."""

from __future__ import annotations

from ipaddress import ip_network

from relay.core import networks

NETWORK = {4: 24, 6: 48}  # bits; what is left of a truncated address names some 256 lines, or one customer's site


def kept(address: str, how: str) -> str | None:
    """What may be stored of `address`; `how` is whole, truncated or none. None: nothing, as for what is no address.

    An IPv4 address written as IPv6 (::ffff:192.0.2.1) is kept as IPv4; an interface's name (fe80::1%eth0) is dropped.
    """
    if how not in ("whole", "truncated", "none"):
        raise ValueError(f"addresses are kept whole, truncated or none, not {how!r}")
    if how == "none":
        return None
    found = networks.read(address.strip().partition("%")[0])
    if found is None:
        return None
    if how == "whole":
        return str(found)
    return str(ip_network((found, NETWORK[found.version]), strict=False).network_address)
