"""Mailboxes are lent: to one task at a time, never too many, kept a while, and dropped when they are broken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from relay.core.tenant import Account, AccountState, Imap, Limits
from relay.mailboxes import Mailboxes
from relay.net.imap import MailboxError
from relay.settings import Settings
from tests.fakes.mailbox import MailboxServer
from tests.stack import until


class Purse:
    """Tokens that an issuer gives, one after the other; the login takes the `good` one."""

    def __init__(self, *tokens: str) -> None:
        self.tokens, self.asked, self.spurned = list(tokens), 0, list[str]()

    async def armed(self, account: Account) -> Account:
        self.asked += 1
        return self._with(account, self.tokens[0])

    async def again(self, account: Account, spurned: str) -> Account | None:
        self.spurned.append(spurned)
        return self._with(account, self.tokens[1]) if len(self.tokens) > 1 else None

    @staticmethod
    def _with(account: Account, token: str) -> Account:
        assert account.imap is not None
        return replace(account, imap=replace(account.imap, access_token=token))


def account(imap: Imap | None, id: str = "shop") -> Account:
    return Account(id, "", "", AccountState.ACTIVE, None, Limits(), False, imap=imap)


@pytest.fixture
async def server() -> AsyncIterator[MailboxServer]:
    async with MailboxServer() as server:
        yield server


@pytest.fixture
async def boxes(settings: Settings) -> AsyncIterator[Mailboxes]:
    boxes = Mailboxes(settings, None)
    yield boxes
    await boxes.close()


async def use(boxes: Mailboxes, whose: Account, most: int | None = None) -> None:
    async with boxes.borrow(whose, most) as mailbox:
        await mailbox.noop()


async def begun(task: asyncio.Task[None]) -> None:
    """The task went as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_connection_is_kept_for_whoever_comes_next(server: MailboxServer, boxes: Mailboxes) -> None:
    for _ in range(3):
        await use(boxes, account(server.imap()))
    assert server.connections == 1


async def test_an_account_has_one_task_at_a_time(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap())
    async with boxes.borrow(shop):
        waiting = asyncio.create_task(use(boxes, shop))
        await begun(waiting)
        # Then who may be a second one is, and another account waits for nobody
        await use(boxes, shop, most=2)
        await use(boxes, account(server.imap(), "office"))
        assert not waiting.done()
    await waiting


async def test_beside_one_that_stays_there_is_room_for_one_more(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap(idle=True))
    async with boxes.borrow(shop):
        await use(boxes, shop)


async def test_whoever_waits_in_vain_and_gives_up_spoils_nothing(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap())
    async with boxes.borrow(shop):
        waiting = [asyncio.create_task(use(boxes, shop)) for _ in range(3)]
        await begun(waiting[0])
        waiting[0].cancel()
    await asyncio.gather(*waiting[1:])


async def test_a_process_has_no_more_connections_than_it_may(server: MailboxServer, settings: Settings) -> None:
    boxes = Mailboxes(replace(settings, mailbox_connections=2), None)
    lent, most, both = 0, 0, asyncio.Event()

    async def work(id: str) -> None:
        nonlocal lent, most
        async with boxes.borrow(account(server.imap(), id)) as mailbox:
            lent, most = lent + 1, max(most, lent + 1)
            if lent == 2:
                both.set()
            await both.wait()
            await mailbox.noop()
            lent -= 1

    await asyncio.gather(*(work(f"account-{number}") for number in range(8)))
    assert (most, server.connections) == (2, 8)
    # Then those that are kept count too: there is room for one, and not for all
    await until(lambda: server.open <= 2)
    await boxes.close()
    await until(lambda: server.open == 0)


async def test_what_nobody_uses_ends_by_itself(server: MailboxServer, settings: Settings) -> None:
    boxes = Mailboxes(settings, None, idle=0.02)
    await use(boxes, account(server.imap()))
    await until(lambda: server.open == 0)
    assert server.said("LOGOUT")
    await use(boxes, account(server.imap()))
    assert server.connections == 2
    await boxes.close()


