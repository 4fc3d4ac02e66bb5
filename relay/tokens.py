"""Access tokens of accounts that log in with OAuth2: had in time, by one process at a time, and kept sealed.

    tokens = Tokens(pool, settings, vault)
    account = await tokens.armed(account)       # with a live token in smtp and imap; raises TokenError
    ... a server refuses it all the same ...
    account = await tokens.again(account, spurned=account.smtp.access_token)
    await tokens.close()

Accounts without `oauth2` pass as they are, at no cost. A token is refreshed ahead of its end, while the old one is
still used; whoever has the claim in `grants` asks, and the others wait for what comes of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay import metrics
from relay.core import bearer, mendlink
from relay.core.errors import StoreAway
from relay.core.issuers import CUSTOM
from relay.core.oauth import Denied
from relay.core.tenant import Account, OAuth2
from relay.core.vault import Vault, VaultError
from relay.ending import end
from relay.issuing import Issuing
from relay.settings import Settings
from relay.store import db, grants, health
from relay.store.grants import Fresh, Grant

CLAIM = 60.0  # s that a claim lasts: longer than all requests of a refresh
AHEAD, JITTER = 300.0, 60.0  # s before its end a token is refreshed, and so much more by chance
LEAST = 20.0  # s that a token must live on to be said to a server
SHARE_AHEAD, SHARE_LEAST = 0.5, 0.1  # of its life, where that is short
LOOK = 0.1  # s between two looks at what another process does
AGAIN = 0.5  # s until PostgreSQL is asked again
REST = 60.0  # s until an issuer is asked again that would not refresh a token which still lives
KEPT = 10_000  # tokens in memory
GRACE = 5.0  # s that a refresh under way has when we stop
LINK = 7 * 86_400  # s that a link to connect an account is good

UNCONNECTED = "The account is not connected yet: its user must sign in with the provider and allow it."
CHANGED = "The account's settings were changed just now; it is tried again by itself."
UNSAVED = (
    "The refresh token of an issuer of one's own may be good for one use, so it is not tried with settings that are "
    "not stored: save the account, and it is verified."
)

Key = tuple[str, datetime | None, str, bool]

log = logging.getLogger("postferry.tokens")


class TokenError(Exception):
    """No access token. `kind`: refused (somebody must do something) or away (it passes, or is tried again by itself).

    The text says what to do and holds no secret; `reason` says it with the `link` to mend it, where there is one.
    """

    def __init__(self, kind: str, text: str, link: str = "") -> None:
        super().__init__(text)
        self.kind, self.link = kind, link

    @property
    def reason(self) -> str:
        return f"{self} Connect it here: {self.link}" if self.link else str(self)


@dataclass(frozen=True, slots=True)
class Live:
    """A token in memory, of settings as they were `seen`. Times are of the loop's clock."""

    token: str = field(repr=False)
    seen: datetime | None
    renew_at: float
    ends_at: float


