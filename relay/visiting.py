"""A mailbox visited for somebody who waits: within a deadline, and every fault in words for him."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.core.errors import MailboxAway, Refused
from relay.core.tenant import Account
from relay.core.vault import Vault, VaultError
from relay.mailboxes import Mailboxes
from relay.net.imap import Mailbox, MailboxError
from relay.store import accounts, db
from relay.tokens import TokenError

TRY = "; POST /v1/account/{account}/verify tries each step, and says what to do"
AWAY = frozenset({"dns", "unreachable", "lost"})  # kinds of faults that pass by themselves


class NoMailbox(Refused):
    """There is none, so no message is in it."""

    def __init__(self, account: str) -> None:
        super().__init__(f"Account {account} has no mailbox: set its imap settings", status=404, code="NoMailbox")


@asynccontextmanager
async def visit(
    pool: db.Pool, vault: Vault, boxes: Mailboxes, account: str, *, most: int, seconds: float
) -> AsyncIterator[Mailbox]:
    """The account's mailbox, for `seconds` in all; `most`: connections to it at once.

    Raises NoMailbox, MailboxAway, StoreAway. No connection to PostgreSQL is held meanwhile.
    """
    found = await _account(pool, vault, account)
    if found is None or found.imap is None:
        raise NoMailbox(account)
    try:
        async with asyncio.timeout(seconds), boxes.borrow(found, most) as mailbox:
            yield mailbox
    except TimeoutError:
        raise MailboxAway(f"The mailbox of {account} did not answer within {seconds:g} seconds") from None
    except MailboxError as fault:
        theirs = fault.kind not in AWAY
        text = f"The mailbox of {account} cannot be used: {str(fault).removesuffix('.')}"
        raise MailboxAway(text + TRY.format(account=account) * theirs, theirs=theirs) from fault
    except TokenError as fault:
        text = f"The mailbox of {account} cannot be used: {fault.reason}"
        raise MailboxAway(text, theirs=fault.kind == "refused") from fault


async def _account(pool: db.Pool, vault: Vault, id: str) -> Account | None:
    async with db.connection(pool) as conn:
        row = await accounts.find(conn, id)
    try:
        return row.account(vault) if row else None
    except VaultError as fault:
        raise MailboxAway(f"The mailbox of {id} cannot be used: {fault}", theirs=True) from None
