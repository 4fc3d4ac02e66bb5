"""Deliver: one lease, one upstream connection. Per recipient: render, send, classify, commit; only then the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

from relay import metrics, reading
from relay.batch import Batcher
from relay.core import pixel, splice
from relay.core.classify import Verdict, classify
from relay.core.errors import StoreAway
from relay.core.model import Account, AccountState, Leased, Outcome
from relay.core.reply import Reply, Stage
from relay.core.vault import Vault, VaultError
from relay.net import smtp
from relay.settings import Settings
from relay.store import accounts, db, health, leases, messages, outcomes
from relay.store.outcomes import Report
from relay.upstreams import Upstreams
from relay.wake import Waker

log = logging.getLogger("postferry.deliver")

TOGETHER = 100  # recipients of one transaction, where their copies are identical (RFC 5321 4.5.3.1.8)
AGAIN = 0.5  # s between two looks whether PostgreSQL is back
NO_UPSTREAM = "It has no upstream: set its smtp settings, and its mail goes."
FETCHED = 1 << 20  # bytes of content fetched at once; a larger message comes alone
FAULT = (
    Verdict(Outcome.DEFERRED, "internal", "A fault of ours, told in the worker's log. It is tried again."),
    Reply(451, "4.3.0", "Internal error"),
    Stage.LEASE,
)


@dataclass(slots=True)
class Hand:
    """A lease in this worker's hands."""

    id: int
    account: Account
    troubled: bool  # the account's last connection failed
    deadline: float  # of the loop's clock: until then the lease is surely ours
    stop_at: float  # of the loop's clock: what is not reached by then is given back
    connection: smtp.Connection | None = None
    over: bool = False  # nothing more of this lease is to be sent


