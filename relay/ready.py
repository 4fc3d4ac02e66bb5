"""A role says that it serves now: systemd's notify protocol, which `postferry up` speaks too."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"


def announce() -> None:
    """Tells whoever started this process that it takes work. Harmless twice, and when nobody wants to know."""
    where = os.environ.get(VARIABLE)
    if not where:
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(b"READY=1", address)


class Notice:
    """The other side: one socket for each process that is started."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> bool:
        """Whether the process has announced itself since this was last asked."""
        with contextlib.suppress(BlockingIOError):
            return any(b"READY=1" in line for line in self._socket.recv(4096).splitlines())
        return False

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)
