"""Tenants whose own servers are slow, huge or hostile: they wait for those, and nobody else does."""

from __future__ import annotations

import asyncio

import pytest

from relay import copies, copying
from relay.ending import end
from relay.settings import Settings
from relay.store import db
from tests.copying import Desk, message
from tests.fakes.mailbox import MailboxServer
from tests.fakes.upstream import Upstream
from tests.flow.test_deliver import Line
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


async def test_large_mail_to_a_server_that_hangs_keeps_no_large_mail_of_others_waiting(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more of it, on more connections, than there is memory for: one account has its share and no more."""
    monkeypatch.setattr("relay.deliver.LARGE", 8 << 20)
    content = b"Subject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 20_000  # 1.5 MB
    line = Line(pool, settings)
    async with Upstream() as slow, Upstream() as quick:
        slow.when("DOT").hang()
        await line.account(slow, connections=6)
        await line.account(quick, "b")
        for number in range(6):
            await line.accept(f"r{number}@x.example", content=content)
        await line.accept("one@x.example", content=content, account="b")
        hanging = [asyncio.create_task(line.deliverer.deliver(await line.lease_one())) for _ in range(6)]
        await slow.heard("DATA")
        await line.deliverer.deliver(await line.lease_one("b"))
        assert (len(quick.taken), slow.connections) == (1, 1)
        await end(hanging)
    await line.end()
