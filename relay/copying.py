"""An account's Sent copies, one after the other over one connection: as its policy wants, and then what they answer."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from relay import answered, metrics
from relay.copyclearing import CopyError
from relay.core import filers, sentcopy
from relay.core.errors import StoreAway
from relay.core.model import Answered
from relay.core.sentcopy import Wanted
from relay.core.sentfolders import lay_out
from relay.core.tenant import Account, Copy
from relay.memory import Memory
from relay.net.imap import Mailbox, MailboxError
from relay.sentcopy import Done, Lost, SentCopy, make
from relay.settings import Settings
from relay.store import db, mailboxes, messages, sentcopies
from relay.store.sentcopies import Owed, Settled

SPREAD = 0.25  # of a wait, to either side: those that failed together do not come back together
SMALL = 256 << 10  # bytes of a message that waits for no memory: those who hold most of it may be slow
HOPELESS = frozenset({"TOOBIG"})  # trying again changes nothing

log = logging.getLogger("postferry.copies")


class Copying:
    """`memory` bounds what the large contents of all accounts take together."""

    def __init__(self, pool: db.Pool, settings: Settings, memory: Memory, account: Account, mailbox: Mailbox) -> None:
        self._pool, self._settings, self._memory = pool, settings, memory
        self._account, self._mailbox = account, mailbox
        self._learned: bool | None = None

    async def work(self, owed: Sequence[Owed]) -> None:
        """Raises MailboxError when nothing more can be said over the connection, and what is left is not settled."""
        self._layout = lay_out(await self._mailbox.folders())
        async with db.connection(self._pool) as conn:
            self._learned = await mailboxes.files(conn, self._account.id)
            if await sentcopies.recovered(conn, self._account.id):
                told = {"account": self._account.id}
                log.info("the Sent copies of %s are written again", self._account.id, extra=told)
        for one in owed:
            try:
                await self._carefully(one)
            except Lost:  # whoever has it now places it
                continue
            except (MailboxError, StoreAway):
                raise
            except Exception:  # one that cannot be worked on must not come first again for ever
                log.exception("a Sent copy failed by a fault of ours", extra={"account": self._account.id})
                await self._failed(one, "A fault of ours, told in the log of the mailbox role")
            if not self._mailbox.alive:
                raise MailboxError("copy", "lost", f"the connection to {self._mailbox.host} was lost")

    async def _carefully(self, owed: Owed) -> None:
        try:
            done = await self._placed(owed)
        except CopyError as fault:
            return await self._failed(owed, str(fault), hopeless=fault.hopeless)
        except MailboxError as fault:
            return await self._failed(owed, str(fault), hopeless=fault.code in HOPELESS)
        original = original_of(owed)
        try:
            gone = original is not None and not await answered.flag(self._mailbox, original)
        except MailboxError as fault:
            return await self._failed(owed, f"the message that it answers is not flagged: {fault}", tell=False)
        return await self._settle(owed, done, original if gone else None)

    async def _settle(self, owed: Owed, done: Done, gone: Answered | None) -> None:
        """Whoever flags what was answered says once that it is `gone`."""
        looks = self._settings.copy_looks
        settled = Settled(
            again=about(looks[owed.looks]) if done.again else None,
            looks=owed.looks + done.again,
            place=sentcopy.dump(done.intent),
            filed=done.filed,
            flagged=owed.flagged or original_of(owed) is not None,
            there=done.there,
        )
        async with db.connection(self._pool) as conn, conn.transaction():
            if not await sentcopies.settle(conn, owed, settled):
                return
            if gone is not None:
                await answered.tell_missing(conn, owed.account, gone, owed.message)
            if done.files is not None and done.files != self._learned:
                self._learned = await mailboxes.learn(conn, self._account.id, done.files)
        if done.there and owed.state != "done":
            metrics.SENT_COPIES.labels("done").inc()

    async def _placed(self, owed: Owed) -> Done:
        """What became of the copy, if one is wanted."""
        policy = policy_of(self._account, owed)
        if policy is Copy.NONE:
            return Done(sentcopy.load(owed.place), there=True, again=False, filed=owed.filed, files=None)
        wanted = Wanted(
            path=await self._home(str(owed.options.get("sentMailPath") or "")),
            policy=policy,
            files=self._files,
            bcc=bool(owed.bcc),
            expected=max(1, owed.taken),
            last=owed.looks >= len(self._settings.copy_looks),
        )
        async with self._memory.hold(3 * owed.size if owed.size > SMALL else 0, self._account.id):
            async with db.connection(self._pool) as conn:
                content = (await messages.bodies(conn, [owed.message])).get(owed.message)
            if content is None:
                raise CopyError("the message's content is damaged or kept no more", hopeless=True)
            copy = SentCopy(self._pool, self._mailbox, self._layout, owed, wanted, content)
            return await copy.place()

    @property
    def _files(self) -> bool | None:
        """Whether the provider files what is sent: by the table, else by what was learned."""
        told = filers.files(self._account)
        return self._learned if told is None else told

    async def _home(self, folder: str) -> str:
        """The folder where the copy belongs: the message's, the account's, the mailbox's; made, where there is none."""
        folder = folder or (self._account.imap.sent_path if self._account.imap else "")
        if (path := self._layout.home(folder)) is not None:
            return path
        path = await make(self._mailbox, self._layout, folder)
        self._layout = lay_out(await self._mailbox.folders())
        return path

    async def _failed(self, owed: Owed, error: str, *, hopeless: bool = False, tell: bool = True) -> None:
        waits = self._settings.copy_retries
        wait = about(waits[owed.tries]) if owed.tries < len(waits) and not hopeless else None
        async with db.connection(self._pool) as conn:
            if not await sentcopies.fail(conn, owed, error, wait, tell=tell):
                return
        metrics.SENT_COPIES.labels("failed" if wait is None else "retried").inc()
        told = {"account": owed.account, "queueId": owed.message.hex}
        log.warning("a Sent copy %s: %s", "is given up" if wait is None else "failed", error, extra=told)


def policy_of(account: Account, owed: Owed) -> Copy:
    """The message's own, else the account's."""
    return sentcopy.policy(account.copy, owed.options.get("copy"))


def needless(account: Account, owed: Owed) -> bool:
    """There is nothing to be done: no mailbox, or no copy is wanted and no message to be flagged."""
    return account.imap is None or (policy_of(account, owed) is Copy.NONE and original_of(owed) is None)


def original_of(owed: Owed) -> Answered | None:
    """What is still to be flagged, since this message answers or forwards it."""
    told = owed.options.get("answers")
    return Answered(**told) if told and not owed.flagged else None


def about(seconds: float) -> float:
    """About so long: by chance a little shorter or longer."""
    return random.uniform(1 - SPREAD, 1 + SPREAD) * seconds  # noqa: S311
