"""The webhook outbox is drained: postings are claimed in turn, posted side by side, and settled in groups.

No endpoint takes from the others: each has a bounded number of posts in flight, one that fails has one, and the last
slots are kept for endpoints that have none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from relay import metrics
from relay.batch import Batcher
from relay.core import webhook
from relay.core.errors import StoreAway
from relay.core.masking import masked
from relay.core.vault import Vault
from relay.ending import end, until
from relay.net import http
from relay.settings import Settings
from relay.store import db, endpoints, postings, schema
from relay.store.endpoints import Endpoint
from relay.store.postings import Claim, Fared, Posting, Tried

log = logging.getLogger("postferry.notify")

EACH = 16  # posts in flight to one endpoint, from one process
SPARED = 4  # one in so many slots is for endpoints that have nothing in flight
TIRED = 10  # failures in a row after which an endpoint rests between two tries, for the first wait of the schedule
LONGEST_REST = 60.0  # s; or so long
IDLE = 0.2  # s between two looks when nothing was due
GATHER = 0.002  # s; posts that end meanwhile share a claim
AGAIN = 0.5  # s between two looks whether PostgreSQL is back
PUT_OFF = 1.0  # s after a fault of ours
GRACE = 4.0  # s that posts in flight have when the process stops
SWEEP = 60.0  # s between two looks for postings whose endpoint is gone
SWEPT = 1000
LOCKED = "Its secret cannot be opened: it was sealed with a key that POSTFERRY_SECRET_KEYS does not have any more"


class Notifier:
    """One of each notify process; any number of processes may run side by side."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings, self._vault = pool, settings, vault
        # Longer than a post may take, so that no other process posts the same try; a killed one's are tried after it.
        self._lease = max(1.0, 3 * settings.webhook_timeout)
        self._poster = http.Poster(seconds=settings.webhook_timeout, allowed=settings.allow_networks)
        self._batcher: Batcher[Tried, bool] = Batcher(self._commit)
        self._posting: dict[asyncio.Task[None], Posting] = {}
        self._resting: dict[int, float] = {}  # endpoint -> the loop's time until which it is left alone
        self._after = 0  # the endpoint whose turn was last
        self._idle = False  # nothing was due since the round before ended
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._sweep_at = 0.0
        self._stopping = asyncio.Event()
        waits = settings.webhook_retries
        self._tired = min(waits[0], LONGEST_REST) if waits else LONGEST_REST

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then what is in flight ends, or is given back. An outage of PostgreSQL is waited out."""
        self._stopping = stopping
        stopper = asyncio.create_task(self._wake_up_to_stop())
        try:
            while not stopping.is_set():
                try:
                    await self._rest(await self._turn())
                except StoreAway as error:
                    metrics.STORE_ERRORS.inc()
                    log.warning("webhooks wait for PostgreSQL: %s", error)
                    await until(stopping, AGAIN)
                except schema.MISSING:
                    raise
                except Exception:  # the other rooms of this role must not end with it
                    log.exception("webhooks are put off by a fault of ours")
                    await until(stopping, PUT_OFF)
        finally:
            stopper.cancel()
            await self._end()

    async def _turn(self) -> bool:
        """Claims what there is room for and begins to post it. True: there may be more at once."""
        most = self._settings.webhook_connections
        free, spare = most - len(self._posting), most // SPARED
        if free <= 0:
            return False
        claimed_at = self._clock()
        async with db.connection(self._pool) as conn:
            found = await postings.claim(
                conn,
                after=self._after,
                most=free - spare if free > spare else free,
                each=EACH,
                share=EACH if free > spare else 1,
                busy=self._busy(),
                seconds=self._lease,
            )
            known = await endpoints.opened(conn, self._vault, sorted({one.endpoint for one in found.postings}))
            if claimed_at >= self._sweep_at:
                await postings.drop_orphans(conn, most=SWEPT)
                self._sweep_at = claimed_at + SWEEP
        self._after = found.after
        self._idle &= not found.postings
        for posting in found.postings:
            self._begin(posting, known.get(posting.endpoint), claimed_at)
        return len(found.postings) > 0 or (found.more and not self._in_vain(found))

    def _in_vain(self, found: Claim) -> bool:
        """A whole round found nothing that is due, however many endpoints have something that is not."""
        ended, before = found.after == 0, self._idle
        self._idle = before or ended
        return ended and before

    def _busy(self) -> Counter[int]:
        """Posts in flight by endpoint; those that rest count as full."""
        now = self._clock()
        self._resting = {endpoint: until for endpoint, until in self._resting.items() if until > now}
        busy = Counter(posting.endpoint for posting in self._posting.values())
        busy.update(dict.fromkeys(self._resting, EACH))
        return busy

    def _begin(self, posting: Posting, endpoint: Endpoint | None, claimed_at: float) -> None:
        task = asyncio.create_task(self._deliver(posting, endpoint, claimed_at))
        self._posting[task] = posting
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._posting.pop(task, None)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("a webhook ended by a fault of ours", exc_info=error)

    async def _deliver(self, posting: Posting, endpoint: Endpoint | None, claimed_at: float) -> None:
        """One try, from the claim to its record."""
        if self._clock() - claimed_at > self._lease - self._settings.webhook_timeout:
            return  # this process stood still: another one may have it by now
        try:
            tried = await self._try(posting, endpoint)
        except http.Exhausted as error:
            log.error("webhooks wait: %s", error)
            await self._give_back([posting], 1.0)
            return
        if tried.error and posting.failures >= TIRED:
            self._resting[posting.endpoint] = self._clock() + self._tired
        await self._record(tried)
        outcome = {"delivered": "delivered", "pending": "retried", "failed": "failed"}[tried.state]
        metrics.WEBHOOKS.labels(outcome).inc()
        metrics.WEBHOOK_SECONDS.labels(outcome).observe(tried.seconds)

    async def _try(self, posting: Posting, endpoint: Endpoint | None) -> Tried:
        """Posts it, whatever happens: a fault of ours costs a try, or it would be back for ever."""
        if endpoint is None:
            return self._tried(posting, "", http.Answer(None, LOCKED, 0.0, ""))
        begun, at = time.perf_counter(), datetime.now(UTC)
        try:
            body = webhook.body(self._settings.public_url, posting.account, posting.at, posting.type, posting.data)
            secrets = [secret for secret in (endpoint.secret, endpoint.old_secret) if secret]
            headers = webhook.headers(posting.event, body, secrets, at, endpoint.headers)
            answer = await self._poster.post(endpoint.url, body, headers)
            answer = _masked(answer, [*secrets, *endpoint.headers.values()])
        except http.Exhausted:
            raise
        except Exception:
            log.exception("a webhook failed by a fault of ours", extra={"endpoint": posting.endpoint})
            answer = http.Answer(None, "a fault of ours, told in our log", time.perf_counter() - begun, "")
        return self._tried(posting, endpoint.url, answer, at)

    def _tried(self, posting: Posting, url: str, answer: http.Answer, at: datetime | None = None) -> Tried:
        wait = webhook.wait(posting.attempts + 1, self._settings.webhook_retries, random.random)
        return Tried(
            posting,
            url,
            answer.seconds,
            answer.status,
            answer.error,
            answer.response,
            wait=None if answer.good or answer.gone else wait,
            gone=answer.gone,
            at=at,
        )

    async def _record(self, tried: Tried) -> None:
        """Waits for PostgreSQL as long as it takes: what was posted must be known as posted."""
        while True:
            try:
                await self._batcher.add(tried)
                return
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                log.warning("what was posted waits for PostgreSQL: %s", error)
                if self._stopping.is_set():
                    return
                await until(self._stopping, AGAIN)

    async def _commit(self, batch: list[Tried]) -> Sequence[bool]:
        metrics.COMMIT_SIZE.labels("webhook").observe(len(batch))
        async with db.connection(self._pool) as conn:
            changes = await postings.settle(conn, batch, failing=self._settings.webhook_failing)
        for change in changes:
            _tell(change)
        return [True] * len(batch)

    async def _rest(self, more: bool) -> None:
        """Until a post has ended, or it is time to look again."""
        if not more:
            await until(self._woken, IDLE)
        self._woken.clear()
        await asyncio.sleep(GATHER)

    async def _wake_up_to_stop(self) -> None:
        await self._stopping.wait()
        self._woken.set()

    async def _end(self) -> None:
        """What does not end in time is given back, and posted by the next process."""
        if self._posting:
            await asyncio.wait(list(self._posting), timeout=GRACE)
        late = dict(self._posting)
        await end(late)
        await self._batcher.drain()
        await self._give_back(list(late.values()))
        await self._poster.close()

    async def _give_back(self, late: Sequence[Posting], seconds: float = 0.0) -> None:
        if not late:
            return
        try:
            async with db.connection(self._pool) as conn:
                await postings.give_back(conn, late, seconds=seconds)
        except StoreAway as error:
            log.warning("%s webhooks are due again in %g s: %s", len(late), self._lease, error)


def _masked(answer: http.Answer, secrets: Sequence[str]) -> http.Answer:
    """There are receivers that repeat what they were sent, and the log is for those who may not see it."""
    error, response = (masked(text, secrets) if text else text for text in (answer.error, answer.response))
    return replace(answer, error=error, response=response)


def _tell(change: Fared) -> None:
    """Only what changes: the tries are in the log that the API shows."""
    fields = {"endpoint": change.endpoint, "account": change.account}
    if change.disabled:
        log.warning("endpoint disabled: %s", change.reason, extra=fields)
    elif change.failures:
        log.info("endpoint fails: %s", change.reason, extra=fields)
    else:
        log.info("endpoint is well again", extra=fields)
