"""Upstream connections, kept while they are of use: idle ones wait here for their account's next lease."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime

from relay import metrics
from relay.core.classify import BEARER, classify
from relay.core.tenant import Account, Mailgun, Smtp
from relay.net import mailgun, smtp
from relay.settings import Settings
from relay.tokens import Tokens

MOST_IDLE = 1000  # of one process, over all accounts
IN_TURNS = 3600.0  # s that an upstream which balked at an envelope behind a dot gets one thing at a time

Key = tuple[str, Smtp | Mailgun, datetime | None]
Connection = smtp.Connection | mailgun.Connection
"""To an upstream of either kind; both have the same surface."""


class Upstreams:
    """Hands out connections keyed by account and its settings, so that a changed account never uses an old login.

    An access token is no part of them: a connection that it let in stays in.
    """

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self._settings, self._tokens = settings, tokens
        self._idle: defaultdict[Key, list[tuple[Connection, asyncio.TimerHandle]]] = defaultdict(list)
        self._count = 0
        self._in_turns: dict[tuple[str, str], float] = {}  # accounts and upstreams that balked; until when
        self._clock = asyncio.get_running_loop().time
        self._closing: set[asyncio.Task[None]] = set()
        self._timeouts = smtp.Timeouts(settings.connect_timeout, settings.command_timeout, settings.data_timeout)

    async def take(self, account: Account) -> Connection:
        """An idle connection, the latest used first, else a new one. Raises smtp.UpstreamError, TokenError."""
        key = _key(account)
        while waiting := self._idle.get(key):
            connection, timer = waiting.pop()
            self._left(key, timer)
            if connection.usable:
                return connection
            self._close(connection)
        return await self.fresh(account)

    async def fresh(self, account: Account) -> Connection:
        """A new connection, logged in. Raises smtp.UpstreamError, TokenError."""
        by_token = account.oauth2 is not None and account.mailgun is None  # else the tokens are for the mailbox alone
        connection = await (self._by_token(account) if by_token else self._connect(account))
        metrics.CONNECTIONS.labels("worker", "out").inc()
        return connection

    async def _by_token(self, account: Account) -> Connection:
        """With a live access token; one that is refused all the same is replaced, once."""
        armed = await self._tokens.armed(account)
        try:
            return await self._connect(armed)
        except smtp.UpstreamError as fault:
            if armed is account or armed.smtp is None or classify(fault.reply, fault.stage).category not in BEARER:
                raise
            another = await self._tokens.again(account, armed.smtp.access_token)
            if another is None:
                raise
        return await self._connect(another)

    async def _connect(self, account: Account) -> Connection:
        match account.upstream:
            case Mailgun() as domain:
                return await mailgun.connect(domain, allowed=self._settings.allow_networks, timeouts=self._timeouts)
            case Smtp() as server:
                return await smtp.connect(
                    server,
                    hostname=self._settings.hostname,
                    allowed=self._settings.allow_networks,
                    sandbox_port=self._settings.sandbox_port,
                    timeouts=self._timeouts,
                )
            case None:
                raise AssertionError("mail of an account without upstream is not worked on")

    def give_back(self, account: Account, connection: Connection) -> None:
        """Keeps the connection for the account's next lease, or closes it when it has served."""
        if not connection.usable or self.served(account, connection.used) or self._count >= MOST_IDLE:
            self._drop(account, connection)
            return
        key = _key(account)
        timer = asyncio.get_running_loop().call_later(self._settings.idle_seconds, self._expire, key, connection)
        self._idle[key].append((connection, timer))
        self._count += 1

    def served(self, account: Account, used: int) -> bool:
        """Whether so many transactions are as many as the account wants of one connection."""
        return used >= account.limits.messages_per_connection

    def in_turns(self, account: Account) -> bool:
        """Whether its upstream is to be told one thing at a time, since it balked at an envelope behind a dot."""
        if not self._in_turns or account.upstream is None:
            return False
        return self._in_turns.get((account.id, account.upstream.label), 0.0) > self._clock()

    async def close(self) -> None:
        for waiting in list(self._idle.values()):
            for connection, timer in waiting:
                timer.cancel()
                self._close(connection)
        self._idle.clear()
        if self._closing:
            await asyncio.wait(self._closing)

    async def leave(self, account: Account, connection: Connection) -> None:
        """Closes a connection that is of no more use: the next one is opened when it is gone."""
        await asyncio.wait({self._drop(account, connection)})

    def _drop(self, account: Account, connection: Connection) -> asyncio.Task[None]:
        """Begins to close it, and remembers whether upstream balked."""
        if connection.balked and account.upstream is not None:
            self._in_turns = {pair: until for pair, until in self._in_turns.items() if until > self._clock()}
            self._in_turns[account.id, account.upstream.label] = self._clock() + IN_TURNS
        return self._close(connection)

    def _expire(self, key: Key, connection: Connection) -> None:
        kept = self._idle.get(key, [])
        for place, (waiting, timer) in enumerate(kept):
            if waiting is connection:
                del kept[place]
                self._left(key, timer)
                self._close(connection)
                return

    def _left(self, key: Key, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._count -= 1
        if not self._idle[key]:
            del self._idle[key]

    def _close(self, connection: Connection) -> asyncio.Task[None]:
        metrics.CONNECTIONS.labels("worker", "out").dec()
        task = asyncio.get_running_loop().create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


def _key(account: Account) -> Key:
    assert account.upstream is not None
    return account.id, account.upstream, account.updated_at if account.oauth2 else None
