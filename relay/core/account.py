"""An account's settings as the API speaks them: merged, judged side by side, and built into an Account.

Settings travel flat, by the dotted names of their leaves: `{"smtp.host": "mail.example.com", "smtp.port": 587}`. So a
change is a merge of two dicts, and a secret is a key.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from relay.core import hosts, mailgunsettings, oauthsettings
from relay.core.accountfields import BEARER, MODES
from relay.core.accountfields import COPY as COPY
from relay.core.accountfields import ID as ID
from relay.core.accountfields import ID_WORDS as ID_WORDS
from relay.core.accountfields import MASK as MASK
from relay.core.accountfields import READERS as READERS
from relay.core.accountfields import SECRETS as SECRETS
from relay.core.networks import Network
from relay.core.tenant import MAILGUN, Account, AccountState, Alerts, Imap, Limits, Mailgun, OAuth2, Smtp, Tls

Fields = dict[str, Any]
UNOPENED_DAYS = "tracking.alerts.unopenedDays"
ASKED = frozenset({"tracking.alerts.unopened", UNOPENED_DAYS})


class Faulty(Exception):
    """Settings that cannot be used, and `what` they are of; `faults` has a (field, message) for each reason."""

    def __init__(self, faults: Sequence[tuple[str, str]], what: str = "The account's settings") -> None:
        super().__init__("; ".join(f"{key} {message}" for key, message in faults))
        self.faults, self.what = list(faults), what


@dataclass(frozen=True, slots=True)
class Rules:
    """What this installation allows: private networks, the sandbox, and the time zones it knows.

    `applications`: the OAuth2 providers that it has an application of its own for. `kept_days`: how long it keeps mail
    that has ended; 0 is for ever.
    """

    allowed: Sequence[Network]
    sandbox: bool
    zones: Container[str]
    applications: frozenset[str] = frozenset()
    kept_days: int = 0


def check_id(id: str) -> None:
    """Raises Faulty for what cannot be an account's id: every door takes the same ones."""
    if not re.fullmatch(ID, id):
        raise Faulty([("account", ID_WORDS)])


def change(old: Fields, given: Mapping[str, Any], rules: Rules) -> Fields:
    """`old` with `given` (as in the API's JSON) merged in.

    Null removes a field or a whole object, what is left out stays. Raises Faulty with every reason at once.
    """
    faults: list[tuple[str, str]] = []
    new = dict(old)
    for key, value in flatten(given):
        if value is None:
            new = {name: kept for name, kept in new.items() if name != key and not name.startswith(key + ".")}
        elif not (key in SECRETS and value == MASK):
            _set(new, key, value, faults)
    if not faults:
        leaves = dict(flatten(given))
        new = oauthsettings.filled(old, new, leaves)
        faults += _together(old, new, leaves, rules)
    if faults:
        raise Faulty(faults)
    return new


def _set(fields: Fields, key: str, value: Any, faults: list[tuple[str, str]]) -> None:
    try:
        if key not in READERS:
            raise ValueError("is not a known field")
        fields[key] = READERS[key](value)
    except ValueError as fault:
        faults.append((key, str(fault)))


def _together(old: Fields, new: Fields, given: Fields, rules: Rules) -> Iterator[tuple[str, str]]:
    """Faults that show only when fields are seen side by side, or against the rules of the installation."""
    if new.get("tz", "UTC") not in rules.zones:
        yield "tz", "is not a known time zone (example: Europe/Berlin)"
    if new.get("webhooks") and (reason := hosts.judge_url(new["webhooks"], rules.allowed)):
        yield "webhooks", reason
    if ASKED & given.keys():
        yield from _reminder(_alerts(new), rules.kept_days)
    for server, secure in (("smtp", new.get("smtp.secure")), ("imap", _secure_mailbox(new))):
        if secure and f"{server}.tls.mode" in new:
            fix = f"leave it out, or set {server}.secure to false"
            yield f"{server}.tls.mode", f"is for connections that start in the clear: {fix}"
    if (method := new.get("smtp.auth.method")) in BEARER and not {
        "smtp.auth.accessToken",
        "oauth2.provider",
    } & new.keys():
        yield "smtp.auth.accessToken", f"is needed for {method}"
    for server in ("smtp", "imap"):
        yield from _server(server, old, new, given, rules)

    def again(key: str) -> bool:
        return bool(given.get(key, MASK) != MASK)

    yield from oauthsettings.faults(old, new, again, rules.allowed, rules.applications)
    yield from mailgunsettings.faults(old, new, again, rules.allowed)


def _reminder(alerts: Alerts, kept_days: int) -> Iterator[tuple[str, str]]:
    if alerts.unopened and 0 < kept_days <= alerts.unopened_days:
        why = f"mail is kept for {kept_days} days (POSTFERRY_RETENTION_DAYS), and nobody would be told"
        yield "tracking.alerts.unopenedDays", f"must be less than {kept_days}: {why}"


def _server(server: str, old: Fields, new: Fields, given: Fields, rules: Rules) -> Iterator[tuple[str, str]]:
    host, secrets = new.get(f"{server}.host"), [key for key in new if key in SECRETS and key.startswith(server)]
    if host is None:
        if any(key.startswith(server + ".") for key in new) and not new.get(f"{server}.disabled"):
            yield f"{server}.host", "is missing"
        return
    if secrets and not (new.get(f"{server}.auth.user") or oauthsettings.login(new)):
        yield f"{server}.auth.user", "is missing"
    reason = "" if host == "sandbox" and rules.sandbox else hosts.judge_literal(host, rules.allowed)
    if reason:
        yield (
            f"{server}.host",
            f"is {hosts.an(reason)}, refused unless the operator allows it with POSTFERRY_ALLOW_NETWORKS",
        )
    # A secret stays with the host it was given for: else whoever may change the host could have it sent to his own.
    for key in secrets:
        if key in old and given.get(key, MASK) == MASK:
            if old.get(f"{server}.host") != host:
                yield key, f"must be given again, since {server}.host changes"
            elif _protected(server, old) and not _protected(server, new):
                yield key, f"must be given again, since {server} would do without TLS, or without a certificate"


