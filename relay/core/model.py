"""Mail as types: states of deliveries and their transitions, and the values that travel between the rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Literal
from uuid import UUID

from relay.core.tenant import Account, Copy


class State(StrEnum):
    """Where a delivery is. A message's status is derived from its deliveries'."""

    QUEUED = "queued"
    LEASED = "leased"
    DEFERRED = "deferred"
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.LEASED, State.CANCELLED, State.FAILED}),
    State.LEASED: frozenset({State.SENT, State.DEFERRED, State.FAILED, State.QUEUED}),
    State.DEFERRED: frozenset({State.LEASED, State.CANCELLED, State.FAILED}),
    State.SENT: frozenset({State.BOUNCED, State.COMPLAINED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset(),
    State.BOUNCED: frozenset(),
    State.COMPLAINED: frozenset(),
}
"""The one table. leased -> queued is a hold or an expired lease; failed -> queued is a replay."""

DELIVERED = (State.SENT, State.BOUNCED, State.COMPLAINED)
"""Upstream took it: what was reported after changes nothing of that."""


def sources(target: State) -> tuple[State, ...]:
    """The states from which `target` may be reached: what a guarded UPDATE names in its WHERE."""
    return tuple(state for state, targets in TRANSITIONS.items() if target in targets)


class Outcome(StrEnum):
    """Our reading of a try. UNKNOWN is a reply lost after the final dot: it may have been sent, and is tried again."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    HELD = "held"
    UNKNOWN = "unknown"


class Priority(IntEnum):
    """Classes of one account's mail; the smaller goes first."""

    HIGH = 0
    NORMAL = 1
    BULK = 2

    @classmethod
    def named(cls, name: str) -> Priority:
        """`high`, `normal` or `bulk`; anything else raises ValueError naming the three."""
        try:
            return cls[name.strip().upper()]
        except KeyError:
            raise ValueError("priority must be high, normal or bulk") from None

    @property
    def label(self) -> str:
        return self.name.lower()


class EventType(StrEnum):
    """Immutable facts, each written with its state change. The names are public (docs: webhooks)."""

    MESSAGE_SENT = "messageSent"
    MESSAGE_DELIVERY_ERROR = "messageDeliveryError"
    MESSAGE_FAILED = "messageFailed"
    MESSAGE_CANCELLED = "messageCancelled"
    MESSAGE_REPLAYED = "messageReplayed"
    ACCOUNT_PAUSED = "accountPaused"
    ACCOUNT_RESUMED = "accountResumed"
    AUTHENTICATION_ERROR = "authenticationError"
    CONNECT_ERROR = "connectError"
    TRACK_OPEN = "trackOpen"
    MESSAGE_UNOPENED = "messageUnopened"
    MESSAGE_BOUNCE = "messageBounce"
    MESSAGE_COMPLAINT = "messageComplaint"
    LIST_UNSUBSCRIBE = "listUnsubscribe"  # a provider tells of a recipient who wants no more
    MESSAGE_MISSING = "messageMissing"  # a message that was to be answered or flagged is gone
    SENT_COPY_FAILED = "sentCopyFailed"  # given up: the Sent folder has none, or more than one
    WEBHOOK_DISABLED = "webhookDisabled"
    WEBHOOK_TEST = "webhookTest"  # asked for by hand, and posted to one endpoint alone


class Opener(StrEnum):
    """Who fetched a pixel. PERSON and PROXY mean that somebody looked; for a PROXY the place is unknown."""

    PERSON = "person"
    PROXY = "proxy"  # a webmail that fetches pictures when its user looks
    PREFETCH = "prefetch"  # a mail client that fetches everything, read or not
    SCANNER = "scanner"  # a security gateway
    SELF = "self"  # the sender's own look
    UNKNOWN = "unknown"

    @property
    def counts(self) -> bool:
        """It is an open by default."""
        return self in (Opener.PERSON, Opener.PROXY)

    @property
    def counts_at_all(self) -> bool:
        """It is an open where machines are asked for too."""
        return self is not Opener.SELF


@dataclass(frozen=True, slots=True)
class Splice:
    """Where one recipient's pixel goes: `content[start:end]` is replaced by the encoded pixel (see core/splice.py)."""

    start: int
    end: int
    encoding: str  # 7bit, 8bit, binary, quoted-printable, base64
    charset: str
    before: bytes = b""  # base64: decoded bytes of the opened quantum that stay before the pixel
    after: bytes = b""  # ... and after it


