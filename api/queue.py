"""Queues over HTTP: how much waits, and whether an account's mail flows."""

from __future__ import annotations

from pydantic import Field

from api.call import Call, unknown
from api.shapes import AccountId, Answer, Body, Instant
from relay.core.tenant import AccountState
from relay.store import accounts, queue

BY_HAND = "Paused over the API"


class Status(Answer):
    """Deliveries (one message to one recipient) that are not finished."""

    account: str | None = Field(description="Null: all accounts together.")
    paused: bool | None = Field(description="Of one account: an operator paused it.")
    pending: int = Field(description="Not tried yet, now or later.")
    leased: int = Field(description="Being sent.")
    deferred: int = Field(description="Tried; will be tried again.")
    held: int = Field(description="Of pending and deferred: due, and kept back by a limit, a pause or the upstream.")
    sent_this_hour: int | None = Field(
        description="In the last 60 minutes; null where no `perHour` is set to count for."
    )
    max_per_hour: int | None = Field(description="Null: no limit.")
    next_slot_at: Instant | None = Field(description="When a limit that is reached lets the next one go.")
    oldest_due_seconds: float | None = Field(description="How long the oldest has been due; null when nothing is.")


class Pause(Body):
    paused: bool


class Flow(Answer):
    account: str
    paused: bool
    state: AccountState
    changed: bool = Field(description="False: it was so before.")


async def status(call: Call) -> Status:
    """All queues together; a token that is bound to an account sees that account's."""
    account = await call.narrowed()
    return await account_status(call, account) if account else await _status(call, None, None)


async def account_status(call: Call, account: AccountId) -> Status:
    """One account's queue."""
    call.house.directory.forget(account)
    found = await call.account(account)
    return await _status(call, account, found.state is AccountState.PAUSED)


async def _status(call: Call, account: str | None, paused: bool | None) -> Status:
    async with call.turn() as conn:
        found = await queue.status(conn, account)
    return Status(
        account=account,
        paused=paused,
        pending=found.pending,
        leased=found.leased,
        deferred=found.deferred,
        held=found.held,
        sent_this_hour=found.sent_this_hour,
        max_per_hour=found.max_per_hour,
        next_slot_at=found.next_slot_at,
        oldest_due_seconds=found.oldest_due_seconds,
    )


async def pause(call: Call, account: AccountId, body: Pause) -> Flow:
    """Pause or resume an account. Paused, its mail is still accepted, and waits.

    Resuming also tries a refused login at once.
    """
    async with call.turn() as conn:
        if await accounts.find(conn, account) is None:
            raise unknown(account)
        state = AccountState.PAUSED if body.paused else AccountState.ACTIVE
        others = [one for one in AccountState if one is not state]
        changed = await accounts.set_state(conn, account, state, BY_HAND if body.paused else "", expect=others)
    call.house.directory.forget(account)
    if not body.paused:
        call.house.waker.wake(account)
    return Flow(account=account, paused=body.paused, state=state, changed=changed)
