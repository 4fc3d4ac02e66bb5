"""Which folder of a mailbox is which: by its special use (RFC 6154), else by the names that mail programs give it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.core import foldernames
from relay.core.foldernames import listed


class Use(StrEnum):
    """What a folder is for."""

    SENT = "sent"
    TRASH = "trash"
    DRAFTS = "drafts"
    JUNK = "junk"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Folder:
    """One line of LIST. `flags` in lower case; `personal`: the mailbox's own, not another user's nor shared."""

    path: str
    delimiter: str = ""  # "": the mailbox has no tree
    flags: frozenset[str] = frozenset()
    personal: bool = True

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(self.delimiter)[2] if self.delimiter else self.path

    @property
    def parent(self) -> str:
        return self.path.rpartition(self.delimiter)[0] if self.delimiter else ""

    @property
    def selectable(self) -> bool:
        return not self.flags & UNSELECTABLE


@dataclass(frozen=True, slots=True)
class Found:
    """A folder with a use. `flagged`: the server says so; else its name does."""

    folder: Folder
    flagged: bool


UNSELECTABLE = frozenset({"\\noselect", "\\nonexistent"})  # RFC 3501 7.2.2, RFC 5258 3

FLAGS: Mapping[Use, frozenset[str]] = {
    Use.SENT: frozenset({"\\sent"}),
    Use.TRASH: frozenset({"\\trash"}),
    Use.DRAFTS: frozenset({"\\drafts"}),
    Use.JUNK: frozenset({"\\junk", "\\spam"}),
    Use.ALL: frozenset({"\\all", "\\allmail"}),
}
"""RFC 6154 2, and the spellings of XLIST, which came before it."""

NAMES: Mapping[Use, tuple[str, ...]] = {
    Use.SENT: listed(foldernames.SENT),
    Use.TRASH: listed(foldernames.TRASH),
    Use.DRAFTS: listed(foldernames.DRAFTS),
    Use.JUNK: listed(foldernames.JUNK),
    Use.ALL: listed(foldernames.ALL),
}

_SPACE = re.compile(r"[\s_]+")


def special(folders: Iterable[Folder]) -> dict[Use, Found]:
    """The folder of each use, those that there are. A flag counts more than a name, and no folder has two uses.

    Where a folder's flag and its name say different things, the server is set up wrongly: such a folder comes after
    all others, and then it is what people see that it is called.
    """
    mine = [folder for folder in folders if folder.personal and folder.selectable and folder.path.upper() != "INBOX"]
    odd: list[Folder] = []
    plain: list[Folder] = []
    for folder in mine:
        (odd if _contradicts(folder) else plain).append(folder)
    found: dict[Use, Found] = {}
    for flagged, among in ((True, plain), (False, plain), (False, odd), (True, odd)):
        for use in Use:
            taken = {one.folder.path for one in found.values()}
            left = [folder for folder in among if folder.path not in taken]
            fitting = _flagged(use, left) if flagged else _named(use, left)
            if use not in found and fitting:
                found[use] = Found(fitting[0], flagged)
    return found


def _contradicts(folder: Folder) -> bool:
    flagged = {use for use in Use if folder.flags & FLAGS[use]}
    named = {use for use in Use if _rank(use, folder) is not None} if flagged else set()
    return bool(named and not named & flagged)


def _flagged(use: Use, folders: Sequence[Folder]) -> list[Folder]:
    """Best first: of several with the flag, the one whose name agrees, then the one nearest to the root."""
    fitting = [folder for folder in folders if folder.flags & FLAGS[use]]
    return sorted(fitting, key=lambda folder: (_rank(use, folder) is None, _depth(folder)))


def _named(use: Use, folders: Sequence[Folder]) -> list[Folder]:
    """Best first: near the root, by the likeliest name."""
    fitting = [
        (_depth(folder), rank, folder.path, folder)
        for folder in folders
        if _depth(folder) <= 1 and (rank := _rank(use, folder)) is not None
    ]
    return [folder for *_, folder in sorted(fitting, key=lambda one: one[:3])]


def _depth(folder: Folder) -> int:
    """Folders above it. INBOX and [Gmail] are no depth of their own: some servers put everything below them."""
    if not folder.delimiter:
        return 0
    above = [part for part in folder.path.split(folder.delimiter)[:-1] if part]
    return len(above) - bool(above and (above[0].upper() == "INBOX" or above[0].startswith("[")))


def _rank(use: Use, folder: Folder) -> int | None:
    return _RANKS[use].get(_plain(folder.name))


def _plain(name: str) -> str:
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", name)).strip().casefold()


_RANKS = {use: {_plain(name): rank for rank, name in reversed(list(enumerate(names)))} for use, names in NAMES.items()}
