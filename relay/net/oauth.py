"""Ask issuers for tokens and for what they say of themselves: judged addresses, no redirect, bounded in time and size.

Where TLS is missing (http://), only networks that the operator opened are dialled: what travels is secret.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

from relay.core import issuers, oauth
from relay.core.issuers import BadMetadata, Endpoints
from relay.core.masking import masked
from relay.core.networks import Network
from relay.core.oauth import Client, Denied, Granted
from relay.core.tenant import OAuth2
from relay.net import guard
from relay.net.http import Answer, Exhausted, Poster

# A kept connection that breaks would be asked again, and some issuers take a refresh token once.
ONCE = {"Connection": "close", "Accept": "application/json"}
MOST = 65_536  # bytes of an answer: tokens of a few KB, and metadata of some dozen


class Asker:
    """Made inside a running loop; `seconds` bound each request, `resolver` and `tls` are for tests."""

    def __init__(
        self,
        *,
        seconds: float,
        allowed: Sequence[Network],
        resolver: guard.Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        def poster(*, inside: bool) -> Poster:
            return Poster(
                seconds=seconds, allowed=allowed, resolver=resolver, tls=tls, most=MOST, kept=MOST, inside=inside
            )

        self._allowed = allowed
        self._outside, self._inside = poster(inside=False), poster(inside=True)

    async def metadata(self, oauth2: OAuth2) -> Endpoints:
        """The endpoints that an issuer names. Raises Denied, which is `away` where it may pass."""
        why = ""
        for url in issuers.metadata_urls(oauth2.issuer):
            self._check(url)
            answer = await self._get(url)
            if answer.good:
                try:
                    return issuers.read_metadata(answer.response, oauth2, self._allowed)
                except BadMetadata as fault:
                    raise Denied("", f"What {url} says cannot be used: {fault}.") from None
            why = why or f"{url}: {answer.error}"
            if answer.status is None:
                break  # the other is at the same host
        raise Denied("", f"The issuer does not tell of itself: {why}.", away=True)

    async def tokens(self, url: str, form: Mapping[str, str], client: Client) -> Granted:
        """What a token request is answered. Raises Denied, whose text holds nothing of what was sent."""
        self._check(url)
        body, headers = oauth.request(form, client)
        secrets = [client.secret, *(form.get(name, "") for name in ("refresh_token", "code", "code_verifier"))]
        try:
            answer = await self._posted(url, body, headers)
            if answer.status is None or 300 <= answer.status < 400:
                raise Denied("", f"The provider cannot be reached: {answer.error}.", away=True)
            return oauth.read_answer(answer.status, answer.response)
        except Denied as fault:
            text = masked(str(fault), secrets)
            raise Denied(fault.code, text, away=fault.away, final=fault.final) from None

    async def close(self) -> None:
        await self._outside.close()
        await self._inside.close()

    def _check(self, url: str) -> None:
        """Once more: what was allowed when it was saved need not be so now."""
        if reason := issuers.judge_url(url, self._allowed):
            raise Denied("", f"The provider's address {reason}.")

    async def _get(self, url: str) -> Answer:
        try:
            return await self._by(url).get(url, ONCE)
        except Exhausted as fault:
            raise _no_socket(fault) from None

    async def _posted(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            return await self._by(url).post(url, body, {**headers, **ONCE})
        except Exhausted as fault:
            raise _no_socket(fault) from None

    def _by(self, url: str) -> Poster:
        return self._outside if url.lower().startswith("https://") else self._inside


def _no_socket(fault: Exhausted) -> Denied:
    return Denied("", f"This machine has no connection left for the provider: {fault}.", away=True)
