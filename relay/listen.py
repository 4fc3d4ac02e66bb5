"""Ports that many processes of a role share."""

from __future__ import annotations

import socket

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to call who listens everywhere


def bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host; others may bind it too (SO_REUSEPORT). Port 0 is off. Raises OSError."""
    if not port:
        return []
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    found = []
    for family, kind, _, _, address in addresses:
        one = socket.socket(family, kind)
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            one.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}") from error
        found.append(one)
    return found
