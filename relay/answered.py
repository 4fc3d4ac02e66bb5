r"""Flags the original of a reply or a forward, once that was sent: \Answered, $Forwarded."""

from __future__ import annotations

from uuid import UUID

from relay.core.model import Answered, Event, EventType
from relay.core.thread import FORWARDED
from relay.finding import find
from relay.net.imap import Mailbox
from relay.store import db, events


async def flag(mailbox: Mailbox, answered: Answered) -> bool:
    """Sets the flag. False: the original is gone, and nobody need try again; `tell_missing` says so.

    It is found by its Message-ID where it moved, or its folder's UIDVALIDITY is another. Some servers keep no flags of
    one's own naming: there $Forwarded cannot be, and that is all right. Raises MailboxError. May be repeated.
    """
    found = await find(mailbox, answered.place or answered.message_id, answered.message_id, readonly=False)
    if found is None:
        return False
    if answered.flag != FORWARDED or (await mailbox.select(found.path)).flags_kept:
        await mailbox.flag([found.uid], answered.flag)
    return True


async def tell_missing(conn: db.Connection, account: str, answered: Answered, message: UUID | None) -> None:
    """Writes the event messageMissing. `message`: the reply or forward, where it is stored."""
    data = {
        "id": answered.place or None,
        "messageId": answered.message_id or None,
        "queueId": message.hex if message else None,
        "flag": answered.flag,
    }
    await events.add(conn, Event(account, EventType.MESSAGE_MISSING, data, message=message))
