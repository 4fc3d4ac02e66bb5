"""The mailboxes that this process is connected to: lent to one task at a time, kept a while, never too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from relay.core.tenant import Account, Imap
from relay.net.imap import Mailbox, MailboxError, connect
from relay.settings import Settings

IDLE = 30.0  # seconds that a connection is kept for whoever comes next


class Tokens(Protocol):
    """Whoever keeps access tokens alive: relay/tokens.py."""

    async def armed(self, account: Account) -> Account: ...

    async def again(self, account: Account, spurned: str) -> Account | None: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """A connection that nobody uses, and the settings that it was made with."""

    account: str
    imap: Imap
    mailbox: Mailbox
    ending: asyncio.TimerHandle


class Mailboxes:
    """All that this process has. It belongs to one event loop."""

    def __init__(self, settings: Settings, tokens: Tokens | None, *, idle: float = IDLE) -> None:
        self._settings, self._tokens, self._idle = settings, tokens, idle
        self._lent: Counter[str] = Counter()
        self._kept: list[_Kept] = []  # the one longest kept first
        self._leaving: set[asyncio.Task[None]] = set()
        self._returned = asyncio.Event()
        self._closed = False

    @asynccontextmanager
    async def borrow(self, account: Account, most: int | None = None) -> AsyncIterator[Mailbox]:
        """The account's mailbox, logged in; which folder is selected nobody knows.

        Waits for its turn: until fewer than `most` tasks have a connection of this account, and this process fewer than
        it may. Raises MailboxError, and what the tokens raise (TokenError). By default one, and beside it the one that
        stays where the account wants its mailbox watched so.
        """
        if account.imap is None:
            raise MailboxError("connect", "unsupported", "the account has no mailbox: set imap.host")
        if not self._settings.mailbox_connections:
            raise MailboxError("connect", "forbidden", "POSTFERRY_MAILBOX_CONNECTIONS is 0: no mailbox is touched")
        most = most or (2 if account.imap.idle else 1)
        while not self._free(account.id, most):
            await self._returned.wait()
        self._lent[account.id] += 1
        try:
            async with self._connection(account, account.imap) as mailbox:
                yield mailbox
        finally:
            self._back(account.id)

    def instead(self, account: Account) -> AbstractAsyncContextManager[Mailbox]:
        """Another connection for whoever borrowed one that was lost. It has that one's place."""
        assert account.imap is not None
        return self._connection(account, account.imap)

    async def close(self) -> None:
        """Ends the connections that nobody uses; those that are lent end when they come back."""
        self._closed = True
        while self._kept:
            self._dismiss(self._kept[0])
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _free(self, id: str, most: int) -> bool:
        return self._lent[id] < most and self._lent.total() < self._settings.mailbox_connections

    def _back(self, id: str) -> None:
        """Whoever waits looks again whether it is his turn."""
        self._lent -= Counter({id: 1})  # which forgets those that have none
        returned, self._returned = self._returned, asyncio.Event()
        returned.set()

    @asynccontextmanager
    async def _connection(self, account: Account, imap: Imap) -> AsyncIterator[Mailbox]:
        """One that was kept, else a new one; kept afterwards, unless it is broken."""
        mailbox = await self._again(account.id, imap) or await self._new(account)
        try:
            yield mailbox
        finally:
            if not mailbox.alive:
                mailbox.abort()
            elif self._closed:
                self._leave(mailbox)
            else:
                self._keep(account.id, imap, mailbox)

    async def _again(self, id: str, imap: Imap) -> Mailbox | None:
        """One that was kept, if it still stands and was made with the settings of today."""
        for kept in [kept for kept in self._kept if kept.account == id]:
            if kept.imap != _lasting(imap):
                self._dismiss(kept)
                continue
            self._take(kept)
            try:
                await kept.mailbox.noop()
            except MailboxError:
                kept.mailbox.abort()
            else:
                return kept.mailbox
        return None

    async def _new(self, account: Account) -> Mailbox:
        """Room is made by those kept longest. A token that is refused before its time is tried with another, once."""
        while self._kept and len(self._kept) + self._lent.total() > self._settings.mailbox_connections:
            self._dismiss(self._kept[0])
        if self._tokens is None:
            return await self._connect(account)
        armed = await self._tokens.armed(account)
        try:
            return await self._connect(armed)
        except MailboxError as fault:
            if armed.imap is None or (fault.step, fault.kind) != ("login", "refused"):
                raise
            another = await self._tokens.again(account, armed.imap.access_token)
            if another is None:
                raise
        return await self._connect(another)

    async def _connect(self, account: Account) -> Mailbox:
        assert account.imap is not None
        allowed, seconds = self._settings.allow_networks, self._settings.mailbox_timeout
        return await connect(account.imap, allowed=allowed, seconds=seconds)

    def _keep(self, id: str, imap: Imap, mailbox: Mailbox) -> None:
        ending = asyncio.get_running_loop().call_later(self._idle, self._tire, mailbox)
        self._kept.append(_Kept(id, _lasting(imap), mailbox, ending))

    def _tire(self, mailbox: Mailbox) -> None:
        for kept in [kept for kept in self._kept if kept.mailbox is mailbox]:
            self._dismiss(kept)

    def _take(self, kept: _Kept) -> None:
        kept.ending.cancel()
        self._kept = [one for one in self._kept if one is not kept]

    def _dismiss(self, kept: _Kept) -> None:
        self._take(kept)
        self._leave(kept.mailbox)

    def _leave(self, mailbox: Mailbox) -> None:
        """Says goodbye, and keeps nobody waiting for it."""
        task = asyncio.create_task(mailbox.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _lasting(imap: Imap) -> Imap:
    """Without what changes while a connection stays logged in."""
    return replace(imap, access_token="")
