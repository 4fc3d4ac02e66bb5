"""An account, which is a tenant: who it is, its servers, its limits, and how it fares."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from relay.core.networks import Network


class AccountState(StrEnum):
    """ACTIVE sends. PAUSED was stopped by an operator. REFUSED had its login refused upstream: retried slowly."""

    ACTIVE = "active"
    PAUSED = "paused"
    REFUSED = "refused"


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
"""Mailgun's two regions: that in the US, and that in the EU."""


@dataclass(frozen=True, slots=True)
class Mailgun:
    """An account's Mailgun domain. `api_key` is a secret: never shown, never logged."""

    domain: str
    api_key: str = field(default="", repr=False)
    base_url: str = MAILGUN
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
    own: tuple[Network, ...] = ()  # where the sender's own looks come from
    alerts: Alerts = Alerts()
    reason: str = ""  # why it is paused or refused
    updated_at: datetime | None = None  # of its settings
    created_at: datetime | None = None  # tells it from one of the same id that was removed; None: it is not stored
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
