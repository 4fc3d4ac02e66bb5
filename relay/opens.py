"""A pixel was fetched: after the picture was answered, the fetch is judged and recorded, many at a time."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from relay import metrics
from relay.batch import Batcher
from relay.core import footprint, networks, opener, pixel
from relay.core.errors import StoreAway
from relay.core.model import Opener
from relay.core.opener import Look
from relay.ending import until
from relay.geo import UNKNOWN, Places
from relay.net.rdns import Names
from relay.settings import Settings
from relay.store import db, opens
from relay.store.opens import Known, Open

MOST_WAITING = 20_000  # fetches in memory while the store is slow or away; those that come then are counted and dropped
MOST_OF_ONE = 1000  # of those: of one delivery, so that whoever knows one picture cannot have the others' looks dropped
MOST = 100  # that are recorded together: pictures are answered by the same loop, and must not wait for more
SPACING = 0.05  # s between two batches: nobody waits for them, and many together cost little more than one
TURN = 0.005  # s of judging after which pictures are answered
AGAIN = 0.5  # s until PostgreSQL is asked again
LONGEST_AGENT = 1000  # characters of a user agent that are kept
PLACED = frozenset({Opener.PERSON, Opener.UNKNOWN})  # whose address says where the reader is

_log = logging.getLogger("postferry.opens")


@dataclass(frozen=True, slots=True)
class Fetch:
    """A fetch as it came; `came` on the event loop's clock. `host`: the name of the address, while it is looked up."""

    delivery: int
    came: float
    method: str
    address: str
    agent: str
    host: asyncio.Task[str] | None


