"""Reports over HTTP: the bounces and complaints that were read, and what came of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.call import Call
from api.shapes import MAIL, AccountId, Answer, Instant, Listing, Paging
from relay.store import reports


class Search(Paging):
    kind: Literal["bounce", "complaint"] | None = Field(None, description="Only bounces, or only complaints.")
    matched: bool | None = Field(None, description="Only reports about mail of the account, or only the others.")


class Named(Answer):
    """A recipient that a report names."""

    recipient: str = Field(description="As the report has it; empty where a complaint hides it.")
    action: str | None = Field(
        description="failed, delayed, delivered, relayed or expanded. Null of a complaint.", examples=["failed"]
    )
    status: str | None = Field(examples=["5.1.1"])
    message: str | None = Field(description="The server's words.", examples=["550 5.1.1 User unknown"])
    mta: str | None = Field(description="The server that said it.", examples=["mx.example.com"])
    category: str = Field(
        description="What it comes to: `unknown_user`, `mailbox_full`, `spam`, ...", examples=["unknown_user"]
    )
    recommended_action: str = Field(
        description="remove, retry, fix_configuration, remove_content or review.", examples=["remove"]
    )
    sent_to: str | None = Field(
        description="Whom we sent it to: another where it was passed on. Null: no mail of ours.",
        examples=["ada@example.com"],
    )
    queue_id: str | None = Field(description="Of the message that it is about.")
    changed: bool = Field(description="The delivery is bounced or complained by this report.")


class Report(Answer):
    """A report that was read, once, and what came of it."""

    id: int = Field(examples=[1])
    kind: Literal["bounce", "complaint"]
    source: str = Field(description="Where it came from: `imap` or `mailgun`.", examples=["imap"])
    message: str | None = Field(description="Id of the report's own message in the mailbox.", examples=[MAIL])
    message_id: str | None = Field(description="Message-ID of the original, where the report tells it.")
    at: Instant = Field(description="When it came.")
    matched: int = Field(description="Deliveries that it is about.", examples=[1])
    changed: int = Field(
        description="Of those: what it changed. A report that comes after another changes nothing.", examples=[1]
    )
    recipients: list[Named] = Field(description="At most 100 of those that it names, ours first.")


class Reports(Listing):
    items: list[Report]


async def page(call: Call, account: AccountId, query: Search) -> Reports:
    """Bounces and complaints that were read in the account's mailbox or told by its provider, newest first."""
    await call.account(account)
    at = query.after(tuple[datetime, int])
    wanted = reports.Filter(account, query.kind, query.matched)
    async with call.turn() as conn:
        total, found = await reports.page(
            conn, wanted, after=at[2] if at else None, skip=query.skip, size=query.page_size, count=at is None
        )
    last = [found[-1].at.isoformat(), found[-1].id] if found else None
    return Reports(**query.frame(at, total, len(found), last), items=[_shown(one) for one in found])


def _shown(one: reports.Report) -> Report:
    return Report(
        id=one.id,
        kind="complaint" if one.kind == "complaint" else "bounce",
        source=one.source,
        message=one.place,
        message_id=one.message_id or None,
        at=one.at,
        matched=one.matched,
        changed=one.changed,
        recipients=[Named(**_named(told)) for told in one.recipients],
    )


def _named(told: Any) -> dict[str, Any]:
    return {
        "recipient": told["recipient"],
        "action": told["action"] or None,
        "status": told["status"] or None,
        "message": told["diagnostic"] or None,
        "mta": told["mta"] or None,
        "category": told["category"],
        "recommended_action": told["recommendedAction"],
        "sent_to": told["sentTo"],
        "queue_id": told["queueId"],
        "changed": told["changed"],
    }
