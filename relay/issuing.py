"""The issuers of access tokens, asked on behalf of accounts: where they are, as which application, for what."""

from __future__ import annotations

import asyncio

from relay.core import issuers, oauth
from relay.core.issuers import Endpoints
from relay.core.oauth import Client, Denied, Granted
from relay.core.tenant import OAuth2
from relay.net.oauth import Asker
from relay.settings import Settings

ASK = 15.0  # s that a request may take
KNOWN = 3600.0  # s that what an issuer says of itself is believed
MOST_KNOWN = 1000  # issuers
NO_APPLICATION = (
    "This installation has no application at the provider any more: set its POSTFERRY_..._CLIENT_ID and "
    "POSTFERRY_..._CLIENT_SECRET, or the account's oauth2.clientId and oauth2.clientSecret."
)


class Issuing:
    """Made inside a running loop; connects to nobody before it is asked to. All its calls raise oauth.Denied."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = asyncio.get_running_loop().time
        self._known: dict[tuple[str, str, str], tuple[float, Endpoints]] = {}
        self._asker: Asker | None = None

    async def refresh(self, oauth2: OAuth2, refresh_token: str) -> Granted:
        """Another access token."""
        endpoints = await self.endpoints(oauth2)
        form = oauth.refresh_form(refresh_token, issuers.refresh_scopes(oauth2))
        return await self._asking().tokens(endpoints.token, form, self.client(oauth2, endpoints))

    async def redeem(self, oauth2: OAuth2, code: str, redirect_uri: str, verifier: str) -> Granted:
        """The tokens of an authorisation."""
        endpoints = await self.endpoints(oauth2)
        form = oauth.code_form(code, redirect_uri, verifier)
        return await self._asking().tokens(endpoints.token, form, self.client(oauth2, endpoints))

    async def endpoints(self, oauth2: OAuth2) -> Endpoints:
        """Where it is asked; what it says of itself is remembered for a while."""
        if found := issuers.known(oauth2):
            return found
        key = (oauth2.issuer, oauth2.authorize_url, oauth2.token_url)
        until, told = self._known.pop(key, (0.0, None))
        if told is None or until <= self._clock():
            until, told = self._clock() + KNOWN, await self._asking().metadata(oauth2)
        self._known[key] = until, told
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return told

    def client(self, oauth2: OAuth2, endpoints: Endpoints) -> Client:
        """The application that asks: the account's own, or this installation's."""
        if oauth2.client_id:
            return Client(oauth2.client_id, oauth2.client_secret, endpoints.basic)
        if oauth2.provider not in self._settings.applications:
            raise Denied("", NO_APPLICATION)
        return Client(*self._settings.applications[oauth2.provider], endpoints.basic)

    async def close(self) -> None:
        if self._asker is not None:
            await self._asker.close()

    def _asking(self) -> Asker:
        if self._asker is None:
            self._asker = Asker(seconds=ASK, allowed=self._settings.allow_networks)
        return self._asker
