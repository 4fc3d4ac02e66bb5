"""Where a fake listens: a loopback port that stays its own while it is down, and to the end of its test."""

from __future__ import annotations

import socket
import weakref

HOST = "127.0.0.1"


def port_of(fake: object) -> int:
    """A port for as long as this lives: a socket that does not listen keeps it, and callers are refused.

    Given back, it might be somebody else's by the time the fake is started again, or is called in vain.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((HOST, 0))
    weakref.finalize(fake, kept.close)
    return int(kept.getsockname()[1])
