"""The data folder of `postferry up`: who holds it, the keys made once, and what the other commands find there."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CLEANING = 40.0  # seconds the processes of a killed `up` have to end


class Held(Exception):
    """Another `postferry up` has this folder; `pid` is its process, 0 when that is not known."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"in use by process {pid}")
        self.pid = pid


class DataFolder:
    """One folder, private to its user; everything that `up` keeps is below it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = self._folder("logs")
        self.run = self._folder("run")
        self.sandbox = self._folder("sandbox")

    def hold(self, waiting: Callable[[], None]) -> int:
        """Takes the folder for this process; raises Held. Returns the descriptor that its guardian has to keep open.

        Two locks: the first tells that an `up` runs, the second, shared with the guardian, that some process of one
        still does. They are the kernel's, so a crash leaves nothing to clean up; `waiting` is called when a killed
        `up` has left processes that are just being stopped.
        """
        mine = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(mine):
            raise Held(int(os.read(mine, 20) or 0))
        os.truncate(mine, 0)
        os.write(mine, str(os.getpid()).encode())
        shared = os.open(self.path / "lock.children", os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(shared):
            waiting()
            until = time.monotonic() + CLEANING
            while not _lock(shared):
                if time.monotonic() > until:
                    raise Held(0)
                time.sleep(0.05)
        return shared

    def secret_keys(self) -> str:
        """The key that encrypts secrets at rest: made once."""
        kept = self.path / "secret.keys"
        if not kept.exists():
            write_private(kept, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
        return ",".join(kept.read_text().split())

    @property
    def admin_token(self) -> Path:
        return self.path / "admin.token"

    def fresh_metrics(self) -> Path:
        """An empty folder for the metrics of this run's processes."""
        shutil.rmtree(self.path / "metrics", ignore_errors=True)
        return self._folder("metrics")

    def tell_commands(self, environ: Mapping[str, str]) -> None:
        """Writes down what `postferry send` and the others need to reach this installation."""
        write_private(self.path / "env", "".join(f"{name}={value}\n" for name, value in environ.items()))

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, for nobody else's eyes."""
    growing = path.with_name(path.name + ".new")
    growing.unlink(missing_ok=True)
    with os.fdopen(os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    growing.replace(path)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
