"""Connect an account with its provider: a person goes there with a browser, agrees, and comes back with a code.

The authorisation-code flow (RFC 6749 4.1) with PKCE (RFC 7636). The `state` that travels is the secret of the way back:
it is kept hashed, taken once, ends after ten minutes, and is void when the account's settings change meanwhile.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from relay.core import issuers, oauth, oauthsettings
from relay.core.account import Fields
from relay.core.errors import Refused
from relay.core.oauth import Denied, Granted
from relay.core.tenant import Account, AccountState, OAuth2
from relay.core.vault import Vault, VaultError
from relay.settings import Settings
from relay.store import accounts, db, grants
from relay.tokens import Tokens

SECONDS = 600.0  # from the beginning of an authorisation to its end
CALLBACK = "/v1/oauth2/callback"

UNKNOWN = "There is no account {account}"
NO_OAUTH2 = "The account has no oauth2 settings: set oauth2.provider first"
USED = "This sign-in was finished already, or took longer than ten minutes. Begin again, from the link you were given."
OTHERS = "The account that this link was made for was removed. Ask whoever gave it to you for a new one."
CHANGED = "The account's settings were changed while you signed in. Begin again, from the link you were given."
NO_REFRESH = (
    "The provider gave no refresh token, so that the access would end within the hour. The application must be allowed "
    "to act while its user is away: ask for the provider's scope for that (often offline_access) in oauth2.scopes."
)
OTHER = (
    "You signed in as {other}, but this account is for {wanted}. Begin again and sign in as {wanted}; or, if both are "
    "the same mailbox, have oauth2.auth.user set to {other}."
)


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the person goes, and until when they may come back."""

    account: Account
    url: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Connected:
    """The account, and whose mailbox it is."""

    account: str
    user: str


class Connecting:
    """Begins and ends authorisations. What cannot be is Refused, in words for the person in front of the browser."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault, tokens: Tokens) -> None:
        self._pool, self._vault, self._tokens = pool, vault, tokens
        self._redirect = settings.public_url + CALLBACK

    async def begin(self, id: str, made: datetime | None = None) -> Begun:
        """A fresh authorisation of the account as it is now; where `made` is told, of the one made then alone."""
        fields, account, oauth2 = await self._found(id)
        if made not in (None, account.created_at):
            raise Refused(OTHERS, status=410, code="LinkEnded")
        try:
            endpoints = await self._tokens.issuing.endpoints(oauth2)
            client = self._tokens.issuing.client(oauth2, endpoints)
        except Denied as fault:
            _refuse(fault)
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        sealed, settings = self._vault.seal(id, grants.VERIFIER, verifier), oauthsettings.fingerprint(fields)
        async with db.connection(self._pool) as conn:
            expires = await grants.begin(conn, _digest(state), id, sealed, settings, SECONDS)
        issuer = issuers.ISSUERS.get(oauth2.provider)
        url = oauth.authorization_url(
            endpoints.authorize,
            client_id=client.id,
            redirect_uri=self._redirect,
            scopes=issuers.wanted_scopes(oauth2, endpoints),
            state=state,
            verifier=verifier,
            user=oauth2.user,
            more=issuer.parameters if issuer else None,
        )
        return Begun(account, url, expires)

    async def finish(self, query: Mapping[str, str]) -> Connected:
        """What the browser brings back (RFC 6749 4.1.2): the account is connected, and sends again."""
        async with db.connection(self._pool) as conn:
            begun = await grants.take(conn, _digest(query.get("state", "")))
        if begun is None or not begun.live:
            raise Refused(USED, status=410, code="StateUnknown")
        if error := query.get("error"):
            _refuse(oauth.denial(error, query.get("error_description", "")))
        if not query.get("code"):
            raise Refused("The provider sent you back without a code: begin again", status=400, code="NoCode")
        fields, account, oauth2 = await self._found(begun.account)
        if oauthsettings.fingerprint(fields) != begun.settings:
            raise Refused(CHANGED, status=409, code="SettingsChanged")
        granted = await self._redeem(oauth2, query, self._vault.open(account.id, grants.VERIFIER, begun.verifier))
        self._check(oauth2, granted)
        await self._store(account.id, begun.settings, granted)
        return Connected(account.id, oauth2.user)

    async def _found(self, id: str) -> tuple[Fields, Account, OAuth2]:
        async with db.connection(self._pool) as conn:
            row = await accounts.find(conn, id)
        if row is None:
            raise Refused(UNKNOWN.format(account=id), status=404, code="AccountNotFound")
        try:
            fields, account = row.fields(self._vault), row.account(self._vault)
        except VaultError as fault:
            raise Refused(f"{fault}: give its secrets again", status=422, code="SecretsLost") from None
        if account.oauth2 is None:
            raise Refused(NO_OAUTH2, status=422, code="NoOAuth2")
        return fields, account, account.oauth2

    async def _redeem(self, oauth2: OAuth2, query: Mapping[str, str], verifier: str) -> Granted:
        issuing = self._tokens.issuing
        try:
            known = (await issuing.endpoints(oauth2)).issuer
            if known and query.get("iss", known) != known:  # RFC 9207
                raise Denied("", "The answer is of another provider than the one you were sent to. Begin again.")
            return await issuing.redeem(oauth2, query["code"], self._redirect, verifier)
        except Denied as fault:
            _refuse(fault)

    @staticmethod
    def _check(oauth2: OAuth2, granted: Granted) -> None:
        if other := oauth.somebody_else(oauth2.user, oauth.signed_in_as(granted.id_token)):
            raise Refused(OTHER.format(other=oauth.spoken(other), wanted=oauth2.user), status=409, code="OtherUser")
        if not granted.refresh_token:
            raise Refused(NO_REFRESH, status=422, code="NoRefreshToken")

    async def _store(self, id: str, settings: str, granted: Granted) -> None:
        """The refresh token as any secret of the account, the access token with it, and whatever stopped it is over."""

        def connected(fields: Fields) -> Fields:
            if oauthsettings.fingerprint(fields) != settings:
                raise Refused(CHANGED, status=409, code="SettingsChanged")
            return {**fields, grants.REFRESH: granted.refresh_token}

        async with db.connection(self._pool) as conn, conn.transaction():
            await accounts.save(conn, self._vault, id, connected)
            await accounts.set_state(
                conn, id, AccountState.ACTIVE, "", expect=(AccountState.ACTIVE, AccountState.REFUSED)
            )
            await grants.put(conn, self._vault, id, granted.access_token, granted.seconds)


def _refuse(fault: Denied) -> NoReturn:
    """Nobody asks again but the person who signs in."""
    if fault.away:
        raise Refused(f"{fault} Begin again in a while.", status=503, code="IssuerAway")
    raise Refused(str(fault), status=422, code="IssuerRefused")


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "replace")).digest()
