"""OAuth2 as values: the URL that a person is sent to, what is asked for tokens, and what comes back, read with care.

RFC 6749 (requests, answers, errors), RFC 7636 (PKCE, S256 alone), OpenID Connect Core 1.0 (who has signed in).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

LONGEST_TOKEN = 16_384  # characters
LONGEST_SAID = 300  # of an issuer's own words
USUAL_LIFE = 3600.0  # seconds, of a token whose issuer does not say
LONGEST_LIFE = 86_400.0  # ... that are believed
TOKEN = re.compile(r"[\x21-\x7e]+")  # VSCHAR without space (RFC 6750 2.1): what SASL can carry between its separators
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error word calls for. `away`: it passes by itself. `final`: this refresh token will never do again."""

    advice: str
    away: bool = False
    final: bool = False


AGAIN = "Connect the account again: its user signs in, and allows it."
MEANINGS: Mapping[str, Meaning] = {
    "invalid_grant": Meaning(
        f"The access was withdrawn, has expired, or was made for another application. {AGAIN}", final=True
    ),
    **dict.fromkeys(
        ("interaction_required", "consent_required", "login_required"),
        Meaning(f"The provider wants its user to sign in once more. {AGAIN}", final=True),
    ),
    "invalid_client": Meaning(
        "The provider does not know the application by this id and secret. Correct oauth2.clientId and "
        "oauth2.clientSecret; a secret that has expired is made anew with the provider."
    ),
    "unauthorized_client": Meaning(
        "The provider does not let this application do so: allow it there to act for users who are away."
    ),
    "invalid_scope": Meaning(
        "The provider does not give these scopes: correct oauth2.scopes, or allow them to the application there."
    ),
    "access_denied": Meaning(f"Whoever signed in did not allow it, or may not. {AGAIN}"),
    "redirect_uri_mismatch": Meaning(
        "The provider does not know the address to come back to: add this installation's /v1/oauth2/callback to the "
        "application's redirect URIs there."
    ),
    **dict.fromkeys(
        ("temporarily_unavailable", "server_error", "slow_down"),
        Meaning("The provider cannot answer just now, which usually passes.", away=True),
    ),
}
"""RFC 6749 4.1.2.1 and 5.2, OpenID Connect Core 3.1.2.6; what is not here is told as it was said."""
UNKNOWN = Meaning("Its own words are all there is to go by: check oauth2 in the account's settings.")


class Denied(Exception):
    """No token. `text` is for a person and holds no secret that we know of; `code`: the issuer's word for it."""

    def __init__(self, code: str, text: str, *, away: bool = False, final: bool = False) -> None:
        super().__init__(text)
        self.code, self.away, self.final = code, away, final


@dataclass(frozen=True, slots=True)
class Client:
    """The application that asks. `basic`: its secret goes in a header alone."""

    id: str
    secret: str = field(default="", repr=False)
    basic: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token for `seconds`; `refresh_token` is "" where the one that was used stays good."""

    access_token: str = field(repr=False)
    seconds: float
    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)


def challenge(verifier: str) -> str:
    """PKCE's, by S256 (RFC 7636 4.2)."""
    return _base64url(hashlib.sha256(verifier.encode("ascii")).digest())


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str,
    verifier: str,
    user: str = "",
    more: Mapping[str, str] | None = None,
) -> str:
    """Where the person goes with a browser; a query that the endpoint has already stays (RFC 6749 3.1, 4.1.1)."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": state,
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
        "login_hint": user,
        **(more or {}),
    }
    told = urlencode({name: value for name, value in query.items() if value})
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{told}"


def code_form(code: str, redirect_uri: str, verifier: str) -> dict[str, str]:
    """What turns an authorisation's code into tokens (RFC 6749 4.1.3, RFC 7636 4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }


