"""Which folders the Sent copy has to do with: where it belongs, where the provider files its own, where those go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.core.folders import Folder, Use, special

NAME = "Sent"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a mailbox. None where there is no such folder."""

    paths: frozenset[str]
    delimiter: str
    prefix: str  # of folders of the mailbox's own, such as INBOX.
    sent: str | None
    all: str | None
    trash: str | None

    def home(self, wanted: str) -> str | None:
        """The folder of sent mail, `wanted` being what somebody set; None: there is none, `new` says which to make."""
        if not wanted:
            return self.sent
        return next((path for path in self._spellings(wanted) if path in self.paths), None)

    def new(self, wanted: str) -> tuple[str, ...]:
        """The paths to be tried, where none is there: some servers want everything below INBOX."""
        if wanted:
            return self._spellings(wanted)[::-1]
        below = f"INBOX{self.delimiter}" if self.delimiter else ""
        return tuple(dict.fromkeys((f"{self.prefix}{NAME}", f"{below}{NAME}")))

    def _spellings(self, wanted: str) -> tuple[str, ...]:
        """As it is; with the mailbox's delimiter for what people write; below its prefix."""
        plain = wanted.replace("/", self.delimiter) if self.delimiter and self.delimiter not in wanted else wanted
        below = plain if plain.startswith(self.prefix) else self.prefix + plain
        return tuple(dict.fromkeys((wanted, plain, below)))


def lay_out(folders: Sequence[Folder]) -> Layout:
    """Which folder is which, by what the server lists."""
    uses = special(folders)
    mine = [one for one in folders if one.personal and one.path.upper() != "INBOX"]
    delimiter = next((one.delimiter for one in folders if one.delimiter), "")
    below = f"INBOX{delimiter}"
    prefix = below if delimiter and mine and all(one.path.startswith(below) for one in mine) else ""

    def path(use: Use) -> str | None:
        return uses[use].folder.path if use in uses else None

    return Layout(
        paths=frozenset(one.path for one in folders if one.selectable),
        delimiter=delimiter,
        prefix=prefix,
        sent=path(Use.SENT),
        all=path(Use.ALL),
        trash=path(Use.TRASH),
    )
