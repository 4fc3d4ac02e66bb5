"""Outcomes are recorded: committed in groups across the process, then counted and logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from relay import metrics
from relay.batch import Batcher
from relay.core.errors import StoreAway
from relay.core.model import Leased, Outcome
from relay.hands import AGAIN, Hand, Hands
from relay.store import db, outcomes
from relay.store.outcomes import Report

log = logging.getLogger("postferry.deliver")

LANES = 3  # commits at once, of the connections that PostgreSQL gives the process
FEW = 4  # outcomes in them: a connection to a far upstream waits for its own commit alone; busy ones share theirs


class Recorder:
    """One of each worker process: all its connections share commits."""

    def __init__(self, pool: db.Pool, hands: Hands) -> None:
        self._pool, self._hands = pool, hands
        self._batcher: Batcher[Report, bool] = Batcher(self._commit, lanes=LANES, few=FEW)

    async def record(self, hand: Hand, rows: Sequence[Leased], reports: Sequence[Report]) -> None:
        """Commits outcomes, waiting for PostgreSQL as long as it takes: what was sent must be known as sent.

        Only when we stop is it left to the recovery of the lease, which stays in doubt.
        """
        while True:
            try:
                kept = await asyncio.gather(*map(self._batcher.add, reports))
                break
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                log.warning("outcomes wait for PostgreSQL: %s", error, extra={"account": hand.account.id})
                if self._hands.stopping:
                    hand.over = True
                    return
                await asyncio.sleep(AGAIN)
        hand.in_doubt = False
        if not all(kept):
            hand.over = True
            metrics.LEASES.labels("lost").inc()
            log.warning("a lease was lost before its outcomes were recorded", extra=_lease(hand))
        for row, report, ours in zip(rows, reports, kept, strict=True):
            if ours:
                _count(hand.account.id, row, report)
                _tell(hand.account.id, row, report)

    async def close(self) -> None:
        """Lets what is running end."""
        await self._batcher.drain()

    async def _commit(self, batch: list[Report]) -> Sequence[bool | Exception]:
        metrics.COMMIT_SIZE.labels("outcome").observe(len(batch))
        async with db.connection(self._pool) as conn:
            return await outcomes.commit(conn, batch)


def _count(account: str, row: Leased, report: Report) -> None:
    label = metrics.account_label(account)
    outcome = report.outcome.value
    metrics.OUTCOMES.labels(label, outcome).inc()
    metrics.ATTEMPT_SECONDS.labels(outcome).observe(report.seconds)
    if report.upstream:
        upstream = metrics.upstream_label(report.upstream.rpartition(":")[0])
        metrics.UPSTREAM_OUTCOMES.labels(upstream, outcome).inc()
        metrics.UPSTREAM_SECONDS.labels(upstream).observe(report.seconds)
    if report.outcome is not Outcome.SENT:
        metrics.SETBACKS.labels(outcome, report.category).inc()
    if report.outcome is Outcome.SENT:
        late = datetime.now(UTC) - max(row.due_at, row.accepted_at)
        metrics.ACCEPT_TO_SENT_SECONDS.observe(late.total_seconds())
    metrics.UNKNOWN.labels(label).inc(report.outcome is Outcome.UNKNOWN)  # a zero first, or the first one is not seen


def _tell(account: str, row: Leased, report: Report) -> None:
    log.info(
        report.state.value,
        extra={
            "queueId": row.message.hex,
            "account": account,
            "delivery": row.delivery,
            "attempt": row.attempts + report.tried,
            "outcome": report.outcome.value,
            "stage": report.stage,
            "reply": f"{report.code or ''} {report.enhanced} {report.reply}".strip(),
            "seconds": round(report.seconds, 3),
        },
    )


def _lease(hand: Hand) -> dict[str, object]:
    return {"lease": hand.id, "account": hand.account.id}
