"""The scheduler: promotes what has become due, leases it account by account, hands the leases to the workers, and takes
back what was lost. Any number may run: every claim is settled in PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dramatiq.brokers.redis import RedisBroker

from relay import ending, metrics, ready, role
from relay.core import limits
from relay.core.errors import StoreAway
from relay.settings import Settings
from relay.store import db, leases, schema, turns
from relay.store.leases import Lease
from workers import broker as brokers
from workers.housekeeping import Housekeeper
from workers.outage import Outage

log = logging.getLogger("postferry.scheduler")

TURN = 100  # accounts whose turn comes in one database transaction
GATHER = 0.03  # s; between two turns, so that what comes meanwhile shares a lease
PUT_OFF = 60.0  # s that an account waits which met a fault of ours
LOOK_AGAIN = 1.0  # s; a hold is believed so long at most, since the limit itself may be changed
MOST_WAITING = 400  # leases that no worker has begun: more would only grow old in the broker
FORGOTTEN = 2.0  # s after which a lease that was not begun is enqueued again: a host that lost PostgreSQL keeps some
RECONNECT = 3.0  # s that a worker takes at most to notice that PostgreSQL is back


class Hold(NamedTuple):
    """An account that a limit holds. Both of the loop's time: when a slot frees, and when to look whether it is so."""

    frees: float
    again: float


