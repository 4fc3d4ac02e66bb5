"""AUTH PLAIN and LOGIN: the user is an account's id, the password a token that may send for it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from relay.core.errors import Refused
from relay.core.tenant import Account

MECHANISMS = ("PLAIN", "LOGIN")
USERNAME = base64.b64encode(b"Username:").decode()
PASSWORD = base64.b64encode(b"Password:").decode()
SCOPES = frozenset({"smtp", "*"})


class Token(Protocol):
    """What a login needs to know of a token. `account` is None for a token of all accounts."""

    @property
    def scopes(self) -> Iterable[str]: ...
    @property
    def account(self) -> str | None: ...


class Directory(Protocol):
    """Who is who, and who is written to no longer. Each call but the last raises StoreAway when it cannot know."""

    async def account(self, id: str) -> Account | None: ...
    async def account_for_sender(self, email: str) -> Account | None: ...
    async def token(self, plaintext: str) -> Token | None: ...
    async def suppressed(self, account: str, recipient: str) -> Refused | None: ...


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials of a session, kept: a token revoked while a connection lasts counts no more."""

    user: str
    password: str = field(repr=False)

    async def holds(self, directory: Directory) -> bool:
        """Whether the token may send for the account. The account is looked up only when it may."""
        token = await directory.token(self.password)
        if token is None or SCOPES.isdisjoint(token.scopes) or token.account not in (None, self.user):
            return False
        return await directory.account(self.user) is not None


def refused() -> Refused:
    """The same for an unknown user and a wrong password: nobody learns which accounts there are."""
    return Refused("Authentication credentials invalid", smtp="535 5.7.8")


def decode(answer: str) -> bytes:
    """A base64 answer of the client; "*" gives up, "=" stands for nothing (RFC 4954, section 4). Raises Refused."""
    if answer == "*":
        raise Refused("Authentication cancelled", smtp="501 5.7.0")
    try:
        return b"" if answer == "=" else base64.b64decode(answer, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("This is not base64", smtp="501 5.5.2") from None


def plain(answer: str) -> Login | None:
    """The one answer of PLAIN (RFC 4616). None when one user wants to act as another: there is no such right here."""
    parts = _text(decode(answer)).split("\0")
    if len(parts) != 3:
        raise Refused("PLAIN is identity NUL user NUL password", smtp="501 5.5.2")
    identity, user, password = parts
    return Login(user, password) if identity in ("", user) else None


def login(user: str, password: str) -> Login:
    """The two answers of LOGIN."""
    return Login(_text(decode(user)), _text(decode(password)))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused("Credentials are UTF-8", smtp="501 5.5.2") from None
