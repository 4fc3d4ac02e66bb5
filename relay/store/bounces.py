"""Reports about what was sent: each recorded once, with all that it changes, in one database transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from relay.core.advice import Advice
from relay.core.bounce import Finding as Finding
from relay.core.bounce import Reported as Reported
from relay.core.bounce import held
from relay.core.model import EventType, State
from relay.core.report import Kind
from relay.store import facts, rollups, suppressions
from relay.store.db import Connection
from relay.store.matching import PROVIDER, Match, match, named, sending
from relay.store.suppressions import Suppression

SHOWN = 100  # recipients of a report that its row names
SAID = 500  # characters of a diagnostic that it keeps
COMPLAINT = "complaint"  # the category of all complaints
NAMELESS = 100  # deliveries that reports which name no message may change in an hour, of one account


class Early(Exception):
    """What the report is about is still being sent, as far as is recorded: in a moment it may be sent."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a report came to. `met`: it was met before, and did nothing this time."""

    met: bool
    matched: Sequence[Match] = ()
    changed: Sequence[Match] = ()


async def record(conn: Connection, account: str, reported: Reported, *, patient: bool = False) -> Applied:
    """Records a report and what it changes, once, however often it comes, and with whomever at the same time.

    Only what was sent changes: failures make it bounced, complaints complained. Whatever else is told of a delivery is
    noted on it. A report about nothing of ours is recorded, and has no effect; so are those above NAMELESS. Raises
    LookupError when the account is not there, and Early, having recorded nothing, to who is `patient`.
    """
    async with conn.transaction():
        if (begun := await _begin(conn, account, reported)) is None:
            return Applied(met=True)
        id, at = begun
        matched = await match(conn, account, reported)
        if patient and not any(one.direct for one in matched) and await sending(conn, account, reported):
            raise Early
        believed = matched if await _believed(conn, account, reported, len(matched), at) else []
        ids = await _change(conn, account, reported, believed, at)
        changed = [one for one in believed if one.delivery in ids]
        await suppressions.add(conn, account, list(_suppressed(reported, believed, ids)))
        await conn.execute(
            "update reports set recipients = %s, matched = %s, changed = %s where id = %s",
            (Jsonb(list(_listed(reported, matched, ids))), len(matched), len(changed), id),
        )
    return Applied(False, matched, changed)


async def _begin(conn: Connection, account: str, reported: Reported) -> tuple[int, datetime] | None:
    """The row of a report that was not met before. Who comes with the same one meanwhile waits here."""
    try:
        cursor = await conn.execute(
            """
            insert into reports (account_id, key, kind, source, place, message_id, at)
            values (%s, %s, %s, %s, %s, %s, coalesce(%s, now())) on conflict do nothing returning id, at
            """,
            (
                account,
                held(reported.key),
                reported.kind.value,
                reported.source,
                reported.place,
                held(reported.message_id) if named(reported) else "",
                reported.at,
            ),
        )
    except psycopg.errors.ForeignKeyViolation:
        raise LookupError(f"there is no account {account}") from None
    row: tuple[int, datetime] | None = await cursor.fetchone()
    return row


async def _believed(conn: Connection, account: str, reported: Reported, matched: int, at: datetime) -> bool:
    """Whether there is room for what it changes: who knows our recipients can forge one that names no message.

    One that names it is by somebody who got that message; a provider's is signed.
    """
    if not matched or named(reported) or reported.source == PROVIDER:
        return True
    cursor = await conn.execute(
        """
        select coalesce(sum(changed), 0) from reports
        where account_id = %s and at between %s - interval '1 hour' and %s + interval '1 hour'
            and changed > 0 and message_id = '' and source <> %s
        """,
        (account, at, at, PROVIDER),
    )
    row = await cursor.fetchone()
    return row is not None and row[0] + matched <= NAMELESS


# Guarded by the state: of two reports about a delivery one changes it, and the other finds it changed.
APPLY = f"""
with applied as (
    update deliveries d set state = coalesce(g.state, d.state), report = g.report,
        reported_at = case when g.state is not null then now() end
    from unnest(%b::bigint[], %b::delivery_state[], %b::jsonb[], %b::text[], %b::jsonb[])
      as g(delivery, state, report, event, data)
    where d.id = g.delivery and d.account_id = %b and d.state = 'sent'
    returning d.id, d.account_id, d.message_id, d.recipient, d.state, d.finished_at, g.event, g.data
), told as (
    insert into events (account_id, type, delivery_id, message_id, data)
    select d.account_id, d.event, d.id, d.message_id, {facts.DELIVERY} || d.data
    from applied d join messages m on m.id = d.message_id where d.event is not null order by d.id
), {rollups.BOUNCED}
select id from applied where event is not null
"""  # noqa: S608 - the text is ours