class Opens:
    """Records fetches in groups. `keys` are those that sign pixels, newest first.

    What is in memory while PostgreSQL is away is recorded when it is back, at the time at which it came. A process that
    ends before that loses it.
    """

    def __init__(
        self,
        pool: db.Pool,
        settings: Settings,
        keys: Sequence[bytes],
        *,
        places: Places | None = None,
        names: Names | None = None,
    ) -> None:
        self._pool, self._settings, self._keys = pool, settings, keys
        self._places = places or Places(settings.geo_file)
        self._names = (names or Names()) if settings.open_dns else None
        self._batcher: Batcher[Fetch, bool] = Batcher(self._commit, most=MOST)
        self._closing = asyncio.Event()
        self._given_up = False
        self._waiting = 0
        self._of_one: Counter[int] = Counter()  # ... by delivery

    def fetched(self, token: str, method: str, address: str, agent: str) -> None:
        """Returns at once. A token that is not ours is counted, and costs no more than reading it."""
        delivery = pixel.read(self._keys, token)
        if delivery is None:
            metrics.FETCHES.labels("unknown").inc()
        elif self._waiting >= MOST_WAITING or self._of_one[delivery] >= MOST_OF_ONE:
            metrics.FETCHES.labels("dropped").inc()
        else:
            metrics.FETCHES.labels("ours").inc()
            self._waiting += 1
            self._of_one[delivery] += 1
            came, host = asyncio.get_running_loop().time(), self._look_up(address)
            self._batcher.add(Fetch(delivery, came, method, address, _storable(agent), host))

    async def close(self) -> None:
        """Records what is waiting, unless PostgreSQL is away."""
        self._closing.set()
        await self._batcher.drain()
        if self._names:
            await self._names.close()

    def _look_up(self, address: str) -> asyncio.Task[str] | None:
        """Begins at once, so that a slow DNS makes a batch late and not the ones behind it as well."""
        found = _address(address) if self._names else None
        return asyncio.get_running_loop().create_task(self._names.of(found)) if self._names and found else None

    async def _commit(self, batch: list[Fetch]) -> Sequence[bool]:
        metrics.COMMIT_SIZE.labels("fetch").observe(len(batch))
        await asyncio.gather(*(fetch.host for fetch in batch if fetch.host))
        try:
            await self._record(sorted(batch, key=lambda fetch: fetch.came))
        except Exception as error:
            metrics.FETCHES.labels("dropped").inc(len(batch))
            _log.error("%d pixel fetches are lost: %s", len(batch), error)
        self._forget(batch)
        metrics.OPENS_WAITING.labels().set(self._waiting)
        if len(batch) < MOST:
            await until(self._closing, SPACING)
        return [True] * len(batch)

    def _forget(self, batch: Sequence[Fetch]) -> None:
        """They wait no more."""
        self._waiting -= len(batch)
        for delivery, number in Counter(fetch.delivery for fetch in batch).items():
            self._of_one[delivery] -= number
            if not self._of_one[delivery]:
                del self._of_one[delivery]

    async def _record(self, batch: Sequence[Fetch]) -> None:
        """Until it is stored. Raises StoreAway when we are to end while PostgreSQL is away."""
        tried: list[Open] = []
        while not self._given_up:
            try:
                stored = await self._try(batch, tried)
            except StoreAway as error:
                metrics.STORE_ERRORS.inc()
                metrics.OPENS_WAITING.labels().set(self._waiting)
                _log.warning("pixel fetches wait for PostgreSQL: %s", error)
                self._given_up = self._closing.is_set()
                await until(self._closing, AGAIN)
            else:
                for who, number in Counter(one.opener for one in tried if one.delivery in stored).items():
                    metrics.OPENS.labels(who.value).inc(number)
                return
        raise StoreAway("this process ends before PostgreSQL is back")

    async def _try(self, batch: Sequence[Fetch], tried: list[Open]) -> set[int]:
        """Judges the batch and writes it; whose delivery is there. `tried`: what was, or would have been, written."""
        loop = asyncio.get_running_loop()
        async with db.connection(self._pool) as conn:
            if tried and await opens.recorded(conn, tried):  # the answer alone was lost
                return {one.delivery for one in tried}
            known = await opens.known(conn, _ages(batch, loop.time()))
            tried[:] = await self._judged(batch, known)
            return await opens.record(conn, tried) if tried else set()

    async def _judged(self, batch: Sequence[Fetch], known: Mapping[int, Known]) -> list[Open]:
        """Each fetch with its judgement, in their order; those of deliveries that are gone are left out.

        Long agents that nobody had before cost milliseconds each, so others have their turns in between.
        """
        clock = asyncio.get_running_loop().time
        now = turn = clock()
        places: defaultdict[int, list[datetime]] = defaultdict(list)
        found = []
        for fetch in batch:
            mail = known.get(fetch.delivery)
            if mail is not None:
                at = mail.now - timedelta(seconds=now - fetch.came)
                found.append(self._judge(fetch, mail, at, places[fetch.delivery]))
                places[fetch.delivery].append(at)
            if clock() - turn > TURN:
                await asyncio.sleep(0)
                turn = clock()
        return found

    def _judge(self, fetch: Fetch, mail: Known, at: datetime, before: Sequence[datetime]) -> Open:
        """`before`: the times of this delivery's earlier fetches in the same batch."""
        address = _address(fetch.address)
        judgement = opener.judge(
            Look(
                agent=fetch.agent,
                address=address,
                method=fetch.method,
                since_sent=mail.since_sent(at),
                earlier=mail.fetches + len(before),
                burst=_burst(mail, at, before),
                own=mail.own,
                host=fetch.host.result() if fetch.host else "",
            )
        )
        place = self._places.find(address) if judgement.opener in PLACED else UNKNOWN
        return Open(
            delivery=fetch.delivery,
            place=len(before) + 1,
            at=at,
            method=fetch.method,
            address=footprint.kept(fetch.address, self._settings.open_addresses),
            agent=fetch.agent,
            opener=judgement.opener,
            client=judgement.client,
            reason=judgement.reason,
            country=place.country,
            city=place.city,
            tells=mail.tells,
        )


def _ages(batch: Sequence[Fetch], now: float) -> dict[int, float]:
    """Seconds since the first fetch of each delivery."""
    ages: dict[int, float] = {}
    for fetch in batch:
        ages.setdefault(fetch.delivery, now - fetch.came)
    return ages


def _burst(mail: Known, at: datetime, before: Sequence[datetime]) -> int:
    """Fetches in the 10 seconds before `at`: those of this batch, and what was recorded before the first of them."""
    since = at - timedelta(seconds=opens.BURST)
    recorded = mail.burst if not before or before[0] > since else 0
    return recorded + len(before) - bisect_right(before, since)


_address = lru_cache(maxsize=4096)(networks.read)


def _storable(agent: str) -> str:
    """Bytes that are no UTF-8 arrive as surrogates, which the database does not take; neither does it take NUL."""
    return agent[:LONGEST_AGENT].encode(errors="replace").decode().replace("\0", "?")