class Tokens:
    """Made inside a running loop, one for a process or a room of it."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings, self._vault = pool, settings, vault
        self._keys = vault.derive("mend link")
        self._clock = asyncio.get_running_loop().time
        self._live: dict[str, Live] = {}
        self._running: dict[Key, asyncio.Task[Live]] = {}
        self.issuing = Issuing(settings)

    async def armed(self, account: Account) -> Account:
        """The account with a live token wherever it has no password or token of its own.

        Raises TokenError, StoreAway.
        """
        if account.oauth2 is None or not bearer.wanted(account):
            return account
        if account.updated_at is None:
            return bearer.armed(account, await self._once(account.oauth2))
        live, now = self._live.get(account.id), self._clock()
        if live is None or live.seen != account.updated_at or now >= live.ends_at:
            live = await asyncio.shield(self._run(account))
        if now >= live.renew_at:
            self._run(account, ahead=True)
        return bearer.armed(account, live.token)

    async def again(self, account: Account, spurned: str) -> Account | None:
        """With another token than `spurned`, which a server refused although it should live; None: there is none.

        `account` as it came to `armed`. Raises TokenError, StoreAway.
        """
        if not bearer.wanted(account) or bearer.owns(account, spurned) or account.updated_at is None:
            return None
        live = self._live.get(account.id)
        if live is not None and live.token == spurned:
            del self._live[account.id]
        live = await asyncio.shield(self._run(account, spurned))
        return bearer.armed(account, live.token) if live.token != spurned else None

    def link(self, account: Account) -> tuple[str, int]:
        """Where the user of a stored account connects it, and until when (Unix time)."""
        assert account.created_at is not None
        until = int(time.time()) + LINK
        token = mendlink.sign(self._keys, account.id, account.created_at, until)
        return f"{self._settings.public_url}/v1/oauth2/start/{token}", until

    def linked(self, token: str) -> mendlink.Link | None:
        """Whom a link is for; None for one that is not ours, or has ended."""
        return mendlink.read(self._keys, token, time.time())

    async def close(self) -> None:
        """A refresh under way is ended: what an issuer has given once it may not give again."""
        if self._running:
            _, late = await asyncio.wait(self._running.values(), timeout=GRACE)
            await end(late)
        await self.issuing.close()

    # -- one at a time -----------------------------------------------------------------------------------------------

    def _run(self, account: Account, spurned: str = "", *, ahead: bool = False) -> asyncio.Task[Live]:
        """What is asked for at once is had once; nobody who gives up waiting ends it."""
        key = (account.id, account.updated_at, spurned, ahead)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._obtain(account, spurned, ahead))
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: Key, task: asyncio.Task[Live]) -> None:
        self._running.pop(key, None)
        if not task.cancelled() and (error := task.exception()):
            told = logging.DEBUG if isinstance(error, TokenError | StoreAway) else logging.ERROR  # whoever waits tells
            log.log(told, "no access token for %s: %s", key[0], error, extra={"account": key[0]})

    async def _obtain(self, account: Account, spurned: str, ahead: bool) -> Live:
        """The token that there is, or one more; while another process is at it, what comes of that.

        `ahead`: one more already where the one that there is nears its end.
        """
        while True:
            async with db.connection(self._pool) as conn:
                grant = await grants.look(conn, account.id, account.updated_at)
                if grant is None or not grant.current:
                    raise TokenError("away", CHANGED)
                live = self._opened(account, grant)
                good = live is not None and live.token != spurned and self._clock() < live.ends_at
                if live is not None and good and (grant.claimed or not ahead or self._clock() < live.renew_at):
                    return self._kept(account, live)
                refresh = self._refreshing(account, grant, waits=not good)
                claim = await grants.claim(conn, account.id, CLAIM, refresh=grant.refresh) if refresh else None
            if claim is not None:
                return await self._refresh(account, refresh, claim, live if good else None)
            if live is not None and good:
                return self._kept(account, live)
            await asyncio.sleep(LOOK)

    def _refreshing(self, account: Account, grant: Grant, *, waits: bool) -> str:
        """The refresh token to ask with; "" while another process asks. Raises TokenError where asking is of no use."""
        if grant.refresh is None:
            raise self._refused(account, UNCONNECTED)
        try:
            refresh = self._vault.open(account.id, grants.REFRESH, grant.refresh)
        except VaultError as fault:
            raise self._refused(account, f"{fault}: connect the account again, or bring the key back.") from None
        if grant.refused == _digest(refresh):
            raise self._refused(account, grant.error)
        if grant.claimed and grant.error and waits:
            raise TokenError("away", grant.error)
        return "" if grant.claimed else refresh

    async def _refresh(self, account: Account, refresh: str, claim: datetime, old: Live | None) -> Live:
        """Asks the issuer. `old`: a token that still lives, and does while the issuer is away."""
        assert account.oauth2 is not None
        try:
            granted = await self.issuing.refresh(account.oauth2, refresh)
        except Denied as fault:
            error = await self._denied(account, refresh, claim, fault)
            if old is None or fault.final:
                raise error from None
            return self._kept(account, replace(old, renew_at=self._clock() + REST))
        metrics.TOKENS.labels("refreshed").inc()
        fresh = Fresh(granted.access_token, granted.seconds, refresh, granted.refresh_token)
        if not await self._store(account, claim, fresh):
            raise TokenError("away", CHANGED)
        return self._kept(account, self._timed(account, fresh.token, fresh.seconds, fresh.seconds))

    async def _store(self, account: Account, claim: datetime, fresh: Fresh) -> bool:
        """Waits for PostgreSQL as long as it takes: a refresh token that was replaced may be of no more use."""
        while True:
            try:
                async with db.connection(self._pool) as conn:
                    return await grants.keep(conn, self._vault, account.id, account.updated_at, claim, fresh)
            except StoreAway as error:
                log.warning("a token of %s waits for PostgreSQL: %s", account.id, error, extra={"account": account.id})
            await asyncio.sleep(AGAIN)

    async def _denied(self, account: Account, refresh: str, claim: datetime, fault: Denied) -> TokenError:
        """Remembers it for all processes; a refusal stops the account that sends with it."""
        metrics.TOKENS.labels("away" if fault.away else "refused").inc()
        if fault.away:
            async with db.connection(self._pool) as conn:
                await grants.rest(conn, account.id, claim, str(fault), self._settings.upstream_retry)
            return TokenError("away", str(fault))
        error = self._refused(account, str(fault))
        async with db.connection(self._pool) as conn, conn.transaction():
            stands = await grants.refuse(conn, account.id, claim, str(fault), _digest(refresh) if fault.final else None)
            if (
                stands
                and fault.final
                and account.mailgun is None
                and account.smtp is not None
                and bearer.bare(account.smtp)
            ):
                await health.refused(conn, account, error.reason, None, seconds=self._settings.refused_retry)
        if not stands:
            return TokenError("away", CHANGED)
        if fault.final:
            self._live.pop(account.id, None)
        return error

    async def _once(self, oauth2: OAuth2) -> str:
        """For settings that are not stored; neither is what comes of it. The large providers' refresh tokens last."""
        if not oauth2.refresh_token:
            raise TokenError("refused", UNCONNECTED)
        if oauth2.provider == CUSTOM:
            raise TokenError("refused", UNSAVED)
        try:
            return (await self.issuing.refresh(oauth2, oauth2.refresh_token)).access_token
        except Denied as fault:
            raise TokenError("away" if fault.away else "refused", str(fault)) from None

    # -- in memory ---------------------------------------------------------------------------------------------------

    def _opened(self, account: Account, grant: Grant) -> Live | None:
        if grant.token is None or grant.seconds is None or grant.life is None:
            return None
        with suppress(VaultError):  # sealed with a key that is gone: it is had anew
            token = self._vault.open(account.id, grants.TOKEN, grant.token)
            return self._timed(account, token, grant.seconds, grant.life)
        return None

    def _timed(self, account: Account, token: str, seconds: float, life: float) -> Live:
        """Processes do not come together: each renews a little earlier or later than the others."""
        ends = self._clock() + seconds
        ahead = min(AHEAD + random.uniform(0, JITTER), SHARE_AHEAD * life)  # noqa: S311
        return Live(token, account.updated_at, ends - ahead, ends - min(LEAST, SHARE_LEAST * life))

    def _kept(self, account: Account, live: Live) -> Live:
        self._live.pop(account.id, None)
        self._live[account.id] = live
        if len(self._live) > KEPT:  # the one had longest ago, perhaps of an account that is gone: it is stored
            del self._live[next(iter(self._live))]
        return live

    def _refused(self, account: Account, text: str) -> TokenError:
        return TokenError("refused", text, self.link(account)[0])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
