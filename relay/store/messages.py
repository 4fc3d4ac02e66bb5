"""Messages, their bodies and their deliveries, written together: what accept commits and deliver reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from relay.core import packing, splice
from relay.core.errors import Conflict, Refused
from relay.core.model import Accepted, Prepared
from relay.core.suppression import AllSuppressed
from relay.store import skipped
from relay.store.db import Connection, Locked

IDEMPOTENCY = timedelta(hours=24)
LARGE = 256 * 1024  # bytes of content: to pack more, or unpack it, takes a millisecond: others go on meanwhile

# One statement, so that a group of submissions is one round trip and one commit. Where an account is gone it divides by
# zero, and stores nothing.
INSERT = """
with m as (
    insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, splice, smtputf8,
                          eightbit, bcc, options, email_type, reference_type, reference_id, send_at)
    select id, account, ingress, message_id, sender, subject, size, priority, splice::jsonb, smtputf8, eightbit,
           array(select jsonb_array_elements_text(bcc::jsonb)), options::jsonb,
           email_type, reference_type, reference_id, greatest(send_at, now())
    from unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::int[], %b::int2[],
                %b::text[], %b::bool[], %b::bool[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                %b::timestamptz[])
      as t(id, account, ingress, message_id, sender, subject, size, priority, splice, smtputf8, eightbit, bcc, options,
           email_type, reference_type, reference_id, send_at)
), b as (
    insert into bodies (message_id, packed) select * from unnest(%b::uuid[], %b::bytea[])
), d as (
    insert into deliveries (message_id, account_id, recipient, name, ready, priority, max_attempts, due_at, expires_at)
    select message, account, recipient, name, coalesce(send_at <= now(), true), priority, max_attempts,
           greatest(send_at, now()), greatest(send_at, now()) + lifetime * interval '1 second'
    from unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::int2[], %b::int2[], %b::timestamptz[], %b::float8[])
      as t(message, account, recipient, name, priority, max_attempts, send_at, lifetime)
)
select now(), 1 / (select (count(*) = %b)::int from accounts where id = any(%b::text[]))
"""

# A key of more than a day ago may be used anew; a key in use stays as it is, and is told apart by its queue_id.
CLAIM_KEYS = """
insert into idempotency (account_id, key, body_hash, queue_id, message_id, send_at, suppressed)
select account, key, hash, queue, message_id, greatest(send_at, now()), suppressed::jsonb
from unnest(%b::text[], %b::text[], %b::bytea[], %b::uuid[], %b::text[], %b::timestamptz[], %b::text[])
  as t(account, key, hash, queue, message_id, send_at, suppressed)
order by account, key
on conflict (account_id, key) do update
    set body_hash = excluded.body_hash, queue_id = excluded.queue_id, message_id = excluded.message_id,
        send_at = excluded.send_at, stored_at = excluded.stored_at, suppressed = excluded.suppressed
    where idempotency.stored_at < now() - %s