async def _change(
    conn: Connection, account: str, reported: Reported, matched: Sequence[Match], at: datetime
) -> frozenset[int]:
    """Changes and notes what was sent; tells which deliveries changed their state."""
    if not matched:
        return frozenset()
    becomes = [_becomes(reported, one) for one in matched]
    told = [_complaint(reported) if reported.kind is Kind.COMPLAINT else _bounce(reported, one) for one in matched]
    cursor = await conn.execute(
        APPLY,
        (
            [one.delivery for one in matched],
            [state and state.value for state, _ in becomes],
            [json.dumps(_noted(reported, one, at)) for one in matched],
            [event and event.value for _, event in becomes],
            [json.dumps(one) for one in told],
            account,
        ),
    )
    return frozenset(row[0] for row in await cursor.fetchall())


def _becomes(reported: Reported, one: Match) -> tuple[State, EventType] | tuple[None, None]:
    if reported.kind is Kind.COMPLAINT:
        return State.COMPLAINED, EventType.MESSAGE_COMPLAINT
    return (State.BOUNCED, EventType.MESSAGE_BOUNCE) if one.finding.failed else (None, None)


def _bounce(reported: Reported, one: Match) -> dict[str, Any]:
    """What messageBounce tells beside what all events about a delivery do."""
    said = one.finding
    return {
        "bounceMessage": reported.place,
        "action": said.action,
        "response": {
            "source": said.source,
            "message": said.diagnostic,
            "status": said.status or None,
            "category": said.category,
            "recommendedAction": said.advice.value,
        },
        "mta": said.mta or None,
    }


def _complaint(reported: Reported) -> dict[str, Any]:
    """... and what messageComplaint does."""
    return {
        "complaintMessage": reported.place,
        "arf": held(reported.arf),
        "headers": held(reported.headers),
    }


def _noted(reported: Reported, one: Match, at: datetime) -> dict[str, Any]:
    """The report, as the delivery keeps it."""
    told = _told(one.finding) | {"kind": reported.kind.value, "at": _spelt(at)}
    if reported.kind is Kind.COMPLAINT:
        told |= {"category": COMPLAINT, "recommendedAction": Advice.REMOVE.value}
    return told


def _told(said: Finding) -> dict[str, Any]:
    return {
        "action": said.action,
        "status": said.status,
        "diagnostic": said.diagnostic[:SAID],
        "mta": said.mta,
        "category": said.category,
        "recommendedAction": said.advice.value,
    }


def _spelt(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _listed(reported: Reported, matched: Sequence[Match], changed: Collection[int]) -> Iterator[dict[str, Any]]:
    """The recipients that the report's row names: those first that are ours."""
    ours = {id(one.finding): one for one in matched}
    others = [said for said in reported.recipients if id(said) not in ours]
    for said in [*(one.finding for one in matched), *others][:SHOWN]:
        one = ours.get(id(said))
        yield {
            "recipient": said.recipient,
            **_told(said),
            "sentTo": one.recipient if one else None,
            "queueId": one.message.hex if one else None,
            "changed": one is not None and one.delivery in changed,
        }


def _suppressed(reported: Reported, matched: Sequence[Match], changed: Collection[int]) -> Iterator[Suppression]:
    """Who gets no more mail: whose address is at fault for good, and who complained, though their mail had bounced.

    A failure of somebody whom mail was passed on to says nothing against the address that we know.
    """
    for one in matched:
        if reported.kind is Kind.COMPLAINT and (one.delivery in changed or one.state == State.BOUNCED):
            detail = f"Marked as spam, by {reported.arf.get('source') or reported.arf.get('userAgent') or 'a report'}"
            yield Suppression(one.recipient, "complaint", held(detail), one.delivery, one.message)
        elif reported.kind is Kind.BOUNCE and one.delivery in changed and one.direct and one.finding.suppresses:
            detail = one.finding.diagnostic or f"{one.finding.status} {one.finding.category}".strip()
            yield Suppression(one.recipient, "bounce", detail, one.delivery, one.message)
