"""Issuers of OAuth2 tokens: what is known of the large ones, and what others say of themselves (RFC 8414, OIDC).

Sources, Google: https://developers.google.com/identity/protocols/oauth2/web-server (endpoints, `access_type`, `prompt`)
and https://developers.google.com/workspace/gmail/imap/xoauth2-protocol (scope, hosts). Microsoft:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow (endpoints, `offline_access`) and
https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth
(scopes, hosts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from relay.core import hosts
from relay.core.networks import Network
from relay.core.tenant import OAuth2

CUSTOM = "custom"
USUAL_SCOPES = ("openid", "email", "offline_access")  # of an issuer that nothing is known of, where it has them


@dataclass(frozen=True, slots=True)
class Issuer:
    """One that everybody knows. `{tenant}` in its URLs is the account's."""

    name: str
    authorize_url: str
    token_url: str
    scopes: tuple[str, ...]
    identity: tuple[str, ...]  # scopes that make it tell who has signed in
    parameters: Mapping[str, str]  # of the authorisation, beside the standard's
    hosts: frozenset[str]  # servers of its own, which its tokens may be said to
    smtp: Mapping[str, Any]  # settings of its servers, where the account has none
    imap: Mapping[str, Any]
    names_scopes: bool = False  # a refresh says which scopes it wants, for one grant is good for several services


ISSUERS: Mapping[str, Issuer] = {
    issuer.name: issuer
    for issuer in (
        Issuer(
            "google",
            "https://accounts.google.com/o/oauth2/v2/auth",
            "https://oauth2.googleapis.com/token",
            ("https://mail.google.com/",),
            ("openid", "email"),
            {"access_type": "offline", "prompt": "consent"},  # else there is a refresh token the first time alone
            frozenset(
                {"smtp.gmail.com", "imap.gmail.com", "smtp-relay.gmail.com"}
                | {"smtp.googlemail.com", "imap.googlemail.com"}
            ),
            {"host": "smtp.gmail.com", "port": 465, "secure": True},
            {"host": "imap.gmail.com", "port": 993, "secure": True},
        ),
        Issuer(
            "microsoft",
            "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
            "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
            (
                "https://outlook.office.com/SMTP.Send",
                "https://outlook.office.com/IMAP.AccessAsUser.All",
                "offline_access",
            ),
            ("openid", "email", "profile"),
            {},
            frozenset(
                {"smtp.office365.com", "outlook.office365.com", "outlook.office.com"}
                | {"smtp-mail.outlook.com", "imap-mail.outlook.com"}
            ),
            {"host": "smtp.office365.com", "port": 587, "secure": False, "tls.mode": "required"},
            {"host": "outlook.office365.com", "port": 993, "secure": True},
            names_scopes=True,
        ),
    )
}


class BadMetadata(ValueError):
    """What an issuer says of itself cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a browser is sent, and where tokens are asked for."""

    authorize: str
    token: str
    issuer: str = ""  # as it names itself in answers (RFC 9207); "" = not known
    basic: bool = False  # it takes the client's secret in a header alone (client_secret_basic)
    scopes: tuple[str, ...] = ()  # what it has of USUAL_SCOPES


def known(oauth2: OAuth2) -> Endpoints | None:
    """Without asking anybody; None where the issuer must tell."""
    if issuer := ISSUERS.get(oauth2.provider):
        return Endpoints(
            issuer.authorize_url.format(tenant=oauth2.tenant), issuer.token_url.format(tenant=oauth2.tenant)
        )
    if oauth2.authorize_url and oauth2.token_url:
        return Endpoints(oauth2.authorize_url, oauth2.token_url, oauth2.issuer)
    return None


def wanted_scopes(oauth2: OAuth2, endpoints: Endpoints) -> tuple[str, ...]:
    """What an authorisation asks for."""
    if issuer := ISSUERS.get(oauth2.provider):
        return tuple(dict.fromkeys((oauth2.scopes or issuer.scopes) + issuer.identity))
    return oauth2.scopes or endpoints.scopes


def refresh_scopes(oauth2: OAuth2) -> tuple[str, ...]:
    """What a refresh asks for; () = what was granted (RFC 6749 6)."""
    issuer = ISSUERS.get(oauth2.provider)
    return (oauth2.scopes or issuer.scopes) if issuer and issuer.names_scopes else ()


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer tells of itself, in the order to ask: OpenID Connect Discovery 4, then RFC 8414 3."""
    parts, path = urlsplit(issuer), urlsplit(issuer).path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    )


def read_metadata(text: str, oauth2: OAuth2, allowed: Sequence[Network]) -> Endpoints:
    """The endpoints in an issuer's own words; a URL of the account's stands before them. Raises BadMetadata."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMetadata("it is not JSON") from None
    if not isinstance(told, dict):
        raise BadMetadata("it is no JSON object")
    name = told.get("issuer")
    if not isinstance(name, str) or name.rstrip("/") != oauth2.issuer.rstrip("/"):
        raise BadMetadata("it is of another issuer than oauth2.issuer names")  # RFC 8414 3.3
    authorize = oauth2.authorize_url or _url(told, "authorization_endpoint", allowed)
    token = oauth2.token_url or _url(told, "token_endpoint", allowed)
    ways, scopes = _words(told, "token_endpoint_auth_methods_supported"), _words(told, "scopes_supported")
    # Left out, it means client_secret_basic (RFC 8414 2); where both are taken, a form needs no second encoding.
    basic = "client_secret_post" not in (ways or ("client_secret_basic",))
    return Endpoints(authorize, token, name, basic, tuple(scope for scope in USUAL_SCOPES if scope in scopes))


def judge_url(url: str, allowed: Sequence[Network]) -> str:
    """Why tokens may not be asked for at this URL, in words that follow the name of its field; "" when they may.

    What travels there is secret, so without TLS it stays in networks that the operator opened. Of a name only DNS
    can tell: that is judged as it is dialled.
    """
    if reason := hosts.judge_url(url, allowed):
        return reason
    if url.lower().startswith("http://"):
        address = hosts.literal(urlsplit(url).hostname or "")
        if not (allowed if address is None else hosts.opened(address, allowed)):
            return "must begin with https://: http:// is for hosts in networks that the operator allows"
    return ""


def _url(told: Mapping[str, Any], name: str, allowed: Sequence[Network]) -> str:
    url = told.get(name)
    if not isinstance(url, str):
        raise BadMetadata(f"it has no {name}")
    if reason := judge_url(url, allowed):
        raise BadMetadata(f"its {name} {reason}")
    return url


def _words(told: Mapping[str, Any], name: str) -> tuple[str, ...]:
    words = told.get(name)
    return tuple(word for word in words if isinstance(word, str)) if isinstance(words, list) else ()
