"""Verify accounts in the background: once after each change of their servers, and again while something is wrong."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from relay import metrics
from relay.core.errors import StoreAway
from relay.core.tenant import Account
from relay.core.vault import Vault, VaultError
from relay.core.verification import Result
from relay.ending import end, until
from relay.settings import Settings
from relay.store import accounts, db, verifications
from relay.store.verifications import Due, Found
from relay.tokens import Tokens
from relay.trial import try_account
from relay.verify import Report, unopened

LOOK = 1.0  # s between two looks for accounts that are due
AGAIN = 0.5  # s until PostgreSQL is asked again
CLAIM = 120.0  # s that a claim lasts: more than a verification can take
SPREAD = 0.25  # of a wait, to either side: those that failed together do not come back together

log = logging.getLogger("postferry.verify")


class Verifier:
    """Any number of processes may run it side by side: an account is looked at by one."""

    def __init__(self, pool: db.Pool, settings: Settings, vault: Vault, *, look: float = LOOK) -> None:
        self._pool, self._settings, self._vault, self._look = pool, settings, vault, look
        self._tokens = Tokens(pool, settings, vault)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; PostgreSQL's absences are waited out. What is unfinished then is begun anew by another."""
        try:
            while not stopping.is_set():
                await self._round(stopping)
        finally:
            await end(list(self._running))
            await self._tokens.close()

    async def _round(self, stopping: asyncio.Event) -> None:
        free = self._settings.verify_accounts - len(self._running)
        try:
            async with db.connection(self._pool) as conn:
                due = await verifications.claim(conn, free, CLAIM) if free > 0 else []
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            log.warning("verifications wait for PostgreSQL: %s", error)
            return await until(stopping, AGAIN)
        except Exception:  # the webhooks of this role must not end with it
            log.exception("verifications are put off by a fault of ours")
            return await until(stopping, self._look)
        for one in due:
            task = asyncio.create_task(self._verify(one))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await until(stopping, self._look)

    async def _verify(self, due: Due) -> None:
        """What goes wrong on our side is tried again when the claim has ended."""
        told = {"account": due.account}
        try:
            await self._look_at(due)
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            log.warning("the verification of %s waits for PostgreSQL: %s", due.account, error, extra=told)
        except Exception as error:
            log.error("the verification of %s failed: %s", due.account, error, exc_info=error, extra=told)

    async def _look_at(self, due: Due) -> None:
        account = await opened(self._pool, self._vault, due.account)
        if isinstance(account, Account):
            upstream, mailbox = due.fresh or not _well(due.smtp), due.fresh or not _well(due.imap)
            found = await try_account(account, self._tokens, self._settings, upstream=upstream, mailbox=mailbox)
            await settle(self._pool, self._settings, due, found, whole=due.fresh)
        elif account is not None:
            await settle(self._pool, self._settings, due, account, whole=True)


async def opened(pool: db.Pool, vault: Vault, id: str) -> Account | Report | None:
    """The account with its secrets; what is to be told of one whose secrets cannot be opened; None for no account."""
    async with db.connection(pool) as conn:
        row = await accounts.find(conn, id)
    if row is None:
        return None
    try:
        return row.account(vault)
    except VaultError as fault:
        return unopened(row.account(None), str(fault))


async def settle(pool: db.Pool, settings: Settings, due: Due, report: Report, *, whole: bool) -> None:
    """Stores what was found, and says so where the state is another than before.

    `whole`: the report tells of all servers that the account has, not only of those that had a fault.
    """
    smtp, imap = _merged(due.smtp, report.smtp, whole), _merged(due.imap, report.imap, whole)
    again = None if _well(smtp) and _well(imap) else _wait(settings.verify_retries, due.tries)
    async with db.connection(pool) as conn:
        if not await verifications.settle(conn, due, smtp, imap, again):
            return
    _tell(due.account, "upstream", due.smtp, smtp)
    _tell(due.account, "mailbox", due.imap, imap)


def _merged(before: Found | None, now: Result | None, whole: bool) -> Found | None:
    return now.told() if now is not None else None if whole else before


def _well(found: Found | None) -> bool:
    """There is nothing wrong, as far as is known."""
    return found is None or bool(found["success"])


def _wait(waits: Sequence[float], tries: int) -> float | None:
    return random.uniform(1 - SPREAD, 1 + SPREAD) * waits[min(tries, len(waits) - 1)] if waits else None  # noqa: S311


def _tell(account: str, name: str, before: Found | None, now: Found | None) -> None:
    """One line for each change of state."""
    if _well(before) and now is not None and not now["success"]:
        log.warning("the %s of %s cannot be used: %s", name, account, now["error"], extra={"account": account})
    elif not _well(before) and now is not None and now["success"]:
        log.info("the %s of %s is well again", name, account, extra={"account": account})