def refresh_form(refresh_token: str, scopes: Sequence[str] = ()) -> dict[str, str]:
    """What asks for another access token (RFC 6749 6)."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return form | ({"scope": " ".join(scopes)} if scopes else {})


def request(form: Mapping[str, str], client: Client) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a token request; who asks is in the one or the other (RFC 6749 2.3.1)."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if client.basic and client.secret:
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return urlencode(form).encode(), headers
    mine = {"client_id": client.id} | ({"client_secret": client.secret} if client.secret else {})
    return urlencode({**form, **mine}).encode(), headers


def read_answer(status: int, text: str) -> Granted:
    """What a token request was answered (RFC 6749 5). Raises Denied; never anything else, whatever the text is."""
    told = _object(text)
    if status != 200 or told is None or "error" in told:
        raise _denied(status, told)
    access, kind = told.get("access_token"), told.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Denied("", "The provider gives tokens of a kind that mail servers do not take (they take Bearer).")
    if not _is_token(access):
        raise _strange("it holds no access token that a mail server could be told")
    refresh, identity = told.get("refresh_token"), told.get("id_token")
    if refresh is not None and not _is_token(refresh):
        raise _strange("its refresh token cannot be kept")
    return Granted(
        str(access), _life(told.get("expires_in")), str(refresh or ""), identity if isinstance(identity, str) else ""
    )


def denial(code: str, description: str = "") -> Denied:
    """The error of an authorisation, as the browser brings it back (RFC 6749 4.1.2.1)."""
    code = code if WORD.fullmatch(code) else "unknown"
    meaning = MEANINGS.get(code, UNKNOWN)
    said = f"{code}: {spoken(description)}" if description else code
    end = "" if said.endswith((".", "!", "?")) else "."
    return Denied(code, f"{meaning.advice} The provider said: {said}{end}", away=meaning.away, final=meaning.final)


def signed_in_as(id_token: str) -> frozenset[str]:
    """Whom an ID token names, in lower case; empty where it does not tell.

    It came over TLS from the issuer itself (OpenID Connect Core 3.1.3.7), and its signature is not looked at: it is
    good for telling a person of a mistake, and for nothing else.
    """
    parts = id_token.split(".")
    claims = _object(_unpadded(parts[1])) if len(parts) == 3 else None
    names = [(claims or {}).get(name) for name in ("email", "preferred_username", "upn")]
    return frozenset(spoken(name).lower() for name in names if isinstance(name, str) and spoken(name))


def somebody_else(wanted: str, names: frozenset[str]) -> str:
    """Who has signed in, where that is not the user who is `wanted`; "" where it is, or nobody can tell."""
    alike = {name for name in names if ("@" in name) == ("@" in wanted)}
    return min(alike) if alike and _mailbox(wanted) not in map(_mailbox, alike) else ""


def spoken(text: str) -> str:
    """An issuer's own words as one line, not too long."""
    return UNPRINTABLE.sub(" ", text).strip()[:LONGEST_SAID]


def _mailbox(address: str) -> str:
    """Google's addresses are the same with and without dots, and under both of its names."""
    local, _, domain = address.strip().lower().rpartition("@")
    if domain in ("gmail.com", "googlemail.com"):
        return f"{local.partition('+')[0].replace('.', '')}@gmail.com"
    return f"{local}@{domain}"


def _denied(status: int, told: Mapping[str, Any] | None) -> Denied:
    code = (told or {}).get("error")
    if status == 429 or status >= 500:
        said = f" ({code})" if isinstance(code, str) and WORD.fullmatch(code) else ""
        return Denied("", f"The provider answered {status}{said}, which usually passes.", away=True)
    if told is None:
        return _strange(f"it is {status} and no JSON object")
    if not isinstance(code, str):
        return _strange(f"it is {status} and names no error")
    description = told.get("error_description")
    return denial(code, description if isinstance(description, str) else "")


def _strange(why: str) -> Denied:
    """No answer that an issuer gives. It may be its bad day or a wrong URL: it is asked again, and said."""
    return Denied("", f"What answers for the provider's tokens is not understood: {why}. Check the URL.", away=True)


def _life(seconds: Any) -> float:
    """Some issuers tell it as text."""
    try:
        life = float(seconds)
    except (TypeError, ValueError, OverflowError):
        return USUAL_LIFE
    return min(life, LONGEST_LIFE) if life > 0 else USUAL_LIFE


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TOKEN and bool(TOKEN.fullmatch(value))


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _unpadded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
