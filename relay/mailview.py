"""A mail of an account's mailbox, as it lies there: for whoever wants to see what an event tells of."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.core import place
from relay.core.place import Place
from relay.finding import stands
from relay.net.imap import Brief, Mailbox


@dataclass(frozen=True, slots=True)
class Mail:
    """Its place, what its folder knows of it, and its bytes: the first of them, where they are too many."""

    place: Place
    brief: Brief
    raw: bytes = field(repr=False)


class TooLarge(Exception):
    """It has `size` bytes, more than were asked for."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the message has {size} bytes")
        self.size = size


async def view(mailbox: Mailbox, id: str, most: int, *, whole: bool = False) -> Mail | None:
    """None: no mail has this id, or none any more. It is not marked as seen by this.

    Raises MailboxError; TooLarge for one of more than `most` bytes, where the `whole` is wanted.
    """
    try:
        known = place.read(id)
    except ValueError:
        return None
    if not await stands(mailbox, known):
        return None
    brief = (await mailbox.briefs([known.uid])).get(known.uid)
    if brief is not None and whole and brief.size > most:
        raise TooLarge(brief.size)
    raw = await mailbox.content(known.uid, most) if brief is not None else None
    return None if brief is None or raw is None else Mail(known, brief, raw)
