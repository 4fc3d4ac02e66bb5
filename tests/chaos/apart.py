"""Parts of the system for this process and its children alone: a network, mounts. They go with the last of them.

unshare(2) and setns(2) by their numbers, since Python has them from 3.12 on.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NEW_MOUNTS, NEW_USER, NEW_NET = 0x00020000, 0x10000000, 0x40000000
ADVICE = (
    "as root, or after `sysctl kernel.unprivileged_userns_clone=1` (on Ubuntu"
    " `kernel.apparmor_restrict_unprivileged_userns=0`), it goes; in a container, with --cap-add SYS_ADMIN"
)


def leave(what: int) -> None:
    """Puts this process apart; where it may not do so, as root of a user namespace of its own.

    To be called before any thread is started. Raises PermissionError, whose text is what to do.
    """
    user, group = os.geteuid(), os.getegid()
    if not unshare(what):
        return
    if fault := unshare(NEW_USER | what):
        raise PermissionError(fault, f"namespaces need root, or user namespaces for ordinary users: {ADVICE}")
    for name, text in (("uid_map", f"0 {user} 1"), ("setgroups", "deny"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)


def unshare(what: int) -> int:
    """0, or the number of the fault."""
    return ctypes.get_errno() if ctypes.CDLL(None, use_errno=True).unshare(what) else 0


def enter(file: int, what: int) -> None:
    """This thread goes where the file says."""
    if ctypes.CDLL(None, use_errno=True).setns(file, what):
        raise OSError(ctypes.get_errno(), "setns")
