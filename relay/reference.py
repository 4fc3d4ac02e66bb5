"""What a message refers to: the original of a reply or forward, fetched from the mailbox, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo

from relay.core import pixel
from relay.core.errors import MailboxAway, Refused
from relay.core.model import Answered
from relay.core.original import read
from relay.core.place import spell
from relay.core.tenant import Account
from relay.core.thread import FLAGS, Action, Made, Mine, Wish, make, naming
from relay.finding import find, is_message_id
from relay.net.imap import Mailbox
from relay.visiting import NoMailbox

T = TypeVar("T")
GONE = "MessageNotFound"
_PIXEL = re.compile(r"/t/([A-Za-z0-9_-]{32})\.gif(?:[?#].*)?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the caller says of the original. `message`: an id of ours, or a Message-ID in its brackets."""

    message: str
    action: Action = Action.REPLY
    inline: bool = False
    attachments: bool = False  # of a forward
    ignore_missing: bool = False
    message_id: str = ""  # that it must have; "" = any

    @property
    def whole(self) -> bool:
        """More of the original is needed than its header."""
        return self.inline or (self.attachments and self.action is Action.FORWARD)

    @property
    def missing(self) -> Answered:
        """As far as it is known without having been found."""
        by_id = is_message_id(self.message)
        return Answered(
            place="" if by_id else self.message,
            flag=FLAGS[self.action],
            message_id=self.message if by_id else self.message_id,
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """The original, or its header alone."""

    place: str
    raw: bytes = field(repr=False)


async def fetch(mailbox: Mailbox, reference: Reference, most: int) -> Fetched | None:
    """None: it is not there. Raises MailboxError; Refused for one of more than `most` bytes, where all are needed."""
    place = await find(mailbox, reference.message, reference.message_id)
    if place is None:
        return None
    if not reference.whole:
        header = (await mailbox.headers([place.uid])).get(place.uid)
        return None if header is None else Fetched(spell(place), header)
    brief = (await mailbox.briefs([place.uid])).get(place.uid)
    if brief is not None and brief.size > most:
        raise Refused(
            f"The referenced message has {brief.size} bytes, more than the {most} that are quoted or forwarded here;"
            " leave out inline and forwardAttachments",
            status=413,
            key="reference.message",
            code="ReferenceTooLarge",
        )
    content = await mailbox.content(place.uid, most) if brief is not None else None
    return None if content is None else Fetched(spell(place), content)


class Visits(Protocol):
    """Whoever lends mailboxes to those who wait."""

    def to(self, account: str) -> AbstractAsyncContextManager[Mailbox]: ...

    async def read(self, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Referred:
    """What came of a reference. `made` is None where the message is there already; `error`: why it goes without."""

    made: Made | None = None
    answers: Answered | None = None
    everybody: bool = False  # the recipients named come to those of the original
    error: str = ""
    missing: bool = False  # it is gone, for all we know


NOTHING = Referred()


async def refer(
    visits: Visits, account: str, reference: Reference, mine: Mine | None, wish: Wish, most: int
) -> Referred:
    """The original's part in a message; `mine` is None for one that is composed already, which gets none but the flag.

    Raises MailboxAway and NoMailbox; Refused where the original is gone or too large. With `ignore_missing` what is
    gone or away is done without; what is away may be flagged when it is back.
    """
    if mine is None:
        reference = replace(reference, inline=False, attachments=False)
    everybody = reference.action is Action.REPLY_ALL
    open_ = None if mine is None else without(reference, mine)
    try:
        async with visits.to(account) as mailbox:
            fetched = await fetch(mailbox, reference, most)
    except (MailboxAway, NoMailbox) as fault:
        if not reference.ignore_missing:
            raise
        answers = reference.missing if isinstance(fault, MailboxAway) else None
        return Referred(open_, answers, everybody, error=fault.message)
    if fetched is None:
        refused = gone(reference)
        if not reference.ignore_missing:
            raise refused
        return Referred(open_, None, everybody, error=refused.message, missing=True)
    made, answers = await visits.read(lambda: compose(fetched, reference, mine, wish))
    return Referred(made, answers, everybody)


def compose(fetched: Fetched, reference: Reference, mine: Mine | None, wish: Wish) -> tuple[Made | None, Answered]:
    """What follows from the original. It may take a second or two: not for the event loop."""
    original = read(fetched.raw)
    answers = Answered(fetched.place, FLAGS[reference.action], original.message_id)
    return (make(original, mine, wish) if mine is not None else None), answers


def without(reference: Reference, mine: Mine) -> Made:
    """What follows where there is no original: its thread, if that is known."""
    return Made(
        subject="",
        to=(),
        cc=(),
        headers=naming(reference.missing.message_id),
        text=mine.text,
        html=mine.html,
        attachments=(),
    )


def gone(reference: Reference) -> Refused:
    what = "no folder has it" if is_message_id(reference.message) else "it was deleted or moved, or is no id of ours"
    fix = "" if reference.ignore_missing else "; with ignoreMissing: true the message goes without it"
    message = f"The referenced message was not found: {what}{fix}"
    return Refused(message, status=404, key="reference.message", code=GONE)


def wish(reference: Reference, zone: str, pixels: Callable[[str], bool]) -> Wish:
    """What is wanted of the original; `zone` must be a time zone that there is."""
    return Wish(reference.action, reference.inline, reference.attachments, ZoneInfo(zone), pixels)


def own(account: Account, *senders: str) -> Collection[str]:
    """The addresses that are the account's, lower case."""
    users = [server.user for server in (account.smtp, account.imap, account.oauth2) if server is not None]
    return frozenset(one.lower() for one in (account.email, *senders, *users) if "@" in one)


def pixels(public_url: str, keys: Sequence[bytes]) -> Callable[[str], bool]:
    """Which pictures are pixels of ours: by where they are, or by our signature, wherever that is now."""
    home = f"{public_url.rstrip('/')}/t/"

    def ours(url: str) -> bool:
        found = _PIXEL.search(url)
        return found is not None and (url.startswith(home) or pixel.read(keys, found[1]) is not None)

    return ours