async def test_a_broken_connection_is_not_lent_again(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap())
    server.when("STATUS", times=1).drop()
    with pytest.raises(MailboxError):
        async with boxes.borrow(shop) as mailbox:
            await mailbox.status("INBOX")
    await use(boxes, shop)
    assert server.connections == 2


async def test_a_refusal_breaks_no_connection(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap())
    with pytest.raises(MailboxError):
        async with boxes.borrow(shop) as mailbox:
            await mailbox.status("Nowhere")
    await use(boxes, shop)
    assert server.connections == 1


async def test_a_connection_that_died_while_it_was_kept_is_replaced(server: MailboxServer, boxes: Mailboxes) -> None:
    shop = account(server.imap())
    await use(boxes, shop)
    await server.stop()
    await server.start()
    await use(boxes, account(server.imap()))
    assert server.connections == 2


async def test_other_settings_are_another_connection(server: MailboxServer, boxes: Mailboxes) -> None:
    server.users["bob"] = "hidden"
    await use(boxes, account(server.imap()))
    await use(boxes, account(server.imap(user="bob", password="hidden")))
    assert server.connections == 2
    await until(lambda: server.open == 1)


async def test_who_is_cancelled_in_the_midst_of_a_command_leaves_nothing(
    server: MailboxServer, boxes: Mailboxes
) -> None:
    shop = account(server.imap())
    server.when("NOOP", times=1).hang()
    working = asyncio.create_task(use(boxes, shop))
    await until(lambda: server.verbs == ["NOOP"])
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await until(lambda: server.open == 0)
    await use(boxes, shop)
    assert server.connections == 2


async def test_when_all_ends_nothing_is_left(server: MailboxServer, settings: Settings) -> None:
    boxes = Mailboxes(settings, None)
    await use(boxes, account(server.imap(), "kept"))
    async with boxes.borrow(account(server.imap())):
        await boxes.close()
        assert server.open == 1
    await until(lambda: server.open == 0)
    await until(lambda: not any(thread.name.startswith("imap") for thread in threading.enumerate()))


async def test_without_a_mailbox_there_is_none_to_lend(server: MailboxServer, settings: Settings) -> None:
    none = Mailboxes(replace(settings, mailbox_connections=0), None)
    for boxes, whose, kind in (
        (Mailboxes(settings, None), account(None), "unsupported"),
        (none, account(server.imap()), "forbidden"),
    ):
        with pytest.raises(MailboxError) as fault:
            await use(boxes, whose)
        assert fault.value.kind == kind
    assert server.connections == 0


async def test_a_failed_login_keeps_nobody_waiting(server: MailboxServer, boxes: Mailboxes) -> None:
    for _ in range(2):
        with pytest.raises(MailboxError):
            await use(boxes, account(server.imap(password="wrong")))
    await use(boxes, account(server.imap()))


# Access tokens.


async def test_a_live_token_is_asked_for_before_each_login_alone(server: MailboxServer, settings: Settings) -> None:
    server.users["ann"] = "token-1"
    purse = Purse("token-1")
    boxes = Mailboxes(settings, purse)
    for _ in range(2):
        await use(boxes, account(server.imap(password="")))
    assert (purse.asked, server.connections) == (1, 1)
    # Then another token is no reason for another connection
    purse.tokens = ["token-2"]
    await use(boxes, account(server.imap(password="")))
    assert server.connections == 1
    await boxes.close()


async def test_a_token_that_is_refused_is_tried_with_another_once(server: MailboxServer, settings: Settings) -> None:
    server.users["ann"] = "token-2"
    purse = Purse("token-1", "token-2")
    boxes = Mailboxes(settings, purse)
    await use(boxes, account(server.imap(password="")))
    assert (purse.spurned, server.connections) == (["token-1"], 2)
    await boxes.close()


async def test_a_token_that_is_refused_is_told_where_there_is_no_other(
    server: MailboxServer, settings: Settings
) -> None:
    boxes = Mailboxes(settings, Purse("token-1"))
    with pytest.raises(MailboxError) as fault:
        await use(boxes, account(server.imap(password="")))
    assert (fault.value.step, fault.value.kind) == ("login", "refused")
    assert server.connections == 1