class Deliverer:
    """Works on leases: one of each worker process, any number of leases at once."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings, self._vault = pool, settings, vault
        self._keys = vault.derive("pixel")
        self._upstreams = Upstreams(settings)
        self._reports: Batcher[Report, bool] = Batcher(self._commit)
        self._waker = Waker(pool)
        self._hands: dict[int, Hand] = {}
        self._beat = asyncio.create_task(self._heartbeat())
        self._stopping = False

    async def deliver(self, lease: int) -> None:
        """Sends what of this lease can be sent now and gives back the rest. A lease that is not ours is left alone."""
        asked = asyncio.get_running_loop().time()
        started = None
        try:
            async with db.connection(self._pool) as conn:
                started = await leases.start(conn, lease, seconds=self._settings.lease_seconds)
                account, obstacle = await self._account(conn, started.account) if started else (None, "")
        except StoreAway as error:
            log.error("lease %s cannot be worked on: %s", lease, error)
            if started is not None:
                await self._release(lease)
            return
        if started is None or account is None:
            metrics.LEASES.labels("lost").inc()
            return
        hand = Hand(
            lease,
            account,
            started.troubled,
            deadline=asked + self._settings.lease_seconds,
            stop_at=asked + self._settings.lease_budget,
        )
        self._hands[lease] = hand
        try:
            if obstacle:
                await self._wait(hand, obstacle)
            else:
                await self._work(hand, started.deliveries)
        except StoreAway as error:
            log.warning("lease %s ends early: %s", lease, error, extra={"account": account.id})
        finally:
            await self._end(hand)

    def stop(self) -> None:
        """Begins nothing more: transactions that are under way end, the rest is given back."""
        self._stopping = True

    async def close(self) -> None:
        """After `stop`, once every `deliver` has returned."""
        self._beat.cancel()
        await self._reports.drain()
        await self._upstreams.close()
        await self._waker.close()

    async def _account(self, conn: db.Connection, id: str) -> tuple[Account | None, str]:
        """Whose lease it is, and what stands against working on it at all."""
        try:
            account = await accounts.get(conn, self._vault, id)
        except VaultError as error:
            return await accounts.get(conn, None, id), str(error)
        return account, NO_UPSTREAM if account and account.smtp is None else ""

    async def _wait(self, hand: Hand, obstacle: str) -> None:
        """The account rests, as with an upstream that is down: released alone, its mail would be back at once."""
        log.warning("mail of %s waits: %s", hand.account.id, obstacle, extra={"account": hand.account.id})
        first = self._settings.upstream_retry
        async with db.connection(self._pool) as conn:
            await health.trouble(conn, hand.account.id, obstacle, first=first, most=60 * first)

    # -- one lease ------------------------------------------------------------------------------------------

    async def _work(self, hand: Hand, rows: Sequence[Leased]) -> None:
        """A fault of ours costs a try, like a reply nobody knows: released alone, such mail would be back for ever."""
        if hand.account.state is AccountState.PAUSED:
            return
        content: dict[UUID, bytes] = {}
        for place, group in groups(rows):
            if hand.over or self._spent(hand):
                return
            message = group[0].message
            if message not in content:
                content = await self._bodies(rows[place:])
            try:
                await self._group(hand, group, content[message])
            except StoreAway:
                raise
            except Exception:
                log.exception("a delivery failed by a fault of ours", extra={"account": hand.account.id})
                await self._record(hand, group, [self._report(hand, row, *FAULT, 0.0) for row in group])

    def _spent(self, hand: Hand) -> bool:
        now = asyncio.get_running_loop().time()
        return self._stopping or now >= min(hand.stop_at, hand.deadline - self._settings.lease_seconds / 4)

    async def _group(self, hand: Hand, rows: Sequence[Leased], content: bytes) -> None:
        """One transaction: a recipient with a copy of its own, or several whose copies are the same."""
        now = datetime.now(UTC)
        late = [row for row in rows if row.expires_at <= now]
        if late:
            await self._record(hand, late, [reading.overdue(row, hand.id) for row in late])
            rows = [row for row in rows if row.expires_at > now]
        if not rows:
            return
        begun = time.perf_counter()
        try:
            results = await self._transact(hand, rows, self._render(rows[0], content))
        except smtp.UpstreamError as error:
            await self._unreachable(hand, rows, error, time.perf_counter() - begun)
            return
        seconds = time.perf_counter() - begun
        judged = [
            (row, reading.LOST if result.lost else classify(result.reply, result.stage), result)
            for row, result in zip(rows, results, strict=True)
        ]
        reports = [
            self._report(hand, row, verdict, result.reply, result.stage, seconds) for row, verdict, result in judged
        ]
        await self._record(hand, rows, reports)
        for _, verdict, result in judged:
            await self._heed(hand, verdict, result.reply)

    def _render(self, row: Leased, content: bytes) -> Sequence[bytes]:
        """This recipient's bytes: the stored ones, with the pixel in its place."""
        if row.splice is None:
            return (content,)
        tag = pixel.tag(self._settings.public_url, pixel.sign(self._keys, row.delivery))
        return splice.render(content, row.splice, tag)

    async def _transact(self, hand: Hand, rows: Sequence[Leased], content: Sequence[bytes]) -> Sequence[smtp.Result]:
        """Sends on the lease's connection. One that proves dead before it said anything is replaced once."""
        connection = hand.connection
        if connection is None or not connection.usable or self._upstreams.served(hand.account, connection):
            self._leave(hand)
            connection = hand.connection = await self._upstreams.take(hand.account)
            await self._is_well(hand)
        first = await self._send(connection, rows, content)
        if not any(result.stale for result in first):
            return first
        self._leave(hand)
        connection = hand.connection = await self._upstreams.fresh(hand.account)
        return await self._send(connection, rows, content)

    @staticmethod
    async def _send(
        connection: smtp.Connection, rows: Sequence[Leased], content: Sequence[bytes]
    ) -> Sequence[smtp.Result]:
        return await connection.transact(
            rows[0].sender,
            [row.recipient for row in rows],
            content,
            smtputf8=rows[0].smtputf8,
            eightbit=rows[0].eightbit,
        )

    def _leave(self, hand: Hand) -> None:
        if hand.connection is not None:
            self._upstreams.drop(hand.connection)
            hand.connection = None

    async def _end(self, hand: Hand) -> None:
        """Gives back what was not reached, and the connection to those who come after."""
        del self._hands[hand.id]
        if hand.connection is not None:
            self._upstreams.give_back(hand.account, hand.connection)
        held = await self._release(hand.id)
        if held:
            metrics.HELD.labels(metrics.account_label(hand.account.id)).inc(held)
        self._waker.wake(hand.account.id)

    async def _release(self, lease: int) -> int:
        """Ends the lease, waiting for PostgreSQL as long as it takes: one that expires would leave a doubt."""
        while True:
            try:
                async with db.connection(self._pool) as conn:
                    return await leases.release(conn, [lease])
            except StoreAway as error:
                if self._stopping:
                    log.warning("lease %s is left to expire: %s", lease, error)
                    return 0
            await asyncio.sleep(AGAIN)

    # -- what upstream said ------------------------------------------------------------------------------------

    def _report(self, hand: Hand, row: Leased, verdict: Verdict, reply: Reply, stage: Stage, seconds: float) -> Report:
        assert hand.account.smtp is not None
        return reading.report(
            row,
            hand.id,
            verdict,
            reply,
            stage,
            seconds=seconds,
            upstream=f"{hand.account.smtp.host}:{hand.account.smtp.port}",
            now=datetime.now(UTC),
            limited=bool(hand.account.limits.windows),
            settings=self._settings,
        )

    async def _unreachable(self, hand: Hand, rows: Sequence[Leased], error: smtp.UpstreamError, seconds: float) -> None:
        """No connection: the trouble is the account's, not these recipients'. One try is spent, the account rests."""
        hand.over = True
        verdict = classify(error.reply, error.stage)
        log.warning(
            "no connection to the upstream of %s at %s: %s",
            hand.account.id,
            error.stage,
            error.reply,
            extra={"account": hand.account.id},
        )
        if not verdict.pauses:
            temporary = Verdict(Outcome.DEFERRED, verdict.category, verdict.advice, verdict.wait)
            await self._record(
                hand, rows, [self._report(hand, row, temporary, error.reply, error.stage, seconds) for row in rows]
            )
        await self._tell(hand, verdict, error.reply, trouble=True)

    async def _heed(self, hand: Hand, verdict: Verdict, reply: Reply) -> None:
        """What a reply means for the account as a whole."""
        if verdict.pauses or verdict.rests:
            hand.over = True
            await self._tell(hand, verdict, reply, trouble=False)

    async def _tell(self, hand: Hand, verdict: Verdict, reply: Reply, *, trouble: bool) -> None:
        account, settings = hand.account.id, self._settings
        why = f"{verdict.advice} Upstream said: {reply}" if verdict.advice else f"Upstream said: {reply}"
        async with db.connection(self._pool) as conn:
            if verdict.pauses:
                await health.refused(conn, account, why, seconds=settings.refused_retry)
            elif verdict.rests and verdict.wait:
                await health.throttled(conn, account, why, seconds=verdict.wait)
            elif trouble:
                first = settings.upstream_retry
                await health.trouble(conn, account, why, first=first, most=60 * first)

    async def _is_well(self, hand: Hand) -> None:
        """The first connection after trouble ends the trouble."""
        if hand.troubled:
            hand.troubled = False
            async with db.connection(self._pool) as conn:
                await health.well(conn, hand.account.id)

    # -- the store ---------------------------------------------------------------------------------------------

    async def _bodies(self, rows: Sequence[Leased]) -> dict[UUID, bytes]:
        """Content for the next deliveries: several small messages at once, a large one alone."""
        wanted: dict[UUID, int] = {}
        for row in rows:
            if wanted and row.message not in wanted and sum(wanted.values()) + row.size > FETCHED:
                break
            wanted[row.message] = row.size
        async with db.connection(self._pool) as conn:
            return await messages.bodies(conn, wanted)

    async def _record(self, hand: Hand, rows: Sequence[Leased], reports: Sequence[Report]) -> None:
        """Commits outcomes, waiting for PostgreSQL as long as it takes: what was sent must be known as sent."""
        while True:
            try:
                kept = await asyncio.gather(*map(self._reports.add, reports))
                break
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                log.warning("outcomes wait for PostgreSQL: %s", error, extra={"account": hand.account.id})
                if self._stopping:
                    hand.over = True
                    return
                await asyncio.sleep(AGAIN)
        if not all(kept):
            hand.over = True
            metrics.LEASES.labels("lost").inc()
            log.warning(
                "lease %s was lost before its outcomes were recorded", hand.id, extra={"account": hand.account.id}
            )
        self._count(hand, rows, reports)

    def _count(self, hand: Hand, rows: Sequence[Leased], reports: Sequence[Report]) -> None:
        label = metrics.account_label(hand.account.id)
        for row, report in zip(rows, reports, strict=True):
            if report.outcome is Outcome.SENT:
                late = datetime.now(UTC) - max(row.due_at, row.accepted_at)
                metrics.ACCEPT_TO_SENT_SECONDS.observe(late.total_seconds())
            metrics.OUTCOMES.labels(label, report.outcome.value).inc()
            metrics.ATTEMPT_SECONDS.labels(report.outcome.value).observe(report.seconds)
            if report.outcome is Outcome.UNKNOWN:
                metrics.UNKNOWN.labels(label).inc()
            log.info(
                report.state.value,
                extra={
                    "queueId": row.message.hex,
                    "account": hand.account.id,
                    "delivery": row.delivery,
                    "attempt": row.attempts + report.tried,
                    "outcome": report.outcome.value,
                    "stage": report.stage,
                    "reply": f"{report.code or ''} {report.enhanced} {report.reply}".strip(),
                    "seconds": round(report.seconds, 3),
                },
            )

    async def _commit(self, batch: list[Report]) -> Sequence[bool | Exception]:
        metrics.COMMIT_SIZE.labels("outcome").observe(len(batch))
        async with db.connection(self._pool) as conn:
            return await outcomes.commit(conn, batch)

    async def _heartbeat(self) -> None:
        """Renews the leases in hand, four times in their life. A lease that is gone is put down at once."""
        seconds = self._settings.lease_seconds
        while True:
            await asyncio.sleep(seconds / 4)
            asked = asyncio.get_running_loop().time()
            hands = dict(self._hands)
            if not hands:
                continue
            try:
                async with db.connection(self._pool) as conn:
                    ours = await leases.renew(conn, hands, seconds=seconds)
            except Exception as error:  # whatever it is: the next beat may come through, and without one all goes twice
                log.warning("leases could not be renewed: %s", error)
                continue
            for id, hand in hands.items():
                if id in ours:
                    hand.deadline = asked + seconds
                else:
                    hand.over = True


def groups(rows: Sequence[Leased]) -> Iterator[tuple[int, Sequence[Leased]]]:
    """Place and rows of each transaction: recipients of one message whose copies are identical go together."""
    place = 0
    for (_, shared), run in groupby(rows, key=lambda row: (row.message, row.splice is None)):
        together = list(run)
        step = TOGETHER if shared else 1
        for start in range(0, len(together), step):
            yield place + start, together[start : start + step]
        place += len(together)
