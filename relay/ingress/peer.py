"""Who is at the other end: the address there, or the client that a load balancer there speaks for (PROXY protocol)."""

from __future__ import annotations

from asyncio import StreamReader
from ipaddress import ip_address

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy

from relay.core.networks import Address, plain


class NoHeader(Exception):
    """A load balancer has to say whom it speaks for, and did not. The text is for the log."""


def address(name: object) -> Address:
    """An address as a socket tells it."""
    return plain(ip_address(str(name)))


async def spoken_for(reader: StreamReader) -> Address | None:
    """The client of the PROXY header that comes first; None when the load balancer speaks for itself."""
    data = await get_proxy(reader)
    if not data.valid:
        raise NoHeader(f"a load balancer sent no PROXY header: {data.error}")
    if data.command is not None and data.command != V2_CMD.PROXY:
        return None
    return plain(data.src_addr) if isinstance(data.src_addr, Address) else None
