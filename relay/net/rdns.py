"""Confirmed reverse DNS: the name of an address, where that name in turn leads back to the address.

Whoever owns an address may give it any name; only the owner of the name can make it lead back (RFC 1912 2.1). Asked of
the system's resolver, which blocks: in threads of its own, so that a slow DNS holds up nothing else.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import TypeVar

from relay.core.networks import Address, plain

Reverse = Callable[[str], Awaitable[str]]
Forward = Callable[[str], Awaitable[Sequence[str]]]
T = TypeVar("T")

TIMEOUT = 2.0  # s for both questions together
AT_ONCE = 16
MOST_WAITING = 500  # look-ups; who comes then is not looked up
KEPT = 10_000  # addresses
KEPT_SECONDS = 3600.0
KEPT_FAILED = 300.0  # s; a resolver may have been away

_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+(?=[a-z0-9-]*[a-z])[a-z0-9-]{1,63}")


class Names:
    """Names of addresses, remembered for an hour. `reverse` and `forward` ask the DNS; they may raise OSError."""

    def __init__(self, reverse: Reverse | None = None, forward: Forward | None = None) -> None:
        self._reverse, self._forward = reverse or _reverse, forward or _forward
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._known: dict[Address, tuple[float, str]] = {}
        self._asked: dict[Address, asyncio.Task[str]] = {}

    async def of(self, address: Address) -> str:
        """The confirmed name, in lower case; "" where there is none or it could not be had. Never raises."""
        address = plain(address)
        loop = asyncio.get_running_loop()
        until, name = self._known.get(address, (0.0, ""))
        if until > loop.time():
            return name
        task = self._asked.get(address)
        if task is None:
            if not address.is_global or len(self._asked) >= MOST_WAITING:
                return ""
            task = self._asked[address] = loop.create_task(self._find(address))
            task.add_done_callback(lambda _: self._asked.pop(address, None))
        await asyncio.wait([task])
        return "" if task.cancelled() else task.result()

    async def close(self) -> None:
        """Drops what is being asked."""
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _find(self, address: Address) -> str:
        try:
            async with asyncio.timeout(TIMEOUT), self._slots:
                name = await self._confirmed(address)
        except (OSError, TimeoutError, ValueError):  # ValueError: a name that cannot be encoded
            name = ""
        self._keep(address, name)
        return name

    async def _confirmed(self, address: Address) -> str:
        name = (await self._reverse(str(address))).lower().rstrip(".")
        if len(name) > 253 or not _HOST.fullmatch(name):
            return ""
        return name if any(_same(text, address) for text in await self._forward(name)) else ""

    def _keep(self, address: Address, name: str) -> None:
        self._known.pop(address, None)
        seconds = KEPT_SECONDS if name else KEPT_FAILED
        self._known[address] = (asyncio.get_running_loop().time() + seconds, name)
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]


def _same(text: str, address: Address) -> bool:
    try:
        return ip_address(text.partition("%")[0]) == address
    except ValueError:
        return False


async def _reverse(address: str) -> str:
    return (await _thread(lambda: socket.getnameinfo((address, 0), socket.NI_NAMEREQD)))[0]


async def _forward(name: str) -> Sequence[str]:
    found = await _thread(lambda: socket.getaddrinfo(name + ".", None, type=socket.SOCK_STREAM))
    return [str(answer[4][0]) for answer in found]


_running = threading.Semaphore(2 * AT_ONCE)  # threads, with those whose asker has given up


async def _thread(call: Callable[[], T]) -> T:
    """`call` in a thread that no process waits for at its end, as it would for those of an executor."""
    if not _running.acquire(blocking=False):
        raise TimeoutError("the resolver has not answered for too many others")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except Exception as error:
            tell(future.set_exception, error)
        else:
            tell(future.set_result, result)
        finally:
            _running.release()

    def tell(say: Callable[..., None], what: object) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if future.done() else say(what))
        except RuntimeError:  # the loop has ended
            return

    try:
        threading.Thread(target=run, name="rdns", daemon=True).start()
    except RuntimeError as fault:  # the system gives no more threads
        _running.release()
        raise OSError(str(fault)) from fault
    return await future
