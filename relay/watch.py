"""Watch accounts' mailboxes for bounces and complaints: each looked at now and then, or by a connection that stays.

Any number of processes may run it side by side: a mailbox is one's at a time. One that fails is looked at ever more
rarely, until its settings are mended, and keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack, suppress

from relay import metrics
from relay.core import watching
from relay.core.errors import StoreAway
from relay.core.tenant import Account
from relay.core.vault import Vault, VaultError
from relay.ending import end, until
from relay.legible import Legible
from relay.look import Look, Lost, Reader
from relay.mailboxes import Mailboxes
from relay.net.imap import MailboxError
from relay.settings import Settings
from relay.store import accounts, db, mailboxes, schema
from relay.store.mailboxes import Due
from relay.tokens import TokenError

LOOK = 1.0  # s between two looks for mailboxes that are due
AGAIN = 0.5  # s until PostgreSQL is asked again
CLAIM = 120.0  # s that a claim lasts, unless it is renewed
RENEW = 30.0  # s between two renewals
BREATH = 0.5  # s after which a mailbox that has news all the time is looked at again
AWAY = ("dns", "unreachable", "lost", "away")  # what may be over soon

log = logging.getLogger("postferry.watch")


class Watcher:
    """A room of the mailbox role. Half of its connections at most stay open for IDLE (RFC 2177)."""

    def __init__(
        self, pool: db.Pool, settings: Settings, vault: Vault, boxes: Mailboxes, *, look: float = LOOK
    ) -> None:
        self._pool, self._settings, self._vault, self._boxes, self._look = pool, settings, vault, boxes, look
        self._reader = Reader()
        self._running: dict[asyncio.Task[None], Due] = {}
        self._unsettled: list[Due] = []  # claims to be given back
        self._idling = 0
        self._renewed = self._hurried = float("-inf")

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; PostgreSQL's absences are waited out. What is unfinished then is begun anew by another."""
        if not self._settings.mailbox_connections:
            await stopping.wait()
            return
        try:
            while not stopping.is_set():
                await until(stopping, await self._round())
        finally:
            await self._stop()

    async def _round(self) -> float:
        """Keeps what is in hand, takes what is due; seconds until the next."""
        try:
            async with db.connection(self._pool) as conn:
                await self._keep(conn)
                await self._hurry(conn)
                free = self._settings.mailbox_connections - len(self._running)
                due = await mailboxes.claim(conn, free, CLAIM) if free > 0 else []
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            log.warning("the watch of mailboxes waits for PostgreSQL: %s", error)
            return AGAIN
        except schema.MISSING:
            raise
        except Exception:  # the Sent copies of this role must not end with it
            log.exception("the watch of mailboxes is put off by a fault of ours")
            return self._look
        for one in due:
            self._begin(one)
        return self._look

    def _begin(self, due: Due) -> None:
        """A task that still watches it here, with the settings of before, is cancelled."""
        metrics.MAILBOX_LATE.observe(due.late)
        for task, held in self._running.items():
            if held.account == due.account:
                task.cancel()
        task = asyncio.create_task(self._watch(due))
        self._running[task] = due
        task.add_done_callback(self._running.pop)

    async def _keep(self, conn: db.Connection) -> None:
        """Gives claims back, and renews those in hand; a task whose claim is lost is cancelled."""
        given, self._unsettled = self._unsettled, []
        if given:
            await mailboxes.release(conn, given)
        if self._running and time.monotonic() >= self._renewed + RENEW:
            held = dict(self._running)
            kept = await mailboxes.renew(conn, list(held.values()), CLAIM)
            self._renewed = time.monotonic()
            for task, due in held.items():
                if (due.account, due.claim) not in kept:
                    task.cancel()

    async def _hurry(self, conn: db.Connection) -> None:
        if time.monotonic() >= self._hurried + self._settings.mailbox_poll:
            await mailboxes.hurry(conn, self._settings.mailbox_poll)
            self._hurried = time.monotonic() + random.uniform(-0.2, 0.2) * self._settings.mailbox_poll  # noqa: S311

    async def _stop(self) -> None:
        """Everything is given back, so that another need not wait for the claims to end."""
        held = dict(self._running)
        await end(held)
        self._reader.close()
        with suppress(StoreAway):
            async with db.connection(self._pool) as conn:
                await mailboxes.release(conn, [*self._unsettled, *held.values()])

    async def _watch(self, due: Due) -> None:
        """A claimed mailbox. What goes wrong on our side is tried again soon; PostgreSQL's absence changes nothing."""
        told = {"account": due.account}
        try:
            await self._look_at(due)
        except Lost:  # whoever has it now, with other settings, looks at it
            pass
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            self._unsettled.append(due)
            log.warning("the watch of %s waits for PostgreSQL: %s", due.account, error, extra=told)
        except Exception as error:  # its claim ends by itself
            log.error("the watch of %s failed: %s", due.account, error, exc_info=error, extra=told)

    async def _look_at(self, due: Due) -> None:
        folders = watching.stored(due.folders)
        try:
            account = await self._account(due)
            if account is not None:
                await self._open(account, due, folders)
        except VaultError as fault:
            await self._failed(due, folders, f"its secrets cannot be opened: {fault}", refused=True)
        except (MailboxError, TokenError) as fault:
            await self._failed(due, folders, str(fault), refused=fault.kind not in AWAY)

    async def _account(self, due: Due) -> Account | None:
        """The account with its secrets; None when its mailbox is to be watched no more."""
        async with db.connection(self._pool) as conn:
            account = await accounts.get(conn, self._vault, due.account)
            if account is not None and account.imap is not None and account.imap.watch:
                return account
            await mailboxes.settle(conn, due, None, due.folders, ago=0)
        return None

    async def _open(self, account: Account, due: Due, folders: watching.Folders) -> None:
        """Looks, and stays where that is wanted, offered, and not too many stay already."""
        assert account.imap is not None
        async with self._boxes.borrow(account) as mailbox, AsyncExitStack() as others:
            legible = Legible(due.account, mailbox, lambda: others.enter_async_context(self._boxes.instead(account)))
            look = Look(self._pool, self._reader, legible, due, folders)
            more = await look.whole()
            metrics.MAILBOX_LOOKS.labels("done").inc()
            if account.imap.idle and "IDLE" in look.mailbox.capabilities and self._may_stay():
                await self._stay(look, more)
                more = False
        await self._done(due, look, more)

    def _may_stay(self) -> bool:
        return self._idling < self._settings.mailbox_connections // 2

    async def _stay(self, look: Look, more: bool) -> None:
        """Looks whenever INBOX has news, and at its usual times, until the connection ends, as it may."""
        self._idling += 1
        metrics.MAILBOX_IDLE.labels().inc()
        try:
            while True:
                _tell_healed(look.due)
                await look.mark()
                if not more:
                    await self._sleep(look)
                more = await look.whole()
                metrics.MAILBOX_LOOKS.labels("done").inc()
        except MailboxError as fault:
            log.debug("IDLE watches %s no more: %s", look.due.account, fault)
        finally:
            self._idling -= 1
            metrics.MAILBOX_IDLE.labels().dec()

    async def _sleep(self, look: Look) -> None:
        selected = await look.mailbox.select("INBOX", readonly=True)
        if look.knows(selected):
            await look.mailbox.idle(self._wait(look.due))
        await asyncio.sleep(BREATH)

    async def _done(self, due: Due, look: Look, more: bool) -> None:
        wait = 0.0 if more else self._wait(look.due)
        _tell_healed(look.due)
        async with db.connection(self._pool) as conn:
            await mailboxes.settle(conn, due, wait, look.told(), ago=look.ago, listed=look.listed)

    async def _failed(self, due: Due, folders: watching.Folders, why: str, *, refused: bool) -> None:
        """One line for each change of state."""
        metrics.MAILBOX_LOOKS.labels("failed").inc()
        wait = watching.retry(due.failures + 1, refused=refused, least=self._settings.mailbox_poll, rng=random.random)
        async with db.connection(self._pool) as conn:
            stands = await mailboxes.fail(conn, due, wait, watching.told(folders), why)
        if stands and not due.error:
            log.warning("the mailbox of %s is not watched: %s", due.account, why, extra={"account": due.account})

    def _wait(self, due: Due) -> float:
        least, most = self._settings.mailbox_poll, self._settings.mailbox_poll_most
        return watching.wait(due.sent, least=least, most=most, rng=random.random)


def _tell_healed(due: Due) -> None:
    if due.error:
        log.info("the mailbox of %s is watched again", due.account, extra={"account": due.account})