returning queue_id
"""


async def insert(
    conn: Connection, batch: Sequence[Prepared], *, attempts: int, lifetime: float
) -> list[Accepted | Exception]:
    """Stores a group of messages in one commit; one answer each. `attempts` and `lifetime` (s) are the defaults.

    A row that PostgreSQL cannot hold costs its own sender alone: the group is then stored one by one. What somebody's
    lock kept out for too long is undone, and answered with Locked. A group whose answer was lost may be given again:
    it is stored once.
    """
    try:
        return await _insert(conn, batch, attempts, lifetime)
    except psycopg.errors.UniqueViolation:
        return await _insert_missing(conn, batch, attempts, lifetime)
    except psycopg.errors.DivisionByZero:
        if len(batch) == 1:
            return [unknown(batch[0].account)]
    except (psycopg.DataError, UnicodeError) as error:
        if len(batch) == 1:
            return [Refused(f"The message cannot be stored: {_why(error)}", smtp="554 5.6.0")]
    except psycopg.errors.LockNotAvailable as error:
        return [Locked(str(error)) for _ in batch]
    return [(await insert(conn, [item], attempts=attempts, lifetime=lifetime))[0] for item in batch]


async def _insert_missing(
    conn: Connection, batch: Sequence[Prepared], attempts: int, lifetime: float
) -> list[Accepted | Exception]:
    """The group was tried before and its COMMIT may have come through: what is stored is answered as it was."""
    cursor = await conn.execute(
        "select id, created_at from messages where id = any(%s)", ([item.id for item in batch],)
    )
    stored = {row[0]: row[1] for row in await cursor.fetchall()}
    missing = [item for item in batch if item.id not in stored]
    answers = {item.id: _accepted(item, stored[item.id]) for item in batch if item.id in stored}
    fresh = await insert(conn, missing, attempts=attempts, lifetime=lifetime) if missing else []
    by_id: dict[UUID, Accepted | Exception] = {
        **answers,
        **dict(zip((item.id for item in missing), fresh, strict=True)),
    }
    return [by_id[item.id] for item in batch]


async def _insert(
    conn: Connection, batch: Sequence[Prepared], attempts: int, lifetime: float
) -> list[Accepted | Exception]:
    keyed = [item for item in batch if item.options.idempotency_key]
    skipping = [item for item in batch if item.suppressed]
    if not keyed and not skipping:
        stored_at = await _write(conn, batch, attempts, lifetime)
        return [_accepted(item, stored_at) for item in batch]
    async with conn.transaction():
        answers = {item.id: await _refusal(conn, item) for item in skipping if skipped.wholly(item)}
        answers |= await _claim_keys(conn, [item for item in keyed if item.id not in answers])
        fresh = [item for item in batch if item.id not in answers]
        if fresh:
            now = await _write(conn, fresh, attempts, lifetime)
            await skipped.write(conn, [item for item in fresh if item.suppressed], attempts, lifetime)
            answers |= {item.id: _accepted(item, now) for item in fresh}
    return [answers[item.id] for item in batch]


async def _refusal(conn: Connection, item: Prepared) -> Accepted | Exception:
    """The answer to a message that nobody is left to get; the first answer, where its key was taken before."""
    key = item.options.idempotency_key
    first = await _first_answer(conn, item) if key else None
    return first or AllSuppressed(item.account, item.suppressed)


async def _write(conn: Connection, batch: Sequence[Prepared], attempts: int, lifetime: float) -> datetime:
    columns = (
        [item.id for item in batch],
        [item.account for item in batch],
        [item.ingress for item in batch],
        [item.message_id for item in batch],
        [item.sender for item in batch],
        [item.subject for item in batch],
        [len(item.content) for item in batch],
        [int(item.options.priority) for item in batch],
        [json.dumps(splice.dump(item.splice)) if item.splice else None for item in batch],
        [item.smtputf8 for item in batch],
        [item.eightbit for item in batch],
        [json.dumps(item.bcc) if item.bcc else "[]" for item in batch],
        [_later(item) for item in batch],
        [item.options.email_type for item in batch],
        [item.options.reference_type for item in batch],
        [item.options.reference_id for item in batch],
        [item.send_at for item in batch],
    )
    contents = [item.content for item in batch]
    quick = sum(map(len, contents)) <= LARGE
    packed = packing.pack(contents) if quick else await asyncio.to_thread(packing.pack, contents)
    bodies = ([item.id for item in batch], packed)
    each = [(item, to) for item in batch for to in skipped.others(item)]
    rows = (
        [item.id for item, _ in each],
        [item.account for item, _ in each],
        [to for _, to in each],
        [item.names.get(to.lower()) for item, to in each],
        [int(item.options.priority) for item, _ in each],
        [item.options.attempts or attempts for item, _ in each],
        [item.send_at for item, _ in each],
        [lifetime] * len(each),
    )
    accounts = list({item.account for item in batch})
    cursor = await conn.execute(INSERT, (*columns, *bodies, *rows, len(accounts), accounts))
    (now, _) = await cursor.fetchone() or (None, 0)
    assert isinstance(now, datetime)
    return now


def _why(error: Exception) -> str:
    return (isinstance(error, psycopg.Error) and error.diag.message_primary) or str(error)


def _later(item: Prepared) -> str | None:
    """The options that other rooms read when their time comes."""
    options = {
        "copy": item.options.copy,
        "sentMailPath": item.options.sent_mail_path,
        "tz": item.options.tz,
        "answers": asdict(item.options.answers) if item.options.answers else None,
    }
    chosen = {key: value for key, value in options.items() if value is not None}
    return json.dumps(chosen) if chosen else None


def _accepted(item: Prepared, stored_at: datetime) -> Accepted:
    due = max(item.send_at, stored_at) if item.send_at else stored_at
    return Accepted(item.queue_id, item.message_id, due, stored_at, suppressed=item.suppressed)


async def _claim_keys(conn: Connection, keyed: Sequence[Prepared]) -> dict[UUID, Accepted | Exception]:
    """For each submission whose key was taken before: the first answer, or Conflict when the body is another."""
    if not keyed:
        return {}
    cursor = await conn.execute(
        CLAIM_KEYS,
        (
            [item.account for item in keyed],
            [item.options.idempotency_key for item in keyed],
            [item.body_hash for item in keyed],
            [item.id for item in keyed],
            [item.message_id for item in keyed],
            [item.send_at for item in keyed],
            [skipped.dump(item.suppressed) for item in keyed],
            IDEMPOTENCY,
        ),
    )
    claimed = {row[0] for row in await cursor.fetchall()}
    answers: dict[UUID, Accepted | Exception] = {}
    for item in keyed:
        if item.id not in claimed:
            first = await _first_answer(conn, item)
            assert first is not None  # the key was taken, in a database transaction that has ended
            answers[item.id] = first
    return answers


async def _first_answer(conn: Connection, item: Prepared) -> Accepted | Exception | None:
    """What the key was answered before; None where it was not taken."""
    found = await earlier(conn, item.account, item.options.idempotency_key or "")
    if found is None:
        return None
    body_hash, accepted = found
    if accepted.queue_id == item.queue_id:  # its own COMMIT, whose answer was lost
        return replace(accepted, duplicate=False)
    return accepted if body_hash == item.body_hash else different_body()


def unknown(account: str) -> Refused:
    """The answer where an account was removed a moment ago."""
    return Refused(f"There is no account {account}", smtp="550 5.1.8", status=404, code="AccountNotFound")


def different_body() -> Conflict:
    """The answer to a key that was used for something else."""
    return Conflict("This idempotency key was used within 24 hours for a different message; use a new key")


async def earlier(conn: Connection, account: str, key: str) -> tuple[bytes, Accepted] | None:
    """Body hash and answer of an earlier submission with this key, within its 24 hours."""
    cursor = await conn.execute(
        "select body_hash, queue_id, message_id, send_at, stored_at, suppressed from idempotency"
        " where account_id = %s and key = %s and stored_at >= now() - %s",
        (account, key, IDEMPOTENCY),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return bytes(row[0]), Accepted(row[1].hex, row[2], row[3], row[4], True, skipped.load(row[5]))


async def answers(conn: Connection, message: UUID) -> bool | None:
    """Whether the original of a reply or forward was found when it was accepted; None: the message is kept no more."""
    cursor = await conn.execute("select options -> 'answers' is not null from messages where id = %s", (message,))
    row = await cursor.fetchone()
    return None if row is None else bool(row[0])


async def bodies(conn: Connection, messages: Collection[UUID]) -> dict[UUID, bytes]:
    """The content of each message that is still kept, whole: what is damaged is left out.

    PostgreSQL itself may find that it cannot read what is on its disk: that costs no other message either.
    """
    try:
        return await _bodies(conn, messages)
    except psycopg.errors.DataCorrupted:
        if len(messages) == 1:
            return {}
    apart = [await bodies(conn, [message]) for message in messages]
    return {message: content for one in apart for message, content in one.items()}


async def _bodies(conn: Connection, messages: Iterable[UUID]) -> dict[UUID, bytes]:
    cursor = await conn.execute(
        "select id, content, packed, size from messages join bodies b on b.message_id = id where id = any(%s)",
        (list(messages),),
        binary=True,
    )
    rows = await cursor.fetchall()
    sizes = {message: size for message, _, _, size in rows}
    frames = {
        message: packed for message, _, packed, size in rows if packed is not None and packing.size(packed) == size
    }
    quick = sum(sizes[message] for message in frames) <= LARGE
    packed = list(frames.values())
    contents = packing.unpack(packed) if quick else await asyncio.to_thread(packing.unpack, packed)
    found = {message: content for message, content, packed, _ in rows if packed is None and content is not None}
    found |= {message: content for message, content in zip(frames, contents, strict=True) if content is not None}
    return {message: content for message, content in found.items() if len(content) == sizes[message]}


async def forget_keys(conn: Connection) -> int:
    """Drops idempotency keys whose day is over."""
    return (await conn.execute("delete from idempotency where stored_at < now() - %s", (IDEMPOTENCY,))).rowcount
