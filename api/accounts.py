"""Accounts over HTTP: made, changed, shown without their secrets, deleted with all of their mail."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field

from api.call import Call, unknown
from api.problems import Problem
from api.shapes import AccountId, Answer, Body, Instant, Listing, Paging, Words
from api.verified import Known, known
from relay import enrol
from relay.core import account as settings_of
from relay.core.model import Account, AccountState
from relay.store import accounts, db, mailboxes, verifications
from relay.store.mailboxes import Standing

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
    connections: int | None = Field(None, description="Connections to its server at once. Default 5.")
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


class Saved(Answer):
    account: str
    state: Literal["new", "existing"]


class Deleted(Answer):
    account: str
    deleted: bool


class Shown(Answer):
    """An account. Secrets show as `******` where there is one."""

    account: str
    name: str
    email: str
    state: AccountState = Field(
        description="`active`; `paused` by an operator; `refused`: its server refuses the login, which is tried again."
    )
    reason: str = Field(description="Why it is paused or refused, or what its server last did wrong.")
    retry_at: Instant | None = Field(description="Nothing is sent before.")
    smtp: dict[str, Any] | None
    imap: dict[str, Any] | None
    mailgun: dict[str, Any] | None
    oauth2: dict[str, Any] | None = Field(description="With `refreshToken` once it is connected.")
    copy_: bool | Literal["auto", "append", "replace", "none"]
    locale: str
    tz: str
    webhooks: str | None
    limits: dict[str, Any]
    tracking: dict[str, Any]
    created: Instant
    updated: Instant


class Watch(Answer):
    """How the watch of the mailbox for bounces and complaints stands."""

    looked_at: Instant | None = Field(description="The last look that went well; null before the first.")
    next_at: Instant | None = Field(description="When it is looked at next; null while it is not watched.")
    error: str | None = Field(description="Why it could not be looked at last time; null where it could.")


class Whole(Shown):
    """An account, and how its servers fare."""

    mailbox: Watch | None = Field(description="How it is watched; null where there never was one.")
    verification: Known | None = Field(description="What the last verification found; null where there was none.")


class Accounts(Listing):
    items: list[Shown]


class Search(Paging):
    query: Words = Field("", description="Words of the id, name or email.")
    state: AccountState | None = Field(None, description="Only those in this state.")


async def create(call: Call, body: New) -> Saved:
    """Make an account, or change the one that has this id.

    400 names every field that cannot be used; then nothing was changed.
    """
    if body.account is None:
        call.check_unbound()
    id = body.account or secrets.token_hex(8)
    call.check_account(id)
    return await _save(call, id, body)


async def change(call: Call, account: AccountId, body: Change) -> Saved:
    """Change an account. A new `smtp.host` needs its secrets again: they were given for the old one."""
    call.house.directory.forget(account)
    await call.account(account)
    return await _save(call, account, body)


async def _save(call: Call, id: str, body: Change) -> Saved:
    house = call.house
    if "email" in body.model_fields_set:
        await _check_email(call, id, body.email)
    new = await enrol.save(house.pool, house.vault, house.settings, id, body.given())
    house.directory.forget(id)
    house.waker.wake(id)
    return Saved(account=id, state="new" if new else "existing")


async def _check_email(call: Call, id: str, email: str | None) -> None:
    """By its email, mail of trusted SMTP clients finds its account: who could take another's would take their mail."""
    async with db.connection(call.house.pool) as conn:
        row = await accounts.find(conn, id)
    if call.token.account is not None and (email or "").lower() != (row.email if row else ""):
        why = "This token is for one account; its email, which decides whose mail is whose, is set with one for all"
        raise Problem(403, why, code="BoundToken")


async def show(call: Call, account: AccountId) -> Whole:
    """An account's settings and state, and what was found of its servers."""
    async with db.connection(call.house.pool) as conn:
        row = await accounts.find(conn, account)
        found = await verifications.find(conn, account)
        watch = await mailboxes.find(conn, account)
    if row is None:
        raise unknown(account)
    return Whole(**dict(_shown(row)), mailbox=_watch(watch), verification=known(found))


async def delete(call: Call, account: AccountId) -> Deleted:
    """Delete an account with its tokens and all of its mail, sent or not. There is no way back."""
    deleted = await enrol.delete(call.house.pool, account)
    call.house.directory.forget(account)
    if not deleted:
        raise unknown(account)
    return Deleted(account=account, deleted=True)


async def page(call: Call, query: Search) -> Accounts:
    """All accounts, by id; a token that is bound to one sees that one."""
    at = query.after(AccountId)
    async with db.connection(call.house.pool) as conn:
        total, rows = await accounts.page(
            conn,
            account=call.narrowed(),
            query=query.query,
            state=query.state,
            after=at[2] if at else "",
            skip=query.skip,
            size=query.page_size,
            count=at is None,
        )
    total, number = at[:2] if at else (total, query.page)
    frame = query.frame(total, number, len(rows), rows[-1].id if rows else "")
    return Accounts(**frame, items=[_shown(row) for row in rows])


def _shown(row: accounts.Row) -> Shown:
    fields = row.fields(None)
    nested = settings_of.nest(fields)
    sees = settings_of.build(row.id, row.state, row.reason, fields)
    return Shown(
        account=row.id,
        name=row.name,
        email=row.email,
        state=row.state,
        reason=row.reason,
        retry_at=row.retry_at,
        smtp=nested.get("smtp"),
        imap=nested.get("imap"),
        mailgun=nested.get("mailgun"),
        oauth2=nested.get("oauth2"),
        copy_=fields.get("copy", "auto"),
        locale=sees.locale,
        tz=sees.tz,
        webhooks=fields.get("webhooks") or None,
        limits={
            "connections": sees.limits.connections,
            "messagesPerConnection": sees.limits.messages_per_connection,
            **nested.get("limits", {}),
        },
        tracking=_tracking(sees),
        created=row.created_at,
        updated=row.updated_at,
    )


def _watch(found: Standing | None) -> Watch | None:
    if found is None:
        return None
    return Watch(looked_at=found.looked_at, next_at=found.next_at, error=found.error or None)


def _tracking(account: Account) -> dict[str, Any]:
    alerts = account.alerts
    return {
        "opens": account.track_opens,
        "own": [str(network) for network in account.own],
        "alerts": {
            "opened": alerts.opened,
            "unopened": alerts.unopened,
            "unopenedDays": alerts.unopened_days,
            "unopenedMail": alerts.unopened_mail,
            "to": alerts.to or None,
        },
    }
