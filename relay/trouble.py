"""What an upstream's replies mean for its account as a whole: it rests, it stops, or it is well again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from relay import metrics
from relay.core.classify import Verdict
from relay.core.reply import Reply
from relay.core.tenant import Account, AccountState
from relay.hands import Hand
from relay.net.smtp import UpstreamError
from relay.reach import Reach
from relay.settings import Settings
from relay.store import db, health
from relay.tokens import TokenError

log = logging.getLogger("postferry.deliver")

PAUSE = 5.0  # s that a lease is kept whose host cannot reach what others reach
NOBODY = ("dns", "unreachable")  # kinds of UpstreamError: nobody answered
MOST = 60  # times the first pause that an unreachable upstream is left alone for


class Trouble:
    """Tells the store how accounts fare. Whoever is in trouble is leased nothing, or one delivery to try it with."""

    def __init__(self, pool: db.Pool, settings: Settings) -> None:
        self._pool, self._settings = pool, settings
        self.reach = Reach()

    async def obstacle(self, hand: Hand) -> None:
        """Nothing of the account can be sent as it is. It rests: released alone, its mail would be back at once."""
        log.warning("mail of %s waits: %s", hand.account.id, hand.obstacle, extra={"account": hand.account.id})
        await self._rest(hand, hand.obstacle, None)

    async def untokened(self, hand: Hand, error: TokenError) -> None:
        """There is no access token to log in with: nothing was tried, and no try is spent."""
        account, hand.over = hand.account, True
        if error.kind == "away" or account.state is AccountState.ACTIVE:  # of a paused one it was told
            log.warning("mail of %s waits to be let in again: %s", account.id, error, extra={"account": account.id})
        if error.kind == "away":
            await self._rest(hand, error.reason, None)
        else:
            await self._refused(hand, error.reason, None)

    async def cut_off(self, hand: Hand, error: UpstreamError, seconds: float) -> bool:
        """Whether it is our host that reaches nobody, while others do: that speaks of no account, and of no mail."""
        assert hand.account.upstream is not None
        if error.kind in NOBODY:
            async with db.connection(self._pool) as conn:
                if await health.gets_through(conn, hand.account.id, seconds=seconds + PAUSE):
                    self.reach.missed(hand.account.upstream.label)
        elif error.kind != "lost":
            self.reach.reached()
        return self.reach.cut

    async def unreachable(self, hand: Hand, verdict: Verdict, reply: Reply, seconds: float) -> None:
        """No connection could be made within so many seconds. The account rests, unless its mail got through meanwhile.

        Then just this lease pauses: its host may be cut off, or upstream may take no more connections.
        """
        account, why = hand.account, _why(verdict, reply)
        log.warning("no connection to the upstream of %s: %s", account.id, reply, extra={"account": account.id})
        if await self.heed(hand, verdict, reply):
            return
        _count(account, "unreachable")
        async with db.connection(self._pool) as conn:
            hand.pauses = await health.gets_through(conn, account.id, seconds=seconds + PAUSE)
        if not hand.pauses:
            await self._rest(hand, why, reply)

    async def heed(self, hand: Hand, verdict: Verdict, reply: Reply) -> bool:
        """A reply that speaks of the account rather than of one mail. False: it does not."""
        account, why = hand.account, _why(verdict, reply)
        if not (verdict.pauses or (verdict.rests and verdict.wait)):
            return False
        hand.over = True
        if verdict.pauses:
            _count(account, "refused")
            await self._refused(hand, why, reply)
        else:
            _count(account, "throttled")
            await self._tell(hand, lambda conn: health.throttled(conn, account, why, seconds=verdict.wait or 0.0))
        return True

    async def over(self, hand: Hand) -> None:
        """The first connection after trouble ends the trouble."""
        hand.troubled = not await self._tell(hand, lambda conn: health.well(conn, hand.account.id))

    async def _rest(self, hand: Hand, why: str, reply: Reply | None) -> None:
        first = self._settings.upstream_retry
        await self._tell(
            hand, lambda conn: health.trouble(conn, hand.account, why, reply, first=first, most=MOST * first)
        )

    async def _refused(self, hand: Hand, why: str, reply: Reply | None) -> None:
        seconds = self._settings.refused_retry
        await self._tell(hand, lambda conn: health.refused(conn, hand.account, why, reply, seconds=seconds))

    async def _tell(self, hand: Hand, tell: Callable[[db.Connection], Awaitable[None]]) -> bool:
        """False: somebody has locked the account. Its lease pauses instead, and whoever comes next tells it."""
        async with db.connection(self._pool) as conn:
            told = await health.promptly(conn, tell)
        if not told:
            hand.pauses = True
            log.warning("the account %s is locked", hand.account.id, extra={"account": hand.account.id})
        return told


def _count(account: Account, kind: str) -> None:
    if account.upstream is not None:
        host = account.upstream.label.rpartition(":")[0]
        metrics.UPSTREAM_TROUBLES.labels(metrics.upstream_label(host), kind).inc()


def _why(verdict: Verdict, reply: Reply) -> str:
    return f"{verdict.advice} Upstream said: {reply}" if verdict.advice else f"Upstream said: {reply}"
