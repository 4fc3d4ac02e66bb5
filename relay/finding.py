"""Finds a mail in its owner's mailbox: where it was, else by its Message-ID, wherever it went since.

All of it raises MailboxError where that cannot be told; None means that the mail is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relay.core import original, place
from relay.core.folders import Folder, Use, special
from relay.core.place import Place
from relay.net.imap import Mailbox, MailboxError, Selected

MOST_FOLDERS = 100  # that are searched
PASSING = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CORRUPTION"})
"""Response codes (RFC 5530) of a folder that is there, and cannot be looked into now."""


async def find(mailbox: Mailbox, word: str, message_id: str = "", *, readonly: bool = True) -> Place | None:
    """By `word`: an id of ours, or a Message-ID in its brackets. Its folder is selected then.

    With `message_id` it must be that one, and is looked for by it where it is not at its place any more.
    """
    if is_message_id(word):
        return None if message_id not in ("", word) else await hunt(mailbox, word, readonly=readonly)
    known = _known(word)
    if known is not None and await stands(mailbox, known, message_id, readonly=readonly):
        return known
    near = known.path if known is not None else ""
    return await hunt(mailbox, message_id, near, readonly=readonly) if message_id else None


def is_message_id(word: str) -> bool:
    return word.startswith("<") and word.endswith(">")


async def stands(mailbox: Mailbox, known: Place, message_id: str = "", *, readonly: bool = True) -> bool:
    """It is where it was, as far as UIDVALIDITY and Message-ID tell. Its folder is selected then."""
    selected = await _selected(mailbox, known.path, readonly)
    if selected is None or selected.uidvalidity != known.uidvalidity:
        return False
    found = await mailbox.headers([known.uid], ("Message-ID",))
    if known.uid not in found:
        return False
    return not message_id or original.read(found[known.uid]).message_id == message_id


async def hunt(mailbox: Mailbox, message_id: str, near: str = "", *, readonly: bool = True) -> Place | None:
    """Wherever it is, likely places first; its folder is selected then. The newest, where there are several.

    Raises MailboxError where no folder has it and one would not be searched.
    """
    doubt: MailboxError | None = None
    for path in likely(await mailbox.folders(), near, all_mail=mailbox.gmail)[:MOST_FOLDERS]:
        try:
            selected = await _selected(mailbox, path, readonly)
            uids = await mailbox.find(message_id) if selected is not None and selected.exists else []
        except MailboxError as fault:
            if not mailbox.alive:
                raise
            doubt = fault
            continue
        if selected is not None and uids:
            return Place(path, selected.uidvalidity, uids[-1])
    if doubt is not None:
        raise doubt
    return None


def likely(folders: Sequence[Folder], near: str, *, all_mail: bool) -> list[str]:
    """The paths to search, the likeliest first. `all_mail`: the folder of that use has all but junk and trash."""
    uses = {use: found.folder.path for use, found in special(folders).items()}
    first = [near, "INBOX", uses.get(Use.ALL, ""), uses.get(Use.SENT, "")]
    last = [uses.get(use, "") for use in (Use.DRAFTS, Use.JUNK, Use.TRASH)]
    there = {folder.path for folder in folders if folder.selectable}
    whole = all_mail and Use.ALL in uses
    rest: Iterable[str] = () if whole else (folder.path for folder in folders if folder.selectable and folder.personal)
    middle = [path for path in rest if path not in last]
    ordered = dict.fromkeys(path for path in (*first, *middle, *last) if path in there or path == "INBOX")
    return list(ordered)


def _known(word: str) -> Place | None:
    try:
        return place.read(word)
    except ValueError:
        return None


async def _selected(mailbox: Mailbox, path: str, readonly: bool) -> Selected | None:
    """None: there is no such folder, or none for us."""
    try:
        return await mailbox.select(path, readonly=readonly)
    except MailboxError as fault:
        if fault.kind != "refused" or fault.code in PASSING:
            raise
        return None
