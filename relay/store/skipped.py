"""Recipients that accept skips, for they are suppressed: deliveries that failed before anything was tried."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from relay.core import suppression
from relay.core.model import EventType, Prepared, Suppressed
from relay.store import facts, rollups
from relay.store.db import Connection

# The message is there already, in the same database transaction: the sums read it.
INSERT = f"""
with given as (
    select * from unnest(%(message)b::uuid[], %(recipient)b::text[], %(name)b::text[], %(attempts)b::int2[],
        %(reply)b::text[]) as t(message, recipient, name, max_attempts, reply)
), applied as (
    insert into deliveries (message_id, account_id, recipient, name, state, ready, priority, max_attempts, due_at,
        expires_at, finished_at, enhanced, reply, category)
    select m.id, m.account_id, g.recipient, g.name, 'failed', false, m.priority, g.max_attempts, m.send_at,
        m.send_at + %(lifetime)s * interval '1 second', now(), %(enhanced)s, g.reply, %(category)s
    from given g join messages m on m.id = g.message
    returning *
), facts as (
    insert into events (account_id, type, delivery_id, message_id, data)
    select d.account_id, %(event)s, d.id, d.message_id, {facts.DELIVERY} || jsonb_build_object(
        'error', 'The recipient is ' || d.reply, 'errorCode', d.category, 'smtpResponse', null,
        'smtpResponseCode', null, 'job', jsonb_build_object(
            'id', d.id::text, 'attemptsMade', 0, 'attempts', d.max_attempts, 'nextAttempt', null))
    from applied d join messages m on m.id = d.message_id
), {rollups.FINISHED}
select count(*) from applied
"""  # noqa: S608 - the text is ours


def others(item: Prepared) -> Sequence[str]:
    """The recipients that are not skipped."""
    if not item.suppressed:
        return item.recipients
    skipped = {one.recipient for one in item.suppressed}
    return [to for to in item.recipients if to not in skipped]


def wholly(item: Prepared) -> bool:
    """Nobody is left to send to."""
    return len(item.suppressed) == len(item.recipients)


async def write(conn: Connection, batch: Sequence[Prepared], attempts: int, lifetime: float) -> None:
    """Stores the skipped recipients of stored messages, each with its event and its part of the sums.

    They are dead letters: whoever lifts a suppression may replay them. `attempts` is the default, `lifetime` in s.
    """
    each = [(item, one) for item in batch for one in item.suppressed]
    if not each:
        return
    await conn.execute(
        INSERT,
        {
            "message": [item.id for item, _ in each],
            "recipient": [one.recipient for _, one in each],
            "name": [item.names.get(one.recipient.lower()) for item, one in each],
            "attempts": [item.options.attempts or attempts for item, _ in each],
            "reply": [suppression.words(one) for _, one in each],
            "lifetime": lifetime,
            "enhanced": suppression.ENHANCED,
            "category": suppression.CATEGORY,
            "event": EventType.MESSAGE_FAILED,
        },
    )


def dump(suppressed: Sequence[Suppressed]) -> str | None:
    """As JSON, to be kept beside an idempotency key; None for nobody."""
    if not suppressed:
        return None
    return json.dumps([[one.recipient, one.reason, one.since.isoformat(), one.detail] for one in suppressed])


def load(kept: Any) -> tuple[Suppressed, ...]:
    """The other way."""
    return tuple(Suppressed(to, reason, datetime.fromisoformat(at), detail) for to, reason, at, detail in kept or ())
