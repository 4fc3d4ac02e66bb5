"""What an account's `oauth2` settings may be, seen side by side; and the servers of the large providers, filled in.

A refresh token is worth its access tokens, and those are told to the account's servers: so it stays with the issuer
and with the servers that it was given for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from relay.core.issuers import CUSTOM, ISSUERS, Issuer, judge_url
from relay.core.networks import Network

Fields = Mapping[str, Any]
Fault = tuple[str, str]

URLS = ("oauth2.issuer", "oauth2.authorizeUrl", "oauth2.tokenUrl")
KEPT = ("oauth2.clientSecret", "oauth2.refreshToken")
SERVERS = ("smtp", "imap")


def login(fields: Fields) -> str:
    """Whose mailbox the tokens are for; "" without OAuth2."""
    if "oauth2.provider" not in fields:
        return ""
    return str(fields.get("oauth2.auth.user") or fields.get("email") or "")


def bare(fields: Fields, server: str) -> bool:
    """It has no password or token of its own: it is told ours."""
    return not any(f"{server}.auth.{name}" in fields for name in ("pass", "accessToken"))


def fingerprint(fields: Fields) -> str:
    """A hash of whom an authorisation is for, with which application, and who will be told its tokens."""
    kept = {key: value for key, value in fields.items() if key.startswith("oauth2.") and key != "oauth2.refreshToken"}
    kept |= {f"{server}.host": fields.get(f"{server}.host") for server in SERVERS} | {"login": login(fields)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def filled(old: Fields, new: dict[str, Any], given: Fields) -> dict[str, Any]:
    """`new`, with the provider's servers where a change of `oauth2` leaves them out. Null means: none."""
    issuer, before = (ISSUERS.get(fields.get("oauth2.provider", "")) for fields in (new, old))
    if issuer is None or not any(key.startswith("oauth2.") for key in given):
        return new
    made = dict(new)
    for server in SERVERS:
        if before not in (None, issuer):
            for key in _usual(before, server):  # those of the provider before it
                if key not in given and made.get(key) == _usual(before, server)[key]:
                    del made[key]
        if _wants(server, made, given):
            made |= _missing(issuer, server, made)
    return made


def faults(
    old: Fields,
    new: Fields,
    again: Callable[[str], bool],
    allowed: Sequence[Network],
    applications: Collection[str],
) -> Iterator[Fault]:
    """`again`: whether a secret was given with this change; `applications`: providers the installation has one for."""
    if not any(key.startswith("oauth2.") for key in new):
        return
    provider = new.get("oauth2.provider")
    if provider is None:
        yield "oauth2.provider", "is missing"
        return
    issuer = ISSUERS.get(provider)
    if not login(new):
        yield "oauth2.auth.user", "is missing: say whose mailbox it is, here or as email"
    if "oauth2.tenant" in new and provider != "microsoft":
        yield "oauth2.tenant", "is for provider microsoft alone: set it to null"
    yield from _application(new, provider, issuer is not None, applications)
    yield from _misplaced_urls(new) if issuer else _urls(new, allowed)
    if issuer and "oauth2.clientId" not in new:
        yield from _foreign(new, issuer)
    yield from _moved(old, new, again, issuer)


def _application(new: Fields, provider: str, secret: bool, applications: Collection[str]) -> Iterator[Fault]:
    """Both, or neither where the installation has its own; an issuer of one's own may have clients without a secret."""
    has_id, has_secret = ("oauth2.clientId" in new, "oauth2.clientSecret" in new)
    if has_secret and not has_id:
        yield "oauth2.clientId", "is missing: it goes with clientSecret"
    elif has_id and secret and not has_secret:
        yield "oauth2.clientSecret", "is missing: it goes with clientId"
    elif not has_id and provider not in applications:
        setting = f"POSTFERRY_{provider.upper()}_CLIENT_ID"
        own = "" if provider == CUSTOM else f" (this installation has no application of its own: {setting} is not set)"
        yield "oauth2.clientId", f"is missing: make an application with the provider{own}"


def _misplaced_urls(new: Fields) -> Iterator[Fault]:
    for key in URLS:
        if key in new:
            yield key, "is for provider custom alone: set it to null"


def _urls(new: Fields, allowed: Sequence[Network]) -> Iterator[Fault]:
    given = [key for key in URLS if key in new]
    if "oauth2.issuer" not in given and len(given) < 2:
        yield "oauth2.issuer", "is missing: give it, or both authorizeUrl and tokenUrl"
    for key in given:
        if reason := judge_url(new[key], allowed):
            yield key, reason
    if "?" in new.get("oauth2.issuer", ""):
        yield "oauth2.issuer", "must have no query (?...)"


def _foreign(new: Fields, issuer: Issuer) -> Iterator[Fault]:
    """The installation's name stands on the page where the user agrees: what it is given stays with the provider."""
    for server in SERVERS:
        host = new.get(f"{server}.host")
        if host is not None and bare(new, server) and host.lower() not in issuer.hosts:
            yield (
                f"{server}.host",
                f"must be {issuer.name}'s own, such as {_usual(issuer, server)[f'{server}.host']}, where this "
                "installation's application is used: give clientId and clientSecret of your own for another",
            )


def _moved(old: Fields, new: Fields, again: Callable[[str], bool], issuer: Issuer | None) -> Iterator[Fault]:
    """Secrets that would reach somebody whom they were not given to."""
    turned = [key for key in ("oauth2.provider", *URLS[::2]) if old.get(key) != new.get(key)]
    own = issuer.hosts if issuer else frozenset()
    reached = _reached(new) - _reached(old) - own
    for key in KEPT:
        if key not in old or key not in new or again(key):
            continue
        if turned:
            yield key, f"must be given again, or set to null, since {turned[0]} changes"
        elif key == "oauth2.refreshToken" and reached:
            why = f"since {' and '.join(sorted(reached))} would be told its tokens"
            yield key, f"must be given again, or set to null and the account connected anew, {why}"


def _reached(fields: Fields) -> frozenset[str]:
    """The hosts that are told access tokens."""
    named = {fields.get(f"{server}.host", "").lower() for server in SERVERS if bare(fields, server)}
    return frozenset(named - {""})


def _wants(server: str, new: Fields, given: Fields) -> bool:
    if f"{server}.host" in new or (server in given and given[server] is None):
        return False
    return "mailgun.domain" not in new if server == "smtp" else not new.get("imap.disabled")


def _missing(issuer: Issuer, server: str, new: Fields) -> dict[str, Any]:
    """The host; port and TLS with it, unless either was said. A token goes over no connection in the clear."""
    usual = _usual(issuer, server)
    if f"{server}.port" not in new and f"{server}.secure" not in new:
        return {key: value for key, value in usual.items() if key not in new}
    clear = not new.get(f"{server}.secure", server == "imap" and new.get("imap.port", 993) == 993)
    mode = {f"{server}.tls.mode": "required"} if clear and f"{server}.tls.mode" not in new else {}
    return {f"{server}.host": usual[f"{server}.host"]} | mode


def _usual(issuer: Issuer | None, server: str) -> dict[str, Any]:
    settings = {} if issuer is None else issuer.smtp if server == "smtp" else issuer.imap
    return {f"{server}.{key}": value for key, value in settings.items()}
