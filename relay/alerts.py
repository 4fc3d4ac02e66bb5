"""Alerts about opens: notices become mail through the account itself; unopened mail is told of once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote
from zoneinfo import ZoneInfo

from relay import metrics
from relay.accept import Acceptor
from relay.core import address, mime, notice
from relay.core.address import Mailbox
from relay.core.compose import Draft, compose
from relay.core.errors import Conflict, Refused, StoreAway
from relay.core.model import Options, Priority, Submission
from relay.core.notice import OPENED
from relay.core.tenant import Account, Copy
from relay.ending import until
from relay.settings import Settings
from relay.store import accounts, db, notices
from relay.store.notices import Due

WAITS = (60.0, 300.0, 1800.0, 7200.0)  # s until a notice that could not be sent is tried again
LOOK = 1.0  # s between two looks for notices
REMIND = 60.0  # s between two looks for unopened mail
AGAIN = 0.5  # s until PostgreSQL is asked again
TOGETHER = 100  # notices
ACCOUNTS, MAILS = 100, 500  # looked at in one step of the reminder: accounts, and mails of each

_log = logging.getLogger("postferry.alerts")


class Alerts:
    """Any number of processes may run it side by side: each notice is sent once, each unopened mail told of once."""

    def __init__(self, pool: db.Pool, settings: Settings, *, look: float = LOOK, remind: float = REMIND) -> None:
        self._pool, self._settings, self._look, self._remind = pool, settings, look, remind
        self._acceptor = Acceptor(pool, settings)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; PostgreSQL's absences are waited out. Notices go while the reminder has much to look at."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_often(self.send, self._look, stopping))
                both.create_task(_often(partial(self.remind, stopping), self._remind, stopping))
        finally:
            await self._acceptor.close()

    # -- Notices -------------------------------------------------------------------------------------------------

    async def send(self) -> bool:
        """Sends what is due, a batch of it. True: there may be more at once."""
        async with db.connection(self._pool) as conn:
            due = await notices.claim(conn, TOGETHER, WAITS)
            known = await accounts.several(conn, sorted({one.account for one in due}))
        ended = await asyncio.gather(*(self._end(one, known.get(one.account)) for one in due))
        if done := [(one.delivery, one.kind) for one, settled in zip(due, ended, strict=True) if settled]:
            async with db.connection(self._pool) as conn:
                await notices.settle(conn, done)
        return bool(due)

    async def _end(self, due: Due, account: Account | None) -> bool:
        """Sends it, unless nobody wants it any more. False: it is tried again when it is due again."""
        if account is None or due.notice is None or not account.email or not _wanted(due, account):
            return True
        told = {"account": due.account, "delivery": due.delivery, "attempt": due.attempts}
        try:
            accepted = await self._acceptor.accept(self._submission(due.notice, account))
        except StoreAway:
            return False
        except Exception as fault:
            again = due.attempts <= len(WAITS) and not _final(fault)
            _log.warning("a notice (%s) is %s: %s", due.kind, "tried again" if again else "dropped", fault, extra=told)
            return not again
        _log.info("a notice (%s) is queued", due.kind, extra=told | {"queueId": accepted.queue_id})
        return True

    def _submission(self, told: notice.Notice, account: Account) -> Submission:
        """Through the account, from and to itself or whom it named. The key sees to it that a second try is none."""
        now, unique = datetime.now(UTC), secrets.token_hex(16)
        to = account.alerts.to or account.email
        key = f"notice/{told.delivery}/{told.kind}"
        words = notice.write(
            told,
            account=account.id,
            days=account.alerts.unopened_days,
            record=f"{self._settings.public_url}/v1/account/{quote(account.id, safe='')}/tracking/{told.delivery}",
            tz=_zone(account.tz),
        )
        draft = Draft(
            sender=Mailbox("", address.envelope(account.email, "email")),
            to=(Mailbox("", address.envelope(to, "tracking.alerts.to")),),
            subject=words.subject,
            text=words.text,
            html=words.html,
            headers=notice.HEADERS,
        )
        domain = self._settings.hostname
        content = compose(draft, now=now, domain=domain, unique=unique)
        return Submission(
            account=account,
            ingress="notice",
            sender=draft.sender.address,
            recipients=(draft.to[0].address,),
            mail=mime.tidy(content, now=now, domain=domain, unique=unique),
            options=Options(
                track=False,
                copy=Copy.NONE,
                email_type="notice",
                reference_type="delivery",
                reference_id=str(told.delivery),
                priority=Priority.BULK,
                idempotency_key=key,
            ),
            body_hash=hashlib.sha256(key.encode()).digest(),
        )

    # -- The reminder --------------------------------------------------------------------------------------------

    async def remind(self, stopping: asyncio.Event) -> None:
        """Looks at all accounts that ask; in steps, so that one with much to tell holds up nobody for long."""
        after: str | None = ""
        again = False
        while after is not None and not stopping.is_set():
            async with db.connection(self._pool) as conn:
                step = await notices.remind(conn, after, accounts=ACCOUNTS, most=MAILS)
            if step is None:  # another process is at it
                return
            again |= step.unfinished > 0
            after = step.after
            if after is None and again:
                after, again = "", False


def _wanted(due: Due, account: Account) -> bool:
    """The account asks for it still."""
    alerts = account.alerts
    return alerts.opened if due.kind == OPENED else alerts.unopened and alerts.unopened_mail


def _final(fault: Exception) -> bool:
    """What no further try changes: it is refused, and not because the same notice is just being stored."""
    return isinstance(fault, Refused) and not (isinstance(fault, Conflict) and fault.retry_after)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a zone that this host does not know any more
        return ZoneInfo("UTC")


async def _often(work: Callable[[], Awaitable[bool | None]], seconds: float, stopping: asyncio.Event) -> None:
    """Every so many seconds; at once, where `work` tells that there may be more."""
    while not stopping.is_set():
        try:
            if not await work():
                await until(stopping, seconds)
        except StoreAway as error:
            metrics.STORE_ERRORS.inc()
            _log.warning("alerts wait for PostgreSQL: %s", error)
            await until(stopping, AGAIN)
        except Exception:  # the webhooks of this role must not end with it
            _log.exception("alerts are put off by a fault of ours")
            await until(stopping, seconds)
