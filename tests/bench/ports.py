"""Loopback ports: a free one, and the moment a server answers on it."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

SECONDS = 30.0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, hello: bytes = b"") -> None:
    """Return when a server on `port` says something (after `hello`); raise with the end of its log if it never does."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.sendall(hello)
                if probe.recv(1):
                    return
        except OSError:
            time.sleep(0.05)
    end = log.read_text(errors="replace")[-2000:] if log.exists() else "(it wrote no log)"
    raise RuntimeError(f"{process.args!r} does not answer on port {port}:\n{end}")
