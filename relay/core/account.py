"""An account's settings as the API speaks them: which fields there are, what each may be, which are secret.

Settings travel flat, by the dotted names of their leaves: `{"smtp.host": "mail.example.com", "smtp.port": 587}`. So a
change is a merge of two dicts, and a secret is a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from relay.core import address, hosts, mailgunsettings, oauthsettings
from relay.core.errors import Refused
from relay.core.model import MAILGUN, Account, AccountState, Alerts, Copy, Imap, Limits, Mailgun, OAuth2, Smtp, Tls

Fields = dict[str, Any]

MASK = "******"
"""What a secret looks like from outside. Given back, it means: as it was."""

SECRETS = frozenset(
    {
        *("smtp.auth.pass", "smtp.auth.accessToken", "imap.auth.pass", "imap.auth.accessToken"),
        *("mailgun.apiKey", "mailgun.webhookSigningKey", "oauth2.clientSecret", "oauth2.refreshToken"),
    }
)
ID = r"^[A-Za-z0-9][A-Za-z0-9._@+=:-]{0,127}$"
COPY: Mapping[bool | str, Copy] = {True: Copy.APPEND, False: Copy.NONE, **{copy.value: copy for copy in Copy}}
MOST_NETWORKS = 100
METHODS = ("plain", "login", "cram-md5", "xoauth2", "oauthbearer")
BEARER = ("xoauth2", "oauthbearer")
PROVIDERS = ("google", "microsoft", "custom")
MODES = {"required": Tls.STARTTLS, "opportunistic": Tls.OPPORTUNISTIC, "none": Tls.NONE}


class Faulty(Exception):
    """Settings that cannot be used, and `what` they are of; `faults` has a (field, message) for each reason."""

    def __init__(self, faults: Sequence[tuple[str, str]], what: str = "The account's settings") -> None:
        super().__init__("; ".join(f"{key} {message}" for key, message in faults))
        self.faults, self.what = list(faults), what


@dataclass(frozen=True, slots=True)
class Rules:
    """What this installation allows: private networks, the sandbox, and the time zones it knows.

    `applications`: the OAuth2 providers that it has an application of its own for.
    """

    allowed: Sequence[hosts.Network]
    sandbox: bool
    zones: Container[str]
    applications: frozenset[str] = frozenset()


def _text(most: int, least: int = 0) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise ValueError(f"must be text of {least} to {most} characters")
        if address.CONTROLS.search(value):
            raise ValueError("must not hold control characters")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value.lower()

    return read


def _copy(value: Any) -> bool | str:
    if isinstance(value, bool | str) and value in COPY:
        return value
    raise ValueError('must be "auto", "append", "replace" or "none" (true is append, false is none)')


def _matching(pattern: str, message: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(message)
        return value

    return read


def _email(value: Any) -> str:
    """Lower case: it is what an envelope sender is compared with."""
    try:
        return address.envelope(_text(320)(value)).lower() if value else ""
    except Refused as refused:
        raise ValueError(f"is not an address: {refused.message}") from None


def _base_url(value: Any) -> str:
    return mailgunsettings.bare(_text(hosts.LONGEST_URL)(value))


def _networks(value: Any) -> list[str]:
    """As text, in the one spelling that there is for each."""
    if not isinstance(value, list) or len(value) > MOST_NETWORKS:
        raise ValueError(f"must be a list of at most {MOST_NETWORKS} addresses or networks")
    try:
        return [str(ip_network(_text(64)(item), strict=False)) for item in value]
    except ValueError:
        raise ValueError('must be a list of addresses or networks such as ["198.51.100.7", "2001:db8::/48"]') from None


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 50:
        raise ValueError("must be a list of at most 50 words")
    return [_text(1000, 1)(item) for item in value]


_host = _matching(r"[\w.:-]{1,253}", "must be a host name or an address, without port or scheme")
_locale = _matching(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,4}", "must be a language tag such as en or pt-BR")
_most = _whole(1, 1_000_000_000)

READERS: Mapping[str, Callable[[Any], Any]] = {
    "name": _text(256),
    "email": _email,
    "smtp.host": _host,
    "smtp.port": _whole(1, 65535),
    "smtp.secure": _flag,
    "smtp.auth.user": _text(256),
    "smtp.auth.pass": _text(4096, 1),
    "smtp.auth.accessToken": _text(16384, 1),
    "smtp.auth.method": _choice(*METHODS),
    "smtp.tls.rejectUnauthorized": _flag,
    "smtp.tls.mode": _choice(*MODES),
    "smtp.tls.name": _host,
    "imap.host": _host,
    "imap.port": _whole(1, 65535),
    "imap.secure": _flag,
    "imap.auth.user": _text(256),
    "imap.auth.pass": _text(4096, 1),
    "imap.auth.accessToken": _text(16384, 1),
    "imap.tls.rejectUnauthorized": _flag,
    "imap.tls.mode": _choice(*MODES),
    "imap.sentMailPath": _text(1024),
    "imap.disabled": _flag,
    "imap.watch": _flag,
    "imap.idle": _flag,
    "mailgun.domain": _matching(mailgunsettings.DOMAIN, "must be a domain such as mg.example.com, in ASCII"),
    "mailgun.apiKey": _text(256, 1),
    "mailgun.baseUrl": _base_url,
    "mailgun.webhookSigningKey": _text(256, 1),
    "mailgun.test": _flag,
    "oauth2.provider": _choice(*PROVIDERS),
    "oauth2.auth.user": _text(256),
    "oauth2.clientId": _text(512),
    "oauth2.clientSecret": _text(4096, 1),
    "oauth2.refreshToken": _text(16384, 1),
    "oauth2.tenant": _matching(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}", "must be a tenant's id or domain"),
    "oauth2.issuer": _text(hosts.LONGEST_URL),
    "oauth2.authorizeUrl": _text(hosts.LONGEST_URL),
    "oauth2.tokenUrl": _text(hosts.LONGEST_URL),
    "oauth2.scopes": _texts,
    "copy": _copy,
    "locale": _locale,
    "tz": _text(64),
    "webhooks": _text(hosts.LONGEST_URL),
    "limits.perMinute": _most,
    "limits.perHour": _most,
    "limits.perDay": _most,
    "limits.connections": _whole(1, 1000),
    "limits.messagesPerConnection": _whole(1, 1_000_000),
    "tracking.opens": _flag,
    "tracking.own": _networks,
    "tracking.alerts.opened": _flag,
    "tracking.alerts.unopened": _flag,
    "tracking.alerts.unopenedMail": _flag,
    "tracking.alerts.unopenedDays": _whole(1, 365),
    "tracking.alerts.to": _email,
}
"""Every field there is, and how its value is read. A reader raises ValueError with what the value must be."""


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
    if old.get(f"{server}.host", host) != host:
        for key in secrets:
            if given.get(key, MASK) == MASK:
                yield key, f"must be given again, since {server}.host changes"


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
        signing_key=fields.get("mailgun.webhookSigningKey", ""),
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
        unopened_days=fields.get("tracking.alerts.unopenedDays", 3),
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
