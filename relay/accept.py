"""Accept: from a submission to a committed message. Only what this returns may be acknowledged."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from relay import metrics
from relay.batch import Batcher
from relay.core.errors import Conflict, Doubtful, StoreAway
from relay.core.model import Accepted, Prepared, Submission
from relay.prepare import prepare
from relay.settings import Settings
from relay.store import db, messages, suppressions
from relay.store.suppressions import Pair, Suppression
from relay.wake import Waker

PATIENCE = 15.0  # s that we ask on whether a COMMIT came through, when PostgreSQL went in the middle of it
LAST_LOOKS = 2.0  # s of it that are left when we stop: whoever stops us waits no longer, and doubt can still be told
AGAIN = 0.2  # s between two looks
APART = 1.0  # s that all accounts of a group together wait for a lock once more, each by itself
SOON = timedelta(seconds=1)  # what is due later is found when its hour comes


class Acceptor:
    """Commits submissions in groups: those that arrive while a commit is running share the next one."""

    def __init__(self, pool: db.Pool, settings: Settings) -> None:
        self._pool, self._settings = pool, settings
        self._batcher: Batcher[Prepared, Accepted] = Batcher(self._commit, weigh=lambda item: len(item.content))
        self._keys_in_flight: set[tuple[str, str]] = set()
        self._waker = Waker(pool)
        self._stops = math.inf  # of time.monotonic(): from then on nothing is asked

    async def accept(self, submission: Submission) -> Accepted:
        """The queue id, after COMMIT. Raises Refused or Conflict (the sender's doing) or StoreAway (try again)."""
        key = submission.options.idempotency_key
        if key is None:
            return await self._accept(submission)
        place = (submission.account.id, key)
        if place in self._keys_in_flight:
            raise Conflict(
                "A submission with this idempotency key is being stored; ask again in a second",
                code="IdempotencyInFlight",
                retry_after=1,
            )
        self._keys_in_flight.add(place)
        storing = asyncio.create_task(self._accept(submission))
        storing.add_done_callback(lambda _: self._keys_in_flight.discard(place))
        return await asyncio.shield(storing)  # whoever asked may go: the key stays in flight until it is stored

    async def _accept(self, submission: Submission) -> Accepted:
        begun = time.perf_counter()
        prepared = prepare(submission, self._settings, datetime.now(UTC), new_id())
        accepted = await self._batcher.add(prepared)
        if not accepted.duplicate:
            metrics.ACCEPTED.labels(submission.ingress).inc()
            metrics.ACCEPT_SECONDS.labels(submission.ingress).observe(time.perf_counter() - begun)
            if accepted.suppressed:
                metrics.SUPPRESSED.labels(submission.ingress).inc(len(accepted.suppressed))
            if accepted.send_at - accepted.stored_at <= SOON:
                self._waker.wake(submission.account.id)
        return accepted

    def stop(self) -> None:
        """We end soon: what is in doubt is asked for no longer than a moment."""
        self._stops = time.monotonic() + LAST_LOOKS

    async def close(self) -> None:
        """Lets what is running end."""
        await self._batcher.drain()
        await self._waker.close()

    async def judge(self, batch: Sequence[Prepared]) -> Sequence[Prepared]:
        """The same, each with those of its recipients that are suppressed; accounts that suppress none cost nothing."""
        asked = [(item.account, to) for item in batch if item.suppresses for to in item.recipients]
        if not asked:
            return batch
        async with db.connection(self._pool) as conn:
            found = await suppressions.among(conn, asked)
        return [_judged(item, found) if item.suppresses and found else item for item in batch]

    async def _commit(self, batch: list[Prepared]) -> Sequence[Accepted | Exception]:
        """Stores a group."""
        metrics.COMMIT_SIZE.labels("accept").observe(len(batch))
        try:
            judged = await self.judge(batch)
        except db.Locked as locked:  # whoever suppresses nobody need not wait for it
            free = [item for item in batch if not item.suppresses]
            stored = dict(zip((item.id for item in free), await self._store(free), strict=True)) if free else {}
            return [stored.get(item.id, locked) for item in batch]
        except StoreAway:
            judged = await self.judge(batch)
        return await self._store(judged)

    async def _store(self, batch: Sequence[Prepared]) -> Sequence[Accepted | Exception]:
        """When the connection breaks, others are asked, for a while: the COMMIT may have come through, ids tell."""
        until = 0.0
        while True:
            try:
                async with db.connection(self._pool) as conn:
                    again, until = until > 0, until or time.monotonic() + PATIENCE
                    answers = await self._insert(conn, batch)
                    return [_doubted(answer) for answer in answers] if again else answers
            except StoreAway as error:
                if not until:
                    raise
                if time.monotonic() >= min(until, self._stops):
                    raise Doubtful(str(error)) from error
            await asyncio.sleep(AGAIN)

    async def _insert(self, conn: db.Connection, batch: Sequence[Prepared]) -> Sequence[Accepted | Exception]:
        """A lock costs those alone who need what it holds: what one kept out is tried again account by account."""
        attempts, lifetime = self._settings.delivery_attempts, self._settings.delivery_lifetime
        insert = partial(messages.insert, conn, attempts=attempts, lifetime=lifetime)
        answers = dict(zip((item.id for item in batch), await insert(batch), strict=True))
        apart: dict[str, list[Prepared]] = {}
        for item in batch:
            if isinstance(answers[item.id], db.Locked):
                apart.setdefault(item.account, []).append(item)
        if len(apart) > 1:
            async with db.lock_timeout(conn, APART / len(apart)):
                for items in apart.values():
                    answers |= dict(zip((item.id for item in items), await insert(items), strict=True))
        return [answers[item.id] for item in batch]


def _judged(item: Prepared, found: Mapping[Pair, Suppression]) -> Prepared:
    pairs = ((to, found.get((item.account, to))) for to in item.recipients)
    return replace(item, suppressed=tuple(one.of(to) for to, one in pairs if one))


def _doubted(answer: Accepted | Exception) -> Accepted | Exception:
    """What could not be stored the second time may have been the first."""
    return Doubtful(str(answer)) if isinstance(answer, StoreAway) else answer


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562): ordered by time, so that inserts stay at one end of the index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
