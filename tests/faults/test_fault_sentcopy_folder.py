"""The Sent copy and the folder where it belongs: not closed by one broken mail in it."""

from __future__ import annotations

from relay.settings import Settings
from relay.store import db
from tests.copying import message
from tests.fakes.mailbox import MailboxServer
from tests.faults.test_fault_sentcopy import at_work, standing


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
