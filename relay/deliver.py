"""Deliver: one lease, one upstream connection. Per recipient: render, send, classify, commit; then the next content."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from uuid import UUID

from relay import metrics, reading
from relay.core import pixel, splice
from relay.core.classify import Verdict, classify
from relay.core.errors import StoreAway
from relay.core.model import Leased, Outcome
from relay.core.reply import Reply, Stage
from relay.core.tenant import AccountState
from relay.core.vault import Vault
from relay.hands import FETCHED, Hand, Hands, Parcel, groups, next_content
from relay.memory import Memory
from relay.net.envelope import Envelope
from relay.net.smtp import UpstreamError
from relay.net.transaction import Result, Withheld
from relay.record import Recorder
from relay.settings import Settings
from relay.store import db, messages
from relay.store.outcomes import Report
from relay.tokens import TokenError, Tokens
from relay.trouble import PAUSE, Trouble
from relay.upstreams import Connection, Upstreams

log = logging.getLogger("postferry.deliver")

TOGETHER = 100  # recipients of one transaction, where their copies are identical (RFC 5321 4.5.3.1.8)
LARGE = 256 << 20  # bytes of larger messages that the leases of a process hold together; small mail waits for none
FAULT = Verdict(Outcome.DEFERRED, "internal", "A fault of ours, told in the worker's log. It is tried again.")
INTERNAL = Reply(451, "4.3.0", "Internal error")


def unawaited() -> None:
    """For those who do not want to be told."""


class Deliverer:
    """Works on leases: one of each worker process."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault) -> None:
        self._pool, self._settings = pool, settings
        self._keys = vault.derive("pixel")
        self._hands = Hands(pool, settings, vault)
        self._recorder = Recorder(pool, self._hands)
        self._trouble = Trouble(pool, settings)
        self._tokens = Tokens(pool, settings, vault)
        self._upstreams = Upstreams(settings, self._tokens)
        self._memory = Memory(LARGE)

    @property
    def cut(self) -> bool:
        """Whether this host reaches nobody, while others do."""
        return self._trouble.reach.cut

    async def deliver(self, lease: int, begun: Callable[[], None] = unawaited) -> None:
        """Sends what of this lease can be sent now and gives back the rest. A lease that is not ours is left alone.

        `begun` is called when it was begun, or could not be.
        """
        try:
            hand = None if self._hands.stopping else await self._hands.begin(lease)
        finally:
            begun()
        if hand is None:
            return
        try:
            await (self._trouble.obstacle(hand) if hand.obstacle else self._work(hand))
        except StoreAway as error:
            log.warning("lease %s ends early: %s", lease, error, extra={"account": hand.account.id})
        except BaseException:  # a fault of ours, or we were cut short: given back, it might be here again at once
            self._hands.abandon(hand)
            raise
        finally:
            if hand.connection is not None:
                self._upstreams.give_back(hand.account, hand.connection)
        if hand.in_doubt:
            self._hands.abandon(hand)
            return
        if hand.pauses:
            await self._hands.pause(PAUSE)
        await self._hands.end(hand)
        if self.cut:  # the next lease has time to go to others
            await self._hands.pause(PAUSE)

    def stop(self) -> None:
        """Begins nothing more: transactions that are under way end, the rest is given back."""
        self._hands.stop()

    async def close(self) -> None:
        """After `stop`, and the last lease."""
        await self._recorder.close()
        await self._upstreams.close()
        await self._tokens.close()
        await self._hands.close()

    async def _work(self, hand: Hand) -> None:
        if hand.account.state is AccountState.PAUSED:
            return
        place = 0
        while place < len(hand.rows) and not self._hands.spent(hand):
            wanted = next_content(hand.rows[place:])
            size = sum(wanted.values())
            async with self._memory.hold(size if size > FETCHED else 0, hand.account.id):
                async with db.connection(self._pool) as conn:
                    content = await messages.bodies(conn, wanted)
                here = takewhile(lambda row: row.message in wanted, hand.rows[place:])  # noqa: B023 (used up at once)
                for rows, after in pairwise([*groups(here, 1 if hand.account.mailgun else TOGETHER), ()]):
                    if self._hands.spent(hand) and not self._expected(hand):
                        break
                    await self._carefully(hand, rows, after, content)
                    place += len(rows)

    def _expected(self, hand: Hand) -> bool:
        """Whether upstream waits for the next one: to go now would cost the connection."""
        return hand.connection is not None and hand.connection.told and self._hands.sound(hand)

    async def _carefully(
        self, hand: Hand, rows: Sequence[Leased], after: Sequence[Leased], content: dict[UUID, bytes]
    ) -> None:
        """A fault of ours costs a try, like a reply nobody knows: released alone, such mail would be back for ever.

        What was on its way to upstream then may have been sent, and is told so.
        """
        try:
            await self._group(hand, rows, after, content)
        except StoreAway:
            raise
        except Exception:
            log.exception("a delivery failed by a fault of ours", extra={"account": hand.account.id})
            verdict, stage = (reading.LOST, Stage.DOT) if hand.in_doubt else (FAULT, Stage.LEASE)
            reports = [self._report(hand, row, verdict, INTERNAL, stage, 0.0) for row in rows]
            await self._recorder.record(hand, rows, reports)

    async def _group(
        self, hand: Hand, rows: Sequence[Leased], after: Sequence[Leased], content: dict[UUID, bytes]
    ) -> None:
        """One transaction: a recipient with a copy of its own, or several whose copies are the same."""
        rows = await self._sendable(hand, rows, content)
        if not rows:
            return
        parcel = hand.ahead if hand.ahead and hand.ahead.rows is rows else self._parcel(rows, content)
        hand.ahead = self._next(after, content)
        begun = time.perf_counter()
        try:
            results = await self._transact(hand, parcel)
        except UpstreamError as error:
            await self._unreachable(hand, rows, error, time.perf_counter() - begun)
            return
        except TokenError as error:
            await self._trouble.untokened(hand, error)
            return
        except Withheld:
            self._lost(hand)
            return
        seconds = time.perf_counter() - begun
        verdicts = [reading.LOST if result.lost else classify(result.reply, result.stage) for result in results]
        reports = [
            self._report(hand, row, verdict, result.reply, result.stage, seconds)
            for row, verdict, result in zip(rows, verdicts, results, strict=True)
        ]
        await self._recorder.record(hand, rows, reports)
        if not all(result.lost for result in results):
            self._trouble.reach.reached()
        await self._let_in(hand)
        for verdict, result in zip(verdicts, results, strict=True):
            await self._trouble.heed(hand, verdict, result.reply)

    async def _sendable(self, hand: Hand, rows: Sequence[Leased], content: dict[UUID, bytes]) -> Sequence[Leased]:
        """Those that are not overdue, and whose content is whole. The others are recorded as dead letters."""
        now = datetime.now(UTC)
        late = [row for row in rows if row.expires_at <= now]
        if late:
            await self._recorder.record(hand, late, [reading.overdue(row, hand.id) for row in late])
            rows = [row for row in rows if row.expires_at > now]
        if not rows or rows[0].message in content:
            return rows
        await self._recorder.record(hand, rows, [reading.damaged(row, hand.id) for row in rows])
        if not hand.over:  # else it went meanwhile, with its account
            told = {"account": hand.account.id, "queueId": rows[0].message.hex}
            log.error("a message is given up: %s", reading.DAMAGED, extra=told)
        return ()

    def _parcel(self, rows: Sequence[Leased], content: dict[UUID, bytes]) -> Parcel:
        """The stored bytes, with this recipient's pixel in its place."""
        row = rows[0]
        slices: Sequence[bytes] = (content[row.message],)
        if row.splice is not None:
            tag = pixel.tag(self._settings.public_url, pixel.sign(self._keys, row.delivery))
            slices = splice.render(slices[0], row.splice, tag)
        recipients = tuple(row.recipient for row in rows)
        size = sum(map(len, slices))
        return Parcel(rows, Envelope(row.sender, recipients, size, row.smtputf8, row.eightbit), slices)

    def _next(self, rows: Sequence[Leased], content: dict[UUID, bytes]) -> Parcel | None:
        """What comes after, where two of its size may be ready. Whatever is wrong with it shows when it is its turn."""
        try:
            return self._parcel(rows, content) if rows and rows[0].size <= FETCHED else None
        except Exception:
            return None

    async def _transact(self, hand: Hand, parcel: Parcel) -> Sequence[Result]:
        """Sends on the lease's connection. One that proves stale is replaced once."""
        connection = hand.connection
        if (
            connection is None
            or not connection.takes(parcel.envelope)
            or self._upstreams.served(hand.account, connection.used)
        ):
            await self._leave(hand)
            connection = hand.connection = await self._upstreams.take(hand.account)
        first = await self._send(hand, connection, parcel)
        if not any(result.stale for result in first):
            return first
        hand.in_doubt = False
        await self._leave(hand)
        connection = hand.connection = await self._upstreams.fresh(hand.account)
        return await self._send(hand, connection, parcel)

    async def _send(self, hand: Hand, connection: Connection, parcel: Parcel) -> Sequence[Result]:
        await self._let_in(hand)
        last = self._hands.spent(hand) or self._upstreams.served(hand.account, connection.used + 1)
        ahead = None if last or self._upstreams.in_turns(hand.account) else hand.ahead
        hand.in_doubt = True
        return await connection.transact(
            parcel.envelope,
            parcel.content,
            wanted=lambda: self._hands.ours(hand),
            following=ahead.envelope if ahead else None,
        )

    async def _let_in(self, hand: Hand) -> None:
        """The account's trouble is over once upstream has let us in: SMTP before any mail, Mailgun with the first."""
        if hand.troubled and hand.connection is not None and hand.connection.greeted:
            await self._trouble.over(hand)

    def _lost(self, hand: Hand) -> None:
        """Somebody else may have it by now: what upstream took from us would be sent twice, beyond every limit."""
        hand.over, hand.in_doubt = True, False
        metrics.LEASES.labels("lost").inc()
        log.warning("a lease was lost before its mail was handed over", extra={"account": hand.account.id})

    async def _leave(self, hand: Hand) -> None:
        if hand.connection is not None:
            connection, hand.connection = hand.connection, None
            await self._upstreams.leave(hand.account, connection)

    async def _unreachable(self, hand: Hand, rows: Sequence[Leased], error: UpstreamError, seconds: float) -> None:
        """No connection: the trouble is not these recipients'. One try is spent, and the account or the lease rests.

        While this host is cut off it is nobody's: all is given back for others, as it was.
        """
        hand.over = True
        if await self._trouble.cut_off(hand, error, seconds):
            return
        verdict = classify(error.reply, error.stage)
        if not verdict.pauses:
            temporary = Verdict(Outcome.DEFERRED, verdict.category, verdict.advice, verdict.wait)
            reports = [self._report(hand, row, temporary, error.reply, error.stage, seconds) for row in rows]
            await self._recorder.record(hand, rows, reports)
        await self._trouble.unreachable(hand, verdict, error.reply, seconds)

    def _report(self, hand: Hand, row: Leased, verdict: Verdict, reply: Reply, stage: Stage, seconds: float) -> Report:
        assert hand.account.upstream is not None
        return reading.report(
            row,
            hand.id,
            verdict,
            reply,
            stage,
            seconds=seconds,
            upstream="" if stage is Stage.LEASE else hand.account.upstream.label,  # who was told nothing of it
            now=datetime.now(UTC),
            settings=self._settings,
        )
