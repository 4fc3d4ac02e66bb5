"""Which servers of an account are told its access token, and how: XOAUTH2 and OAUTHBEARER, as SASL's first response.

XOAUTH2: https://developers.google.com/workspace/gmail/imap/xoauth2-protocol; OAUTHBEARER: RFC 7628.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace

from relay.core.tenant import Account, Imap, Smtp

MECHANISMS: Mapping[str, bytes] = {"XOAUTH2": b"", "OAUTHBEARER": b"\x01"}
"""Those there are, the one that large providers know longest first; and what is said to the challenge of a refusal."""


def response(mechanism: str, user: str, token: str, host: str, port: int) -> bytes:
    """Before its base64. `host` and `port`: of the server, as the account names it (RFC 7628 3.1)."""
    if mechanism == "XOAUTH2":
        return f"user={user}\x01auth=Bearer {token}\x01\x01".encode()
    name = user.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 4, saslname
    return f"n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01".encode()


def reason(challenge: str | bytes) -> str:
    """Why it was refused, as the server's challenge says: JSON in base64, or whatever it is."""
    raw = challenge.encode("utf-8", "replace") if isinstance(challenge, str) else challenge
    try:
        return base64.b64decode(raw, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return raw.decode("utf-8", "replace")


def bare(server: Smtp | Imap | None) -> bool:
    """It has neither password nor token of its own."""
    return server is not None and not (server.password or server.access_token)


def wanted(account: Account) -> bool:
    """Some server of the account is to be told a token that is had by OAuth2."""
    return account.oauth2 is not None and (bare(account.smtp) or bare(account.imap))


def owns(account: Account, secret: str) -> bool:
    """It is a password or token of one of its servers, or none: not one that was had by OAuth2."""
    servers = [server for server in (account.smtp, account.imap) if server is not None]
    return not secret or any(secret in (server.password, server.access_token) for server in servers)


def armed(account: Account, token: str) -> Account:
    """The account with this token in each of its servers that are bare."""
    smtp, imap = account.smtp, account.imap
    return replace(
        account,
        smtp=replace(smtp, access_token=token) if smtp is not None and bare(smtp) else smtp,
        imap=replace(imap, access_token=token) if imap is not None and bare(imap) else imap,
    )