def _protected(server: str, fields: Fields) -> bool:
    """Whether what is said to it is encrypted, to nobody but the host that the certificate names."""
    secure = fields.get(f"{server}.secure", server == "imap" and fields.get(f"{server}.port", 993) == 993)
    encrypted = secure or fields.get(f"{server}.tls.mode") == "required"
    return bool(encrypted and fields.get(f"{server}.tls.rejectUnauthorized", True))


def build(account: str, state: AccountState, reason: str, fields: Fields) -> Account:
    """The account as the rest of the relay sees it."""
    return Account(
        id=account,
        name=fields.get("name", ""),
        email=fields.get("email", ""),
        state=state,
        smtp=_smtp(fields) if "smtp.host" in fields else None,
        imap=_imap(fields) if "imap.host" in fields and not fields.get("imap.disabled") else None,
        mailgun=_mailgun(fields) if "mailgun.domain" in fields else None,
        oauth2=_oauth2(fields) if "oauth2.provider" in fields else None,
        limits=_limits(fields),
        track_opens=fields.get("tracking.opens", True),
        tz=fields.get("tz", "UTC"),
        locale=fields.get("locale", "en"),
        copy=COPY[fields.get("copy", "auto")],
        own=tuple(map(ip_network, fields.get("tracking.own", ()))),
        alerts=_alerts(fields),
        reason=reason,
    )


def _smtp(fields: Fields) -> Smtp:
    secure = fields.get("smtp.secure", False)
    return Smtp(
        host=fields["smtp.host"],
        port=fields.get("smtp.port", 465 if secure else 587),
        tls=Tls.IMPLICIT if secure else MODES[fields.get("smtp.tls.mode", "opportunistic")],
        user=fields.get("smtp.auth.user") or oauthsettings.login(fields),
        password=fields.get("smtp.auth.pass", ""),
        access_token=fields.get("smtp.auth.accessToken", ""),
        verify_certificate=fields.get("smtp.tls.rejectUnauthorized", True),
        auth_method=fields.get("smtp.auth.method", ""),
        name=fields.get("smtp.tls.name", ""),
    )


def _imap(fields: Fields) -> Imap:
    secure = _secure_mailbox(fields)
    return Imap(
        host=fields["imap.host"],
        port=fields.get("imap.port", 993 if secure else 143),
        tls=Tls.IMPLICIT if secure else MODES[fields.get("imap.tls.mode", "opportunistic")],
        user=fields.get("imap.auth.user") or oauthsettings.login(fields),
        password=fields.get("imap.auth.pass", ""),
        access_token=fields.get("imap.auth.accessToken", ""),
        verify_certificate=fields.get("imap.tls.rejectUnauthorized", True),
        sent_path=fields.get("imap.sentMailPath", ""),
        watch=fields.get("imap.watch", True),
        idle=fields.get("imap.idle", False),
    )


def _mailgun(fields: Fields) -> Mailgun:
    return Mailgun(
        domain=fields["mailgun.domain"],
        api_key=fields.get("mailgun.apiKey", ""),
        base_url=fields.get("mailgun.baseUrl", MAILGUN),
        test=fields.get("mailgun.test", False),
    )


def _oauth2(fields: Fields) -> OAuth2:
    return OAuth2(
        provider=fields["oauth2.provider"],
        user=oauthsettings.login(fields),
        client_id=fields.get("oauth2.clientId", ""),
        client_secret=fields.get("oauth2.clientSecret", ""),
        refresh_token=fields.get("oauth2.refreshToken", ""),
        tenant=fields.get("oauth2.tenant", "common"),
        issuer=fields.get("oauth2.issuer", ""),
        authorize_url=fields.get("oauth2.authorizeUrl", ""),
        token_url=fields.get("oauth2.tokenUrl", ""),
        scopes=tuple(fields.get("oauth2.scopes", ())),
    )


def _secure_mailbox(fields: Fields) -> bool:
    """As it says; TLS from the first byte where the port is 993 or left out."""
    return bool(fields.get("imap.secure", fields.get("imap.port", 993) == 993))


def _alerts(fields: Fields) -> Alerts:
    return Alerts(
        opened=fields.get("tracking.alerts.opened", False),
        unopened=fields.get("tracking.alerts.unopened", False),
        unopened_mail=fields.get("tracking.alerts.unopenedMail", False),
        unopened_days=fields.get(UNOPENED_DAYS, 3),
        to=fields.get("tracking.alerts.to", ""),
    )


def _limits(fields: Fields) -> Limits:
    return Limits(
        per_minute=fields.get("limits.perMinute"),
        per_hour=fields.get("limits.perHour"),
        per_day=fields.get("limits.perDay"),
        connections=fields.get("limits.connections", 5),
        messages_per_connection=fields.get("limits.messagesPerConnection", 100),
    )


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of the API's JSON by their dotted names."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The other way: dotted names to the API's JSON."""
    nested: dict[str, Any] = {}
    for key, value in fields.items():
        *folders, leaf = key.split(".")
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return nested
