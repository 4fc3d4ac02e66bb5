"""A connected socket to a host of a tenant's: each address judged (net/guard.py), and the judged one is dialled."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from relay.core.networks import Network
from relay.net import guard

Passed = Callable[[str], None]
"""Told of each step that went well, in order, at once: `resolve`, `connect`, and those of the protocol."""


def unwatched(step: str) -> None:
    """For those who do not want to be told."""


class DialError(Exception):
    """A host that could not be reached. `kind`: forbidden, dns or unreachable."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


async def dial(
    host: str,
    port: int,
    allowed: Sequence[Network],
    seconds: float,
    *,
    resolver: guard.Resolver | None = None,
    passed: Passed = unwatched,
) -> socket.socket:
    """A connected socket, not blocking, to the first permitted address that answers; each gets its share of the time.

    The look-up of the name has `seconds` too. Raises DialError.
    """
    targets = await _resolve(host, port, allowed, seconds, resolver)
    passed("resolve")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    fault: OSError = TimeoutError()
    for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout((deadline - loop.time()) / left):
                await loop.sock_connect(sock, target.sockaddr)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            passed("connect")
            return sock
        except OSError as failed:
            sock.close()
            fault = failed
        except BaseException:
            sock.close()
            raise
    reason = os.strerror(fault.errno).lower() if fault.errno else "no answer in time"
    raise DialError("unreachable", f"{host} port {port}: {reason}")


async def _resolve(
    host: str, port: int, allowed: Sequence[Network], seconds: float, resolver: guard.Resolver | None
) -> Sequence[guard.Target]:
    try:
        async with asyncio.timeout(seconds):
            return await guard.resolve(host, port, allowed, resolver=resolver)
    except guard.Forbidden as fault:
        raise DialError("forbidden", str(fault)) from fault
    except TimeoutError as fault:
        raise DialError("dns", f"{host}: name look-up took too long") from fault
    except OSError as fault:
        raise DialError("dns", f"{host}: no such host ({fault.strerror})") from fault
