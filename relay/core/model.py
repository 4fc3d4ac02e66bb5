"""The vocabulary as types: states and their transitions, and the values that travel between the rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID


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


class AccountState(StrEnum):
    """ACTIVE sends. PAUSED was stopped by an operator. REFUSED had its login refused upstream: retried slowly."""

    ACTIVE = "active"
    PAUSED = "paused"
    REFUSED = "refused"


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


class Tls(StrEnum):
    """How the connection to an account's server is protected."""

    IMPLICIT = "implicit"  # TLS from the first byte (465, 993)
    STARTTLS = "starttls"  # refused when the server does not offer it
    OPPORTUNISTIC = "opportunistic"  # STARTTLS when offered
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Smtp:
    """An account's upstream. `password` and `access_token` are secrets: never shown, never logged."""

    host: str
    port: int
    tls: Tls = Tls.OPPORTUNISTIC
    user: str = ""
    password: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    verify_certificate: bool = True
    auth_method: str = ""  # "" = the best that upstream offers; else plain, login, cram-md5, xoauth2, oauthbearer
    name: str = ""  # what we say in EHLO; "" = this host's name

    @property
    def label(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Imap:
    """An account's mailbox. `password` and `access_token` are secrets: never shown, never logged."""

    host: str
    port: int = 993
    tls: Tls = Tls.IMPLICIT
    user: str = ""
    password: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    verify_certificate: bool = True
    sent_path: str = ""  # the folder of sent mail; "" = it is found
    watch: bool = True  # look for reports about sent mail
    idle: bool = False  # ... by a connection that stays, rather than now and then


class Copy(StrEnum):
    """What becomes of the Sent copy."""

    AUTO = "auto"  # as the provider does: replace where it files what is sent, append where it does not
    APPEND = "append"
    REPLACE = "replace"  # the provider's copies give way to one of ours
    NONE = "none"


MAILGUN, MAILGUN_EU = "https://api.mailgun.net", "https://api.eu.mailgun.net"
"""Its two regions: that in the US, and that in the EU."""


@dataclass(frozen=True, slots=True)
class Mailgun:
    """An account's Mailgun domain. `api_key` and `signing_key` are secrets: never shown, never logged."""

    domain: str
    api_key: str = field(default="", repr=False)
    base_url: str = MAILGUN
    signing_key: str = field(default="", repr=False)  # of its webhooks; "" = none are taken
    test: bool = False  # Mailgun takes the mail and delivers none of it

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.base_url).port or (443 if self.guarded else 80)

    @property
    def guarded(self) -> bool:
        """TLS is spoken."""
        return self.base_url.startswith("https://")

    @property
    def label(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class OAuth2:
    """How an account's access tokens are had. `client_secret` and `refresh_token` are secrets."""

    provider: str  # google, microsoft or custom
    user: str = ""
    client_id: str = ""  # "" = the installation's own, for google and microsoft
    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    tenant: str = "common"  # Microsoft's
    issuer: str = ""  # custom: its endpoints are discovered there, unless they are given
    authorize_url: str = ""
    token_url: str = ""
    scopes: tuple[str, ...] = ()  # () = the provider's usual ones


@dataclass(frozen=True, slots=True)
class Limits:
    """Sliding limits and connection limits; None = without limit."""

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    connections: int = 5
    messages_per_connection: int = 100

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """(seconds, most) for each sliding window that is set."""
        pairs = ((60, self.per_minute), (3600, self.per_hour), (86400, self.per_day))
        return tuple((seconds, most) for seconds, most in pairs if most is not None)


@dataclass(frozen=True, slots=True)
class Alerts:
    """What an account wants to be told about opens. Mail goes to `to`, else to the account's own address."""

    opened: bool = False  # a mail at the first open
    unopened: bool = False  # an event when nobody opened it within `unopened_days`
    unopened_mail: bool = False  # ... and a mail
    unopened_days: int = 3
    to: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant: identity, upstream, mailbox, limits."""

    id: str
    name: str
    email: str
    state: AccountState
    smtp: Smtp | None
    limits: Limits
    track_opens: bool
    tz: str = "UTC"
    locale: str = "en"
    copy: Copy = Copy.AUTO
    own: tuple[IPv4Network | IPv6Network, ...] = ()  # where the sender's own looks come from
    alerts: Alerts = Alerts()
    reason: str = ""  # why it is paused or refused
    updated_at: datetime | None = None  # of its settings
    imap: Imap | None = None  # None: there is none, or it is switched off
    mailgun: Mailgun | None = None
    oauth2: OAuth2 | None = None
    suppresses: bool = False  # some address is suppressed, or was
    had_upstream: bool = False  # it was taken away since: mail is accepted, and waits for a new one

    @property
    def upstream(self) -> Smtp | Mailgun | None:
        """Where its mail goes."""
        return self.mailgun or self.smtp

    @property
    def never_configured(self) -> bool:
        """Nobody has ever said where its mail goes: it cannot be accepted."""
        return self.upstream is None and not self.had_upstream


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
