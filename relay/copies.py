"""Leave one clean copy of what was sent in each account's Sent folder: a room of the mailbox role.

Any number of processes may run it side by side: in each, an account's copies are worked on one after the other, over
one connection; no copy is in two hands. A mailbox that cannot be used is tried ever more rarely, and all its copies
wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from relay import metrics
from relay.copying import Copying, about, needless
from relay.core.errors import StoreAway
from relay.core.vault import Vault, VaultError
from relay.ending import end, until
from relay.mailboxes import Mailboxes
from relay.memory import Memory
from relay.net.imap import MailboxError
from relay.sentcopy import CLAIM
from relay.settings import Settings
from relay.store import accounts, db, schema, sentcopies
from relay.store.sentcopies import Owed, Settled
from relay.tokens import TokenError

LOOK = 1.0  # s between two looks for copies that are owed
AGAIN = 0.5  # s until PostgreSQL is asked again
RENEW = 15.0  # s between two renewals
EACH = 50  # copies of an account taken at once
LARGE = 256 << 20  # bytes of content that all accounts of a process hold together

log = logging.getLogger("postferry.copies")


class Copier:
    """At work on as many accounts at once as half of the connections that the process may have."""

    def __init__(
        self, pool: db.Pool, settings: Settings, vault: Vault, boxes: Mailboxes, *, look: float = LOOK
    ) -> None:
        self._pool, self._settings, self._vault, self._boxes, self._look = pool, settings, vault, boxes, look
        self._most = (settings.mailbox_connections + 1) // 2
        self._running: dict[str, asyncio.Task[None]] = {}
        self._held: list[Owed] = []
        self._memory = Memory(LARGE)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; PostgreSQL's absences are waited out. What is unfinished then is begun anew by another."""
        if not self._most:
            await stopping.wait()
            return
        renewing = asyncio.create_task(self._renew())
        try:
            while not stopping.is_set():
                await until(stopping, await self._round())
        finally:
            await end([renewing, *self._running.values()])
            with suppress(StoreAway):
                async with db.connection(self._pool) as conn:
                    await sentcopies.release(conn, self._held)

    async def _round(self) -> float:
        """Takes what is owed; seconds until the next look."""
        free = self._most - len(self._running)
        try:
            async with db.connection(self._pool) as conn:
                owed = (
                    await sentcopies.claim(conn, self._running, accounts=free, each=EACH, seconds=CLAIM) if free else []
                )
                unfinished = [one for one in owed if one.unfinished]
                if unfinished:
                    await sentcopies.postpone(conn, unfinished)
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            log.warning("Sent copies wait for PostgreSQL: %s", error)
            return AGAIN
        except schema.MISSING:
            raise
        except Exception:  # the watch of mailboxes must not end with it
            log.exception("Sent copies are put off by a fault of ours")
            return self._look
        due = [one for one in owed if not one.unfinished]
        for account in dict.fromkeys(one.account for one in due):
            self._begin(account, [one for one in due if one.account == account])
        return self._look

    def _begin(self, account: str, owed: Sequence[Owed]) -> None:
        self._held += owed
        task = asyncio.create_task(self._carefully(account, owed))
        self._running[account] = task
        task.add_done_callback(lambda _: self._running.pop(account))

    async def _renew(self) -> None:
        """Claims of what is in hand; one that is lost shows when it is settled."""
        while True:
            await asyncio.sleep(RENEW)
            try:
                async with db.connection(self._pool) as conn:
                    await sentcopies.renew(conn, self._held, CLAIM)
            except Exception as error:  # whatever it is: the next may come through, and without one all is in two hands
                log.warning("claims of Sent copies could not be renewed: %s", error)

    async def _carefully(self, account: str, owed: Sequence[Owed]) -> None:
        """What goes wrong on our side is tried again when the claim has ended."""
        told = {"account": account}
        try:
            await self._work(account, owed)
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            log.warning("the Sent copies of %s wait for PostgreSQL: %s", account, error, extra=told)
        except Exception as error:
            log.error("the Sent copies of %s failed: %s", account, error, exc_info=error, extra=told)
        finally:
            mine = {one.message for one in owed}
            self._held = [one for one in self._held if one.message not in mine]

    async def _work(self, id: str, owed: Sequence[Owed]) -> None:
        """An account's copies, the one longest due first."""
        left = list(owed)
        try:
            async with db.connection(self._pool) as conn:
                account = await accounts.get(conn, self._vault, id)
                for one in [one for one in owed if account is None or needless(account, one)]:
                    await sentcopies.settle(conn, one, Settled())
                    left.remove(one)
            if account is not None and left:
                async with self._boxes.borrow(account) as mailbox:
                    await Copying(self._pool, self._settings, self._memory, account, mailbox).work(left)
        except VaultError as fault:
            await self._rest(id, left, f"the account's secrets cannot be opened: {fault}")
        except (MailboxError, TokenError) as fault:
            await self._rest(id, left, str(fault))

    async def _rest(self, account: str, owed: Sequence[Owed], error: str) -> None:
        """The mailbox cannot be used: what is in hand goes back, and all waits. What waited for too long is given up.

        One line for each change of state.
        """
        waits, given_up = self._settings.copy_retries, 0
        async with db.connection(self._pool) as conn, conn.transaction():
            await sentcopies.release(conn, owed)  # those of them that were not settled
            failures = await sentcopies.failures(conn, account)
            wait = waits[min(failures, len(waits) - 1)] if waits else 0.0
            await sentcopies.rest(conn, account, error, about(wait))
            while some := await sentcopies.abandon(conn, account, error, sum(waits)):
                given_up += some
        metrics.SENT_COPIES.labels("failed").inc(given_up)
        if failures == 0:
            log.warning("the Sent copies of %s wait: %s", account, error, extra={"account": account})
