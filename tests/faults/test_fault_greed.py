"""Tenants whose own servers are slow, huge or hostile: they wait for those, and nobody else does."""

from __future__ import annotations

import asyncio

import pytest

from relay import copies, copying
from relay.settings import Settings
from relay.store import db
from tests.copying import Desk, message
from tests.fakes.mailbox import MailboxServer
from tests.stack import until


async def test_large_copies_into_a_slow_mailbox_keep_no_small_ones_of_others_waiting(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a server that takes a large copy for ever, which holds all the memory that there is for copies."""
    monkeypatch.setattr(copies, "LARGE", 1 << 20)
    slow, quick = MailboxServer(), MailboxServer()
    async with slow, quick:
        desk = Desk(pool, settings, slow.imap())
        await desk.account("a")
        await desk.account("b", at=quick.imap())
        slow.when("APPEND").wait(asyncio.Event())
        await desk.send(message(text="x" * (2 * copying.SMALL)))
        async with desk.working(mailbox_timeout=600.0):
            await until(lambda: "APPEND" in slow.verbs)
            await desk.send(message("2@example.com"), account="b")
            await until(lambda: len(quick.mails("Sent")) == 1)
            assert slow.mails("Sent") == []
