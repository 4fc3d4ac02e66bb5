"""The fields of an account's settings: how each value is read, and which are secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from relay.core import address, hosts, mailgunsettings
from relay.core.errors import Refused
from relay.core.tenant import Copy, Tls

MASK = "******"
"""What a secret looks like from outside. Given back, it means: as it was."""

SECRETS = frozenset(
    {
        *("smtp.auth.pass", "smtp.auth.accessToken", "imap.auth.pass", "imap.auth.accessToken"),
        *("mailgun.apiKey", "mailgun.webhookSigningKey", "oauth2.clientSecret", "oauth2.refreshToken"),
    }
)
ID = r"^[A-Za-z0-9][A-Za-z0-9._@+=:-]{0,127}$"
ID_WORDS = "must be 1 to 128 letters, digits and . _ @ + = : - and begin with a letter or digit"
COPY: Mapping[bool | str, Copy] = {True: Copy.APPEND, False: Copy.NONE, **{copy.value: copy for copy in Copy}}
MOST_NETWORKS = 100
METHODS = ("plain", "login", "cram-md5", "xoauth2", "oauthbearer")
BEARER = ("xoauth2", "oauthbearer")
PROVIDERS = ("google", "microsoft", "custom")
MODES = {"required": Tls.STARTTLS, "opportunistic": Tls.OPPORTUNISTIC, "none": Tls.NONE}


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
