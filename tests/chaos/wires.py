"""Hosts without a machine: network namespaces of this process alone, and lines between them that can be cut.

Nothing has a name that another run could meet, and nothing is left behind: a namespace is held by an open file of ours
and by what runs in it, and goes with the last of them, lines and all, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import apart
from tests.chaos.apart import NEW_NET

WHERE = Path("/proc/thread-self/ns/net")


class Impossible(Exception):
    """Namespaces cannot be made here; the text says what is missing."""


class Net:
    """A network namespace. `inside`: what is started there, and every socket made there, belongs to it for ever."""

    def __init__(self) -> None:
        """The one this thread is in."""
        self._file = WHERE.open("rb")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Nothing may be awaited meanwhile: other tasks of this thread would be there too."""
        with WHERE.open("rb") as before:
            apart.enter(self._file.fileno(), NEW_NET)
            try:
                yield
            finally:
                apart.enter(before.fileno(), NEW_NET)

    def ip(self, *words: str, beside: Net | None = None) -> None:
        """The command `ip` in it; `{}` among its words is the namespace `beside`."""
        pass_fds = (beside._file.fileno(),) if beside else ()
        place = f"/proc/self/fd/{pass_fds[0]}" if beside else ""
        with self.inside():
            done = subprocess.run(
                [_program(), *(word.format(place) for word in words)], capture_output=True, text=True, pass_fds=pass_fds
            )
        if done.returncode:
            raise Impossible(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Line:
    """From a host to somewhere else. Cut, it takes packets and loses them; neither end is told."""

    host: Net
    far: Net
    number: int  # of the run, from 0: its addresses follow

    @property
    def near_address(self) -> str:
        return f"10.77.{self.number}.1"

    @property
    def far_address(self) -> str:
        return f"10.77.{self.number}.2"

    def lay(self) -> None:
        peer = ("peer", "name", self._name, "address", self._hardware(2), "netns", "{}")
        self.host.ip("link", "add", self._name, "address", self._hardware(1), "type", "veth", *peer, beside=self.far)
        self.host.ip("address", "add", f"{self.near_address}/30", "dev", self._name)
        self.far.ip("address", "add", f"{self.far_address}/30", "dev", self._name)
        self.host.ip("link", "set", self._name, "up")
        self.mend()

    def cut(self) -> None:
        self.far.ip("link", "set", self._name, "down")

    def mend(self) -> None:
        """Who lives where is written down at both ends: asking for it would fail, and failing would tell."""
        self.far.ip("link", "set", self._name, "up")
        for net, address, other in ((self.host, self.far_address, 2), (self.far, self.near_address, 1)):
            known = ("lladdr", self._hardware(other), "dev", self._name, "nud", "permanent")
            net.ip("neighbour", "replace", address, *known)

    @property
    def _name(self) -> str:
        return f"line{self.number}"

    def _hardware(self, end: int) -> str:
        return f"02:00:00:00:{self.number:02x}:{end:02x}"


def leave_the_world() -> Net:
    """Puts this process in a namespace of its own, as root of a user namespace where it may not do so otherwise.

    To be called before any thread is started. Raises Impossible.
    """
    _program()
    try:
        apart.leave(NEW_NET)
    except OSError as fault:
        raise Impossible(fault.strerror or str(fault)) from fault
    world = Net()
    world.ip("link", "set", "lo", "up")
    return world


def another() -> Net:
    """A namespace beside the one this thread is in. Raises Impossible."""
    here = Net()
    with here.inside():
        if fault := apart.unshare(NEW_NET):
            raise Impossible(f"no further network namespace: {os.strerror(fault)}")
        net = Net()
    here.close()
    net.ip("link", "set", "lo", "up")
    return net


def _program() -> str:
    """Debian keeps it where ordinary users do not look."""
    found = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Impossible("the command `ip` is missing. On Debian or Ubuntu: apt install iproute2")
    return found
