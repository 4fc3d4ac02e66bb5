"""Which of our deliveries a report is about: by Message-ID and recipient, by Message-ID, or by recipient and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from relay.core import provider
from relay.core.bounce import MOST, Finding, Reported, held
from relay.store import states
from relay.store.db import Connection

DEPTH = 20_000  # deliveries to the recipients of one report, or messages of its account, that are looked through
LEAST = 20  # of those, to one recipient
FEW = 10  # recipients, in a report that does not say which message it is about
PROVIDER = "mailgun"  # names the very recipients that it was given: nobody is behind them
DAYS = 7  # that such a report may come after its mail


@dataclass(frozen=True, slots=True)
class Match:
    """A delivery, and what a report says of it. `direct`: the report names its very recipient, not who is behind."""

    finding: Finding
    delivery: int
    message: UUID
    recipient: str
    state: str
    direct: bool = True


# A provider may have given the message a name of its own: then that is what reports call it, and our reply has it.
BY_RECIPIENT = f"""
select a.place, d.id, d.message_id, d.recipient, d.state::text, m.message_id = any(%(names)s), d.reply
from unnest(%(places)s::int[], %(addresses)s::text[]) as a(place, address)
cross join lateral (
    select x.id, x.message_id, x.recipient, x.state, x.reply, x.finished_at from deliveries x
    where x.account_id = %(account)s and lower(x.recipient) = lower(a.address) and x.state {states.DELIVERED}
    order by x.finished_at desc limit %(depth)s) d
cross join lateral (select y.message_id from messages y where y.id = d.message_id limit 1) m
where m.message_id = any(%(names)s) or strpos(d.reply, %(local)s) > 0
order by a.place, d.finished_at desc, d.id desc
"""  # noqa: S608 - the text is ours

BY_NAME = """
select id from (
    select id, message_id from messages where account_id = %(account)s order by id desc limit %(depth)s) m
where message_id = any(%(names)s) order by id desc limit 1
"""

# A range, so that the planner does not take the short index of all that is leased, whoever's it is: messages say which.
SENDING = """
select exists (
    select from deliveries d
    where d.state between 'leased' and 'leased' and lower(d.recipient) = any(%(addresses)s) and d.message_id in (
        select id from (
            select id, message_id from messages where account_id = %(account)s order by id desc limit %(depth)s) m
        where m.message_id = any(%(names)s)))
"""

LATELY = f"""
select distinct on (a.place) a.place, d.id, d.message_id, d.recipient, d.state::text
from unnest(%(places)s::int[], %(addresses)s::text[]) as a(place, address)
cross join lateral (
    select x.id, x.message_id, x.recipient, x.state, x.finished_at from deliveries x
    where x.account_id = %(account)s and lower(x.recipient) = lower(a.address) and x.state {states.DELIVERED}
        and x.finished_at > coalesce(%(at)s, now()) - make_interval(days => {DAYS})
        and x.finished_at <= coalesce(%(at)s + interval '15 minutes', now())  -- another clock stamped the report
    order by x.finished_at desc limit 1) d
order by a.place, d.finished_at desc
"""  # noqa: S608 - the text is ours


async def match(conn: Connection, account: str, reported: Reported) -> list[Match]:
    """The deliveries that a report is about, each once, in the order of their ids.

    A report that names a message is about no other, whoever it says it was to.
    """
    findings = _one_each(reported.recipients[:MOST])
    if name := named(reported):
        found = await _by_recipient(conn, account, findings, name)
        if not found and reported.source != PROVIDER:
            found = await _by_name(conn, account, findings, name)
    elif len(reported.recipients) <= FEW:
        found = await _lately(conn, account, findings, reported)
    else:
        found = []
    once = {one.delivery: one for one in reversed(found)}
    return [once[id] for id in sorted(once)]


def named(reported: Reported) -> str:
    """The Message-ID that it names, without its brackets; "" for none."""
    return str(held(reported.message_id)).strip().removeprefix("<").removesuffix(">").strip()


async def sending(conn: Connection, account: str, reported: Reported) -> bool:
    """Whether what it is about is being sent now: the report was faster than the record of the send."""
    if not (name := named(reported)):
        return False
    addresses = [address.lower() for address in _spelt(_one_each(reported.recipients[:MOST]))["addresses"]]
    cursor = await conn.execute(
        SENDING, {"account": account, "addresses": addresses, "names": [name, f"<{name}>"], "depth": DEPTH}
    )
    row = await cursor.fetchone()
    return row is not None and row[0] is True


async def _by_recipient(conn: Connection, account: str, findings: Sequence[Finding], name: str) -> list[Match]:
    """The newest delivery to each recipient of the message that has this name, ours or the provider's."""
    cursor = await conn.execute(
        BY_RECIPIENT,
        {
            "account": account,
            **_spelt(findings),
            "names": [name, f"<{name}>"],
            "local": _local(name),
            "depth": max(DEPTH // max(len(findings), 1), LEAST),
        },
    )
    newest: dict[int, Match] = {}
    for place, delivery, message, recipient, state, ours, reply in await cursor.fetchall():
        if ours or provider.message_id(reply or "") in (name, _local(name)):
            newest.setdefault(place, Match(findings[place], delivery, message, recipient, state))
    return list(newest.values())


async def _by_name(conn: Connection, account: str, findings: Sequence[Finding], name: str) -> list[Match]:
    """The one delivery of the message, though somebody else is named: it was passed on, and came back from there."""
    cursor = await conn.execute(BY_NAME, {"account": account, "names": [name, f"<{name}>"], "depth": DEPTH})
    if (row := await cursor.fetchone()) is None:
        return []
    cursor = await conn.execute(
        "select id, message_id, recipient, state::text from deliveries where message_id = %s limit 2", row
    )
    deliveries = await cursor.fetchall()
    if len(deliveries) != 1:
        return []
    ((delivery, message, recipient, state),) = deliveries
    finding = next((one for one in findings if one.failed), findings[0] if findings else Finding(""))
    return [Match(finding, delivery, message, recipient, state, direct=False)]


async def _lately(conn: Connection, account: str, findings: Sequence[Finding], reported: Reported) -> list[Match]:
    """The last delivery to each recipient before the report came, if that is not long ago."""
    cursor = await conn.execute(LATELY, {"account": account, **_spelt(findings), "at": reported.at})
    return [Match(findings[place], *rest) for place, *rest in await cursor.fetchall()]


def _spelt(findings: Sequence[Finding]) -> dict[str, list[Any]]:
    """Their addresses in every spelling, each with its place: we keep what the sender wrote, and servers tell ASCII."""
    found = [(place, address) for place, one in enumerate(findings) for address in one.names]
    return {"places": [place for place, _ in found], "addresses": [address for _, address in found]}


def _local(name: str) -> str:
    """What stands before the @: SES puts its own domain after the name that it gave."""
    return name.partition("@")[0] or name


def _one_each(findings: Iterable[Finding]) -> list[Finding]:
    """One of each address: the failure, where something else is said of it too."""
    chosen: dict[str, Finding] = {}
    for one in findings:
        known = chosen.get(one.recipient.lower())
        if known is None or (one.failed and not known.failed):
            chosen[one.recipient.lower()] = one
    return list(chosen.values())
