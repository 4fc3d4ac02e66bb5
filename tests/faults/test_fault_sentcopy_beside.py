"""The Sent copy beside others: a folder that two processes make, a broken mail, another with the same Message-ID."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.settings import Settings
from relay.store import db
from tests.copying import Desk, message
from tests.fakes.mailbox import MailboxServer
from tests.faults.test_fault_sentcopy import at_work, standing
from tests.stack import until


@pytest.mark.parametrize("wanted", ["", "Mine/Sent out"])
async def test_two_processes_that_need_a_folder_at_once_make_one(
    pool: db.Pool, settings: Settings, wanted: str
) -> None:
    layout, imap = [("INBOX", "")], {"sentMailPath": wanted} if wanted else {}
    async with at_work(MailboxServer(layout=layout), pool, settings, imap=imap) as (server, desk):
        gate = asyncio.Event()
        server.when("CREATE").wait(gate).usual()
        async with desk.working(), desk.working():
            await desk.send()
            await until(lambda: server.verbs.count("CREATE") == 1)
            await desk.send(message("2@example.com"))
            await until(lambda: server.verbs.count("CREATE") == 2)
            gate.set()
            await until(desk.rested)
        assert set(server.store.folders) == {"INBOX", wanted or "Sent"}
        assert len(standing(server, wanted or "Sent")) == 2


async def test_a_mail_that_the_server_cannot_read_keeps_no_copy_from_its_folder(
    pool: db.Pool, settings: Settings
) -> None:
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        for id in ("broken@example.com", "other@example.com"):
            server.put("Sent", message(id))
        server.folder("Sent").mail(1).broken = True
        await desk.send()
        await desk.work()
        assert await desk.state() == "done"
        assert [mail.field("Message-ID") for mail in standing(server)][2:] == ["<1@example.com>"]


async def test_of_two_with_one_message_id_each_does_not_remove_the_other_s(pool: db.Pool, settings: Settings) -> None:
    """Somebody split a message for its recipients; two processes look for late copies in the same moment."""
    late = {"copy_looks": (3600.0,)}
    async with at_work(MailboxServer(), pool, settings) as (server, desk):
        async with desk.working(**late), desk.working(**late):
            await both(server, desk, "APPEND", desk.send, desk.send)
        assert len(standing(server)) == 2
        async with desk.working(**late), desk.working(**late):
            await both(server, desk, "STORE", desk.due_again, desk.due_again)
        assert len(standing(server)) == 1


async def both(server: MailboxServer, desk: Desk, verb: str, *begin: Callable[[], Awaitable[object]]) -> None:
    """Each process is about to say this before one of them does."""
    gate, before = asyncio.Event(), server.verbs.count(verb)
    server.when(verb, times=2).wait(gate).usual()
    for number, one in enumerate(begin, 1):
        await one()
        await until(lambda wanted=before + number: server.verbs.count(verb) == wanted)  # type: ignore[misc]
    gate.set()
    await until(desk.rested)
