"""A report is recorded, and counted: what it changed, and what was about nothing of ours."""

from __future__ import annotations

import logging

from relay import metrics
from relay.core.bounce import Reported
from relay.core.report import Kind
from relay.store import bounces
from relay.store.db import Connection

log = logging.getLogger("postferry.bounces")


async def record(conn: Connection, account: str, reported: Reported, *, patient: bool = False) -> int:
    """Tells how many deliveries it changed; 0 for one that was met before. Raises LookupError for no such account.

    To who is `patient` it raises Early, where the report was faster than the record of the send.
    """
    done = await bounces.record(conn, account, reported, patient=patient)
    if done.met:
        return 0
    if not done.matched:
        metrics.REPORTS_UNMATCHED.labels(reported.source).inc()
    for one in done.changed:
        metrics.REPORTED.labels(metrics.account_label(account), reported.kind.value).inc()
        if reported.kind is Kind.BOUNCE:
            metrics.BOUNCES.labels(one.finding.category).inc()
    if done.changed:
        log.info("%s: %d of %s", reported.kind.value, len(done.changed), account, extra={"account": account})
    return len(done.changed)
