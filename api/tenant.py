"""What an account is made of, as the API's JSON has it: servers, limits, tracking, and what each field means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.shapes import AccountId, Body

KEPT = "Write-only: shown as `******`; left out, or given as `******`, it stays as it is."


class Auth(Body):
    user: str | None = Field(None, description="Login name.")
    pass_: str | None = Field(None, description=f"Password. {KEPT}")
    access_token: str | None = Field(None, description=f"OAuth2 access token, where you renew it yourself. {KEPT}")


class SmtpAuth(Auth):
    method: str | None = Field(
        None,
        description="`plain`, `login`, `cram-md5`, `xoauth2` or `oauthbearer`; the best that is offered when left out.",
    )


class Tls(Body):
    reject_unauthorized: bool | None = Field(None, description="False takes any certificate. Default true.")


class StartTls(Tls):
    mode: Literal["required", "opportunistic", "none"] | None = Field(
        None,
        description="STARTTLS where `secure` is false: insist on it, use it when offered (default), or never.",
    )


class SmtpTls(StartTls):
    name: str | None = Field(None, description="The name we give in EHLO; this host's when left out.")


class Smtp(Body):
    """The account's own server, which its mail leaves through."""

    host: str | None = Field(
        None, description="Host name or address; private ones only where the operator allows them."
    )
    port: int | None = Field(None, description="465 where `secure` is true, else 587, when left out.")
    secure: bool | None = Field(None, description="True: TLS from the first byte. False: STARTTLS as `tls.mode` says.")
    auth: SmtpAuth | None = None
    tls: SmtpTls | None = None


class Imap(Body):
    """The account's mailbox: Sent copies are written there, bounces and complaints read, messages answered."""

    host: str | None = None
    port: int | None = Field(None, description="993 where `secure` is true or left out, else 143, when left out.")
    secure: bool | None = Field(
        None, description="True: TLS from the first byte, the default for port 993. False: STARTTLS as `tls.mode` says."
    )
    auth: Auth | None = None
    tls: StartTls | None = None
    sent_mail_path: str | None = Field(None, description="Folder of sent mail, where it is not found by itself.")
    watch: bool | None = Field(None, description="Look for bounces and complaints in INBOX and Junk. Default true.")
    idle: bool | None = Field(
        None, description="Watch by a connection that stays (IMAP IDLE), not now and then. Default false."
    )
    disabled: bool | None = None


class Mailgun(Body):
    """The account's Mailgun domain, instead of `smtp`: an account has one upstream."""

    domain: str | None = Field(None, description="The sending domain, e.g. `mg.example.com`.")
    api_key: str | None = Field(None, description=f"A sending key of the domain, or one of the account. {KEPT}")
    base_url: str | None = Field(
        None,
        description="Of its region: `https://api.mailgun.net` (default) or `https://api.eu.mailgun.net`. When it"
        " changes, `apiKey` must be given again.",
    )
    webhook_signing_key: str | None = Field(
        None, description=f"Checks who posts to `/v1/providers/mailgun/{{account}}`. {KEPT}"
    )
    test: bool | None = Field(None, description="Mailgun takes the mail and delivers none of it.")


class OAuth2User(Body):
    user: str | None = Field(None, description="Whose mailbox it is; the account's `email` when left out.")


class OAuth2(Body):
    """Access tokens for `smtp` and `imap`, instead of passwords.

    The servers of `google` and `microsoft` are filled in where they are left out. When provider, `issuer` or `tokenUrl`
    change, the secrets must be given again, and when a host does that is not the provider's, the refresh token.
    """

    provider: Literal["google", "microsoft", "custom"] | None = None
    auth: OAuth2User | None = None
    client_id: str | None = Field(
        None,
        description="Of your application; with google and microsoft the installation's own when left out.",
    )
    client_secret: str | None = Field(None, description=f"It goes with `clientId`. {KEPT}")
    refresh_token: str | None = Field(None, description=f"Given here, or had by `/oauth2/authorize`. {KEPT}")
    tenant: str | None = Field(None, description="Microsoft: the directory. Default `common`.")
    issuer: str | None = Field(None, description="Custom: the issuer, where both URLs are discovered.")
    authorize_url: str | None = None
    token_url: str | None = None
    scopes: list[str] | None = Field(None, description="The provider's usual ones when left out.")


class Limits(Body):
    """What the account may send, in deliveries: a message to each recipient counts. What is over waits for its turn.

    Null: no limit.
    """

    per_minute: int | None = Field(None, description="Deliveries in any 60 seconds.")
    per_hour: int | None = Field(None, description="Deliveries in any 60 minutes.")
    per_day: int | None = Field(None, description="Deliveries in any 24 hours.")
    connections: int | None = Field(None, description="Connections to its server that send at once. Default 5.")
    messages_per_connection: int | None = Field(
        None, description="Messages before a connection is made anew. Default 100."
    )


class Alerts(Body):
    """What the account is told of opens by mail, or by an event. Default: nothing."""

    opened: bool | None = Field(None, description="A mail at the first open of each message.")
    unopened: bool | None = Field(
        None, description="An event `messageUnopened` when nobody opened it within `unopenedDays`."
    )
    unopened_days: int | None = Field(None, description="1 to 365. Default 3.")
    unopened_mail: bool | None = Field(None, description="With `unopened`: a mail as well.")
    to: str | None = Field(None, description="Address of these mails; the account's own by default.")


class Tracking(Body):
    opens: bool | None = Field(
        None, description="Whether HTML mail carries a pixel unless it says so itself. Default true."
    )
    own: list[str] | None = Field(
        None,
        description="Addresses and networks of the sender's own: what is opened from there is no open.",
        examples=[["198.51.100.7", "2001:db8::/48"]],
    )
    alerts: Alerts | None = None


class Change(Body):
    """An account's settings. What is left out stays as it is; null removes a field or a whole object."""

    name: str | None = Field(None, description="Display name of mail that gives no `from`.")
    email: str | None = Field(
        None, description="Address of mail that gives no `from`; on SMTP, the sender that means it."
    )
    smtp: Smtp | None = None
    imap: Imap | None = None
    mailgun: Mailgun | None = None
    oauth2: OAuth2 | None = None
    copy_: bool | Literal["auto", "append", "replace", "none"] | None = Field(
        None,
        description="The Sent copy: `auto` does as its provider needs, `append` writes one, `replace` has it take"
        " the place of the provider's own, `none` writes none. True is `append`, false `none`. Default `auto`.",
    )
    locale: str | None = Field(None, description="Language tag, e.g. `en` or `pt-BR`.")
    tz: str | None = Field(None, description="Time zone, e.g. `Europe/Berlin`.")
    webhooks: str | None = Field(
        None, description="A URL that is told all events of the account: a managed endpoint of `/v1/webhooks`."
    )
    limits: Limits | None = None
    tracking: Tracking | None = None

    def given(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_unset=True, exclude={"account"})


class New(Change):
    account: AccountId | None = Field(None, description="The id; made up when left out or null.")
