"""What tests start and put down ends with their process, even when that is killed."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.guardian import Guardian, Ward


class Keeper(Guardian):
    """A guardian with a folder, which is removed once all that it watched has ended."""

    def __init__(self, prefix: str, place: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        command = ["sh", "-c", 'read -r folder; cat; rm -rf "$folder"']
        self._remover = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)
        assert self._remover.stdin is not None
        with self._remover.stdin as told:
            told.write(f"{self.folder}\n")
            super().__init__(keep=(told.fileno(),))  # which alone keeps it open from here on

    def close(self) -> None:
        super().close()
        self._remover.wait()


@contextmanager
def kept(pid: int) -> Iterator[None]:
    """A process, and its group when it leads one, that the block looks after: killed where the block cannot."""
    guardian = Guardian()
    guardian.watch(Ward(0, pid, signal.SIGKILL, 1))
    try:
        yield
    finally:
        guardian.forget(pid)
        guardian.close()