@dataclass(frozen=True, slots=True)
class Options:
    """What the sender asked for beside the content; None = the account's or the installation's default."""

    send_at: datetime | None = None
    attempts: int | None = None
    priority: Priority = Priority.NORMAL
    track: bool | None = None
    copy: Copy | None = None
    sent_mail_path: str | None = None
    email_type: str | None = None
    reference_type: str | None = None
    reference_id: str | None = None
    tz: str | None = None
    idempotency_key: str | None = None
    answers: Answered | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The message in the account's mailbox that this one answers or forwards, to be flagged once it is sent."""

    place: str  # its id in the API (core/place.py)
    flag: str  # \\Answered or $Forwarded
    message_id: str = ""  # its Message-ID: to find it by when it has moved


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that was read and tidied (core/mime.py): Bcc and control headers gone, missing headers added."""

    content: bytes  # RFC 5322, CRLF line ends, no dot-stuffing: what upstream gets, but for the pixel
    message_id: str  # with its angle brackets
    sender: str  # the address in From (or Sender); "" when there is none to read
    subject: str  # decoded, one line, at most 998 characters
    controls: Mapping[str, str]  # lower case, without X- or X-EE-: {"account": "a1", "send-at": "..."}
    names: Mapping[str, str]  # lower-cased address -> display name, from To and Cc
    bcc: tuple[str, ...]  # addresses of the Bcc header that was removed
    eightbit: bool  # a byte over 127 somewhere: wants 8BITMIME upstream
    smtputf8: bool  # a byte over 127 in a header: wants SMTPUTF8 upstream


@dataclass(frozen=True, slots=True)
class Submission:
    """What an application hands over, not yet stored. `recipients` alone says who receives."""

    account: Account
    ingress: str  # smtp, api, or notice: ours to the account about its mail
    sender: str  # envelope MAIL FROM; "" is the null reverse-path
    recipients: tuple[str, ...]
    mail: Mail
    options: Options = Options()
    bcc: tuple[str, ...] = ()
    body_hash: bytes = b""  # identifies the request, for idempotency


Reason = Literal["bounce", "complaint", "unsubscribe", "manual"]
"""Why an address is suppressed."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A recipient that the account sends to no longer, why, and since when."""

    recipient: str  # as the message spells it
    reason: Reason
    since: datetime
    detail: str = ""  # what the provider said


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message ready to be stored: tidied, spliced, addressed. One row of `messages` and of `bodies`."""

    id: UUID
    account: str
    ingress: str
    message_id: str  # RFC 5322 Message-ID, with its angle brackets
    sender: str
    subject: str
    recipients: tuple[str, ...]
    names: Mapping[str, str]
    bcc: tuple[str, ...]
    content: bytes
    splice: Splice | None  # None: every recipient gets the same bytes
    smtputf8: bool
    eightbit: bool
    send_at: datetime | None  # None: at once
    options: Options
    body_hash: bytes
    suppresses: bool = False  # whether its recipients are suppressed is to be asked
    suppressed: tuple[Suppressed, ...] = ()  # those of them that are: they get none of it

    @property
    def queue_id(self) -> str:
        """The public name of the message: 32 hex digits."""
        return self.id.hex


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the sender is told after COMMIT. `duplicate`: an earlier answer for the same idempotency key."""

    queue_id: str
    message_id: str
    send_at: datetime  # when it becomes due
    stored_at: datetime
    duplicate: bool = False
    suppressed: tuple[Suppressed, ...] = ()  # recipients that were skipped


@dataclass(frozen=True, slots=True)
class Leased:
    """One delivery of a lease, with what deliver needs to render and send it."""

    delivery: int
    message: UUID
    recipient: str
    sender: str
    attempts: int  # tries already made
    max_attempts: int
    accepted_at: datetime
    due_at: datetime
    expires_at: datetime
    size: int
    splice: Splice | None
    smtputf8: bool
    eightbit: bool
    message_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the outbox-to-be: an immutable fact."""

    account: str
    type: EventType
    data: Mapping[str, Any]
    delivery: int | None = None
    message: UUID | None = None
