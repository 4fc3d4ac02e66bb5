"""A disk that is small enough to be filled, for the database of a run."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.chaos import apart

MOST = 640  # MB


class Disk:
    """A folder, on a file system of its own where that is possible (`small`): seen by us alone, and gone with us.

    It is to be made before any thread is started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.small = self._mounted()

    def fill(self) -> None:
        """Not a byte is left."""
        assert self.small
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(1 << 20))

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def remove(self) -> None:
        """With all that is on it. What is still in use goes with its user."""
        if self.small:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mounted(self) -> bool:
        try:
            apart.leave(apart.NEW_MOUNTS)
        except PermissionError:
            return False
        tmpfs = ["-t", "tmpfs", "-o", f"size={MOST}m,mode=0700", "postferry-chaos", str(self.folder)]
        return not any(
            subprocess.run(["mount", *words], capture_output=True).returncode
            for words in (["--make-rprivate", "/"], tmpfs)
        )