class Scheduler:
    """One pulse: promote, grant, enqueue, recover. What it remembers (turns, holds) only saves work."""

    def __init__(self, pool: db.Pool, broker: RedisBroker, settings: Settings) -> None:
        self._pool, self._broker, self._settings = pool, broker, settings
        self._outage = Outage()
        self._due: set[str] = set()  # accounts that were named as having work
        self._more: set[str] = set()  # accounts that had more than one lease could hold
        self._look = True  # go through the accounts with work, whoever they are
        self._full = False  # more leases wait than workers begin
        self._cursor = ""  # the account whose turn was last
        self._held: dict[str, Hold] = {}
        self._share = limits.share(0)
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._recover_at = 0.0
        self._seen = float("-inf")  # the loop's time when PostgreSQL was last here
        self._trust_after = 0.0  # the loop's time before which nothing is recovered

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`. An outage of PostgreSQL or Redis is waited out, and a fault of ours."""
        listener = asyncio.create_task(self._listen())
        stopper = asyncio.create_task(self._stop(stopping))
        housekeeper = asyncio.create_task(Housekeeper(self._pool, self._settings).run())
        try:
            while not stopping.is_set():
                try:
                    busy = await self._pulse()
                    await self._rest(busy)
                except StoreAway as error:
                    metrics.STORE_ERRORS.inc()
                    log.warning("waiting for PostgreSQL: %s", error)
                    self._look = True
                    await ending.until(stopping, 0.5)
                except brokers.BrokerAway as error:
                    metrics.REDIS_ERRORS.inc()
                    self._outage.tell(error)
                    await ending.until(stopping, 0.5)
                except schema.MISSING:
                    raise
                except Exception:  # a restart would meet it again
                    log.exception("the pulse is put off by a fault of ours")
                    self._look = True
                    await ending.until(stopping, LOOK_AGAIN)
        finally:
            await ending.end((listener, stopper, housekeeper))

    async def _pulse(self) -> bool:
        """One round. True: there is more to do at once."""
        look, self._look = self._look, False
        async with db.connection(self._pool) as conn:
            self._due |= await turns.promote(conn)
            if self._clock() >= self._recover_at:
                self._recover_at = self._clock() + self._settings.tick_seconds
                await self._recover(conn)
            held, waiting = await leases.count(conn)
            self._full = waiting >= MOST_WAITING
            if self._full:
                self._look = True
                return False
            self._share = limits.share(self._settings.worker_leases - held)
            granted = await self._grant(conn, self._named())
            if look:
                granted += await self._turn(conn)
        return granted > 0 or len(self._due) > 0

    def _named(self) -> list[str]:
        """A turn's worth of the accounts that were named as having work, or whose slot has just freed."""
        now = self._clock()
        freed = [account for account, hold in self._held.items() if hold.frees <= now]
        for account in freed:
            del self._held[account]
        named = self._free(self._due.union(self._more, freed))
        self._due, self._more = set(named[TURN:]), set()
        return named[:TURN]

    async def _turn(self, conn: db.Connection) -> int:
        """The next accounts with work, whoever they are; the round goes on from there."""
        accounts = await turns.accounts_with_work(conn, self._cursor, most=TURN)
        self._cursor = accounts[-1] if len(accounts) == TURN else ""
        if len(accounts) == TURN:
            self._look = True
        granted = await self._grant(conn, self._free(accounts))
        if granted:
            self._look = True
        return granted

    def _free(self, accounts: Iterable[str]) -> list[str]:
        """Without those that a limit was just seen to hold."""
        now = self._clock()
        return [account for account in accounts if account not in self._held or self._held[account].again <= now]

    async def _grant(self, conn: db.Connection, accounts: Collection[str]) -> int:
        """Leases for these accounts, one each, in one database transaction; then enqueued."""
        granted = await self._leases(conn, accounts) if accounts else []
        await self._enqueue(conn, granted)
        metrics.LEASES.labels("granted").inc(len(granted))
        return len(granted)

    async def _leases(self, conn: db.Connection, accounts: Collection[str]) -> list[Lease]:
        """An account that meets a fault of ours is left out for a while: its mail waits, and that of no other."""
        try:
            with db.away_is_said():
                return await self._claim(conn, accounts)
        except (StoreAway, *schema.MISSING):
            raise
        except Exception as fault:
            if len(accounts) > 1:
                return [lease for account in accounts for lease in await self._leases(conn, [account])]
            (account,) = accounts
            log.error("mail of %s waits by a fault of ours", account, exc_info=fault, extra={"account": account})
            again = self._clock() + PUT_OFF
            self._held[account] = Hold(again, again)
            return []

    async def _claim(self, conn: db.Connection, accounts: Collection[str]) -> list[Lease]:
        async with conn.transaction():
            turn = await turns.take_turn(conn, accounts)
            size = self._settings.lease_size
            usages = await turns.usage(conn, turn, size=size, share=self._share) if turn else []
            rooms = {usage.account: limits.room(usage) for usage in usages}
            open_rooms = {account: room for account, room in rooms.items() if room > 0}
            granted = await turns.grant(conn, open_rooms, seconds=self._settings.lease_seconds) if open_rooms else []
        for usage in usages:
            if rooms[usage.account] <= 0:
                await self._hold(conn, usage)
        self._more |= {lease.account for lease in granted if lease.size >= rooms[lease.account]}
        return granted

    async def _hold(self, conn: db.Connection, usage: limits.Usage) -> None:
        """Remembers until when a window holds the account; what is in flight ends its own hold by a wake-up."""
        waits = [await turns.slot_frees(conn, usage.account, held.seconds, held.need) for held in limits.held_by(usage)]
        known = [wait for wait in waits if wait is not None]
        if len(known) == len(waits) and known:
            now = self._clock()
            self._held[usage.account] = Hold(now + max(known), now + LOOK_AGAIN)

    async def _enqueue(self, conn: db.Connection, granted: Collection[Lease]) -> None:
        """Hands leases to the workers; those that the broker did not take are given back at once."""
        left = list(granted)
        try:
            while left:
                brokers.enqueue(self._broker, left[-1].id, left[-1].priority)
                left.pop()
        except brokers.BrokerAway:
            await leases.withdraw(conn, [lease.id for lease in left])
            self._due.update(lease.account for lease in left)
            raise

    async def _recover(self, conn: db.Connection) -> None:
        for lost in await leases.recover(conn) if self._trusts() else ():
            metrics.LEASES.labels("recovered").inc()
            if lost.unknown:
                metrics.UNKNOWN.labels(metrics.account_label(lost.account)).inc(lost.unknown)
            log.warning(
                "lease %s was recovered; %s may have been sent", lost.id, lost.unknown, extra={"account": lost.account}
            )
            self._due.add(lost.account)
        forgotten = await leases.forgotten(conn, seconds=FORGOTTEN)
        await self._enqueue(conn, forgotten)
        metrics.LEASES.labels("reenqueued").inc(len(forgotten))

    def _trusts(self) -> bool:
        """Whether a lease that expired means a worker that is lost.

        Where PostgreSQL was away from us, or we from it, it may have been away from the workers too: they record and
        renew first, for what they sent must not be sent again.
        """
        now, beat = self._clock(), self._settings.lease_seconds / 4
        if now - self._seen > max(beat, 2 * self._settings.tick_seconds):
            self._trust_after = now + beat + RECONNECT
        self._seen = now
        return now >= self._trust_after

    async def _rest(self, busy: bool) -> None:
        """Until something is due: named by a wake-up, known by its hour, or found by the next pulse."""
        if self._more and busy:
            return
        if busy or self._full:
            await asyncio.sleep(GATHER)
        if busy and (self._due or self._look):
            return
        await ending.until(self._woken, await self._until_next())
        self._look = self._look or not self._woken.is_set()
        self._woken.clear()

    async def _until_next(self) -> float:
        now = self._clock()
        if self._full:  # a slot that frees is of no use
            return self._settings.tick_seconds
        async with db.connection(self._pool) as conn:
            due = await turns.next_due(conn)
        waits = [self._settings.tick_seconds, *(hold.frees - now for hold in self._held.values())]
        if due is not None:
            waits.append(due)
        return max(0.001, min(waits))

    async def _listen(self) -> None:
        """Hears the wake-ups, on a connection of its own."""
        while True:
            try:
                async with db.connection(self._pool) as conn:
                    async for accounts in turns.listen(conn):
                        self._due.update(accounts)
                        self._look = self._look or not accounts
                        self._woken.set()
            except Exception as error:  # whatever it is: without wake-ups the pulse still finds what is due
                log.warning("wake-ups are not heard: %s", error)
                await asyncio.sleep(0.5)

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._woken.set()


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """The role, until `stopping`."""
    async with db.pooled(settings, most=3, generic=True) as pool:
        source = brokers.connect(settings)
        ready.announce()
        await Scheduler(pool, source, settings).run(stopping)
    source.close()


def main() -> int:
    return role.run("scheduler", serve, keys=False, broker=brokers.fault)


if __name__ == "__main__":
    sys.exit(main())
