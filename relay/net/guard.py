"""Resolve a host to the addresses that may be dialled: judged is the address that is then dialled, not the name."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from relay.core import hosts
from relay.core.networks import Address, Network

SockAddr = tuple[Any, ...]
Resolver = Callable[[str, int], Awaitable[Sequence[tuple[Any, ...]]]]


class Forbidden(Exception):
    """A host that may not be dialled."""

    def __init__(self, host: str, address: str, reason: str) -> None:
        where = address if address == host else f"{host} is {address},"
        super().__init__(f"{where} refused: {reason}")


@dataclass(frozen=True, slots=True)
class Target:
    """One address that may be dialled."""

    family: int
    sockaddr: SockAddr

    @property
    def address(self) -> str:
        return str(self.sockaddr[0])


async def resolve(
    host: str, port: int, allowed: Sequence[Network], *, resolver: Resolver | None = None
) -> list[Target]:
    """The permitted addresses of `host`, in the resolver's order.

    Raises Forbidden when there are only others, OSError (mostly socket.gaierror) when there are none.
    How long DNS may take is the caller's to bound.
    """
    spelled = hosts.literal(host)
    if spelled is not None:
        found = [_target(str(spelled), port)]
    else:
        answers = await (resolver or _system)(host, port)
        found = list(dict.fromkeys(Target(answer[0], tuple(answer[4])) for answer in answers))
    permitted = [target for target in found if not _reason(target, allowed)]
    if permitted:
        return permitted
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    raise Forbidden(host, found[0].address, _reason(found[0], allowed))


def check(family: int, sockaddr: SockAddr, allowed: Sequence[Network], *, inside: bool = False) -> None:
    """The last look at an address, where a library resolves names by itself. Raises Forbidden.

    `inside`: what is said is for networks that the operator opened, and for no other.
    """
    target = Target(family, sockaddr)
    reason = _reason(target, allowed)
    if not reason and inside and not hosts.opened(_address(target), allowed):
        reason = "without TLS (http://) it is for networks that the operator allows"
    if reason:
        raise Forbidden(target.address, target.address, reason)


async def _system(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """The system's resolver in a thread of its own: names that hang take none of the loop's few threads.

    A connector of HTTP asks once for a name, and leases and mailboxes are bounded, and so are names that hang.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[tuple[Any, ...]]] = loop.create_future()

    def tell(found: Sequence[tuple[Any, ...]] | Exception) -> None:
        if future.done():
            return
        future.set_exception(found) if isinstance(found, Exception) else future.set_result(found)

    def look_up() -> None:
        found: Sequence[tuple[Any, ...]] | Exception
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:  # a label of more than 63 characters
            found = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except OSError as fault:
            found = fault
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=look_up, name="dns", daemon=True).start()
    return await future


def _target(address: str, port: int) -> Target:
    if ":" in address:
        return Target(socket.AF_INET6, (address, port, 0, 0))
    return Target(socket.AF_INET, (address, port))


def _reason(target: Target, allowed: Sequence[Network]) -> str:
    if target.family not in (socket.AF_INET, socket.AF_INET6):
        return "not an Internet address"
    return hosts.judge(_address(target), allowed)


def _address(target: Target) -> Address:
    return ip_address(target.address.partition("%")[0])
