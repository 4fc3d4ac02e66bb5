"""What a provider tells of mail that it took: checked whose it is, taken once, and done in one database transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from relay import bounces, metrics
from relay.core import footprint, mailgunevents, networks, opener
from relay.core.errors import StoreAway
from relay.core.mailgunevents import Effect, Event
from relay.core.model import Opener
from relay.core.opener import Look
from relay.core.vault import Vault, VaultError
from relay.opens import LONGEST_AGENT
from relay.settings import Settings
from relay.store import accounts, db, opens, providerposts, suppressions
from relay.store.matching import Match, match
from relay.store.suppressions import Suppression

SIGNING_KEY = "mailgun.webhookSigningKey"
NOBODYS = "no account has this one"
AT_ONCE = 2  # of one process: whoever floods this door leaves the store to the others
MOST = 200  # that wait for their turn

_log = logging.getLogger("postferry.providers")


class Unsigned(Exception):
    """Not by the provider of this account: there is no such account, it has no key, or another, or it is too old."""


class Repeated(Exception):
    """It was taken before."""


class Providers:
    """One of each process."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings, self._vault = pool, settings, vault
        self._room = asyncio.Semaphore(AT_ONCE)
        self._here = 0

    async def mailgun(self, account: str, signed: Mapping[str, Any], told: Mapping[str, Any]) -> Effect:
        """What a webhook of Mailgun's did, once it is committed. Raises Unsigned, Repeated or StoreAway."""
        if self._here >= MOST:
            raise StoreAway(f"{MOST} webhooks of providers wait for their turn")
        self._here += 1
        try:
            async with self._room, db.connection(self._pool) as conn:
                effect = await self._mailgun(conn, account, signed, told)
        except (Unsigned, Repeated) as refused:
            metrics.PROVIDER_POSTS.labels("mailgun", type(refused).__name__.lower()).inc()
            raise
        finally:
            self._here -= 1
        metrics.PROVIDER_POSTS.labels("mailgun", effect.value).inc()
        if effect is not Effect.NONE:
            _log.info("mailgun told of a mail", extra={"account": account, "outcome": effect.value})
        return effect

    async def _mailgun(
        self, conn: db.Connection, account: str, signed: Mapping[str, Any], told: Mapping[str, Any]
    ) -> Effect:
        signature = mailgunevents.signature(signed)
        key = await self._key(conn, account)
        if (
            signature is None
            or not signature.by(key or NOBODYS)
            or key is None
            or not signature.fresh(datetime.now(UTC))
        ):
            raise Unsigned
        event = mailgunevents.read(told, signature.token)
        if event.effect is Effect.NONE:
            return event.effect
        async with conn.transaction():
            if not await providerposts.claim(conn, account, signature.token):
                raise Repeated
            return await self._do(conn, account, event)

    async def _key(self, conn: db.Connection, account: str) -> str | None:
        row = await accounts.find(conn, account)
        if row is None or SIGNING_KEY not in row.secrets:
            return None
        try:
            return self._vault.open(account, SIGNING_KEY, row.secrets[SIGNING_KEY])
        except VaultError as error:
            _log.error("webhooks of Mailgun cannot be checked: %s", error, extra={"account": account})
            return None

    async def _do(self, conn: db.Connection, account: str, event: Event) -> Effect:
        """NONE where it is about nothing that we sent, or was known."""
        if event.effect in (Effect.BOUNCED, Effect.COMPLAINED):
            return event.effect if await bounces.record(conn, account, event.about) else Effect.NONE
        found = next((one for one in await match(conn, account, event.about) if one.direct), None)
        if found is None:
            return Effect.NONE
        if event.effect is Effect.UNSUBSCRIBED:
            return await self._unsubscribe(conn, account, event, found)
        return await self._open(conn, account, event, found)

    async def _unsubscribe(self, conn: db.Connection, account: str, event: Event, found: Match) -> Effect:
        why = Suppression(found.recipient, "unsubscribe", "Unsubscribed at Mailgun", found.delivery, found.message)
        await suppressions.add(conn, account, [why])
        data = {"remoteAddress": self._address(event), "userAgent": _agent(event)}
        await providerposts.unsubscribed(conn, account, found, data)
        return Effect.UNSUBSCRIBED

    async def _open(self, conn: db.Connection, account: str, event: Event, found: Match) -> Effect:
        """An event alone: figures of opens count pictures of ours."""
        mail = (await opens.known(conn, {found.delivery: 0.0})).get(found.delivery)
        if mail is None:
            return Effect.NONE
        at = event.about.at or mail.now
        look = Look(_agent(event), networks.read(event.address), since_sent=mail.since_sent(at), own=mail.own)
        judged = opener.judge(look).opener
        data = {
            "remoteAddress": self._address(event),
            "userAgent": _agent(event),
            "opener": judged.value,
            "prefetch": judged is Opener.PREFETCH,
        }
        told = judged is not Opener.SELF and await providerposts.opened(conn, account, found, data)
        return Effect.OPENED if told else Effect.NONE

    def _address(self, event: Event) -> str:
        """As much of the opener's address as is kept."""
        return footprint.kept(event.address, self._settings.open_addresses) or ""


def _agent(event: Event) -> str:
    return event.agent[:LONGEST_AGENT]
