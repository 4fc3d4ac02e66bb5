"""The leases in a worker's hands: begun once, cut into transactions, renewed while worked on, given back at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from relay import metrics
from relay.core.errors import StoreAway
from relay.core.model import Leased
from relay.core.tenant import Account
from relay.core.vault import Vault, VaultError
from relay.ending import until
from relay.net.envelope import Envelope
from relay.settings import Settings
from relay.store import accounts, db, leases
from relay.upstreams import Connection
from relay.wake import Waker

log = logging.getLogger("postferry.deliver")

FETCHED = 1 << 20  # bytes of content fetched at once; a larger message comes alone
AGAIN = 0.5  # s between two looks whether PostgreSQL is back
NO_UPSTREAM = "It has no upstream: set its smtp or mailgun settings, and its mail goes."


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one transaction carries: a recipient's own copy, or the same copy for several."""

    rows: Sequence[Leased]
    envelope: Envelope
    content: Sequence[bytes]  # in slices


@dataclass(slots=True)
class Hand:
    """A lease in this worker's hands. Both times are of the loop's clock."""

    id: int
    account: Account
    rows: Sequence[Leased]
    obstacle: str  # why nothing of it can be sent at all; "" when it can
    troubled: bool  # the account's last connection failed
    deadline: float  # until then the lease is surely ours
    stop_at: float  # what is not reached by then is given back
    connection: Connection | None = None
    ahead: Parcel | None = None  # what its connection sends next, ready before its turn
    in_doubt: bool = False  # upstream may have what is worked on, and the store does not know
    over: bool = False  # nothing more of it is to be sent
    pauses: bool = False  # it is not given back at once: it would be here again at once


class Hands:
    """All leases that this process works on."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings, self._vault = pool, settings, vault
        self._held: dict[int, Hand] = {}
        self._clock = asyncio.get_running_loop().time
        self._waker = Waker(pool)
        self._beat = asyncio.create_task(self._heartbeat())
        self._stopped = asyncio.Event()

    async def begin(self, lease: int) -> Hand | None:
        """The lease, if it is ours to work on. While PostgreSQL is away it waits, and others may begin it meanwhile."""
        told = False
        while not self.stopping:
            try:
                return await self._begin(lease)
            except StoreAway as error:
                if not told:
                    log.error("lease %s cannot be worked on yet: %s", lease, error, extra={"lease": lease})
            told = True
            await self.pause(AGAIN)
        return None

    async def _begin(self, lease: int) -> Hand | None:
        asked = self._clock()
        started = None
        try:
            async with db.connection(self._pool) as conn:
                started = await leases.start(conn, lease, seconds=self._settings.lease_seconds)
                account, obstacle = await self._account(conn, started.account) if started else (None, "")
        except StoreAway:
            if started is not None:
                await self._release(lease)
            raise
        if started is None or account is None:
            metrics.LEASES.labels("lost").inc()
            return None
        self._held[lease] = hand = Hand(
            lease,
            account,
            started.deliveries,
            obstacle,
            started.troubled,
            deadline=asked + self._settings.lease_seconds,
            stop_at=asked + self._settings.lease_budget,
        )
        return hand

    def ours(self, hand: Hand) -> bool:
        """Whether the lease surely is: asked before the moment that cannot be taken back."""
        return not hand.over and self._clock() < hand.deadline

    def spent(self, hand: Hand) -> bool:
        """Whether nothing more of it may be begun: its time is over, or ours."""
        return not self.sound(hand) or self._clock() >= hand.stop_at

    def sound(self, hand: Hand) -> bool:
        """Whether what was begun of it may be ended, in its time or beyond."""
        margin = self._settings.lease_seconds / 4
        return not hand.over and not self.stopping and self._clock() < hand.deadline - margin

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stopped.set()

    async def pause(self, seconds: float) -> None:
        """So long, or until we stop."""
        await until(self._stopped, seconds)

    async def end(self, hand: Hand) -> None:
        """Gives back what was not reached: a hold, that spends no attempt."""
        self.abandon(hand)
        held = await self._release(hand.id)
        if held:
            metrics.HELD.labels(metrics.account_label(hand.account.id)).inc(held)
        self._waker.wake(hand.account.id)

    def abandon(self, hand: Hand) -> None:
        """Lets the lease expire: what upstream has of it is not known, and its recovery says so."""
        self._held.pop(hand.id, None)

    async def close(self) -> None:
        self._beat.cancel()
        await self._waker.close()

    async def _account(self, conn: db.Connection, id: str) -> tuple[Account | None, str]:
        """Whose lease it is, and what stands against working on it at all."""
        try:
            account = await accounts.get(conn, self._vault, id)
        except VaultError as error:
            return await accounts.get(conn, None, id), str(error)
        return account, NO_UPSTREAM if account and account.upstream is None else ""

    async def _release(self, lease: int) -> int:
        """Ends the lease, waiting for PostgreSQL as long as it takes: one that expires would leave a doubt."""
        while True:
            try:
                async with db.connection(self._pool) as conn:
                    return await leases.release(conn, [lease])
            except StoreAway as error:
                if self.stopping:
                    log.warning("lease %s is left to expire: %s", lease, error, extra={"lease": lease})
                    return 0
            await asyncio.sleep(AGAIN)

    async def _heartbeat(self) -> None:
        """Renews what is held, four times in its life. A lease that is gone is put down at once."""
        seconds = self._settings.lease_seconds
        while True:
            await asyncio.sleep(seconds / 4)
            asked, held = self._clock(), dict(self._held)
            if not held:
                continue
            try:
                async with db.connection(self._pool) as conn:
                    ours = await leases.renew(conn, held, seconds=seconds)
            except Exception as error:  # whatever it is: the next beat may come through, and without one all goes twice
                log.warning("leases could not be renewed: %s", error)
                continue
            for id, hand in held.items():
                if id in ours:
                    hand.deadline = asked + seconds
                else:
                    hand.over = True


def groups(rows: Iterable[Leased], most: int) -> Iterator[Sequence[Leased]]:
    """The rows of each transaction: up to `most` recipients of one message whose copies are identical go together."""
    for (_, shared), run in groupby(rows, key=lambda row: (row.message, row.splice is None)):
        together = list(run)
        step = most if shared else 1
        for start in range(0, len(together), step):
            yield together[start : start + step]


def next_content(rows: Sequence[Leased]) -> dict[UUID, int]:
    """Messages, with their sizes, whose content is fetched next: several small ones at once, a large one alone."""
    wanted: dict[UUID, int] = {}
    total = 0
    for row in rows:
        if row.message in wanted:
            continue
        total += row.size
        if wanted and total > FETCHED:
            break
        wanted[row.message] = row.size
    return wanted
