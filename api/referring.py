"""The original of a reply or forward, as a submit names it: asked of the mailbox, and told in the answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from api.call import Call
from api.shapes import MAIL, ONE_LINE, Answer, Body
from relay import enrol
from relay.answered import tell_missing
from relay.core import place
from relay.core.errors import Refused, StoreAway
from relay.core.model import Accepted
from relay.core.tenant import Account
from relay.core.thread import Action, Mine
from relay.reference import GONE, Reference, Referred, own, pixels, refer, wish
from relay.store import db, messages

if TYPE_CHECKING:
    from api.submit import Message

NO_DOCUMENTS = "is not available here: messages are read from the mailbox itself"
_log = logging.getLogger("postferry.api")


def _action(value: Any) -> Any:
    """EmailEngine's pages spell one of them in two ways."""
    return "reply-all" if value == "replyAll" else value.lower() if isinstance(value, str) else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=place.LONGEST, pattern=ONE_LINE)]


class Original(Body):
    """A message of the account's mailbox that this one answers or forwards. It is flagged once this one is sent."""

    message: Word = Field(description="Its id here, or its Message-ID: `<…>`.")
    action: Annotated[Literal["reply", "reply-all", "forward"], BeforeValidator(_action)] = "reply"
    inline: bool = Field(False, description="Quote it below the text.")
    forward_attachments: bool = Field(False, description="Its files go along. Only with the action forward.")
    ignore_missing: bool = Field(False, description="Send without it when it is gone or the mailbox is away.")
    message_id: Word | None = Field(
        None, description="Its Message-ID: another message is not taken for it, and it is found by it when it moved."
    )
    document_store: bool | None = Field(None, description="Only false: there is none here.")

    @field_validator("document_store")
    @classmethod
    def _none(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError(NO_DOCUMENTS)
        return value

    def read(self) -> Reference:
        """Raises Refused."""
        action = Action(self.action)
        if self.forward_attachments and action is not Action.FORWARD:
            raise Refused("forwardAttachments is for the action forward", key="reference.forwardAttachments")
        return Reference(
            message=self.message,
            action=action,
            inline=self.inline,
            attachments=self.forward_attachments,
            ignore_missing=self.ignore_missing,
            message_id=self.message_id or "",
        )


class ReferenceTold(Answer):
    """What came of the reference."""

    message: str = Field(examples=[MAIL])
    success: bool
    error: str | None = Field(default=None, description="Why it was sent without.")


async def referred(call: Call, account: Account, body: Message, given: Original) -> Referred:
    """What follows from the original. 404 (and an event) where it is gone, 502 or 503 where the mailbox is away."""
    house, reference = call.house, given.read()
    zone = next((name for name in (body.tz, account.tz) if name in enrol.zones()), None)
    ours = pixels(house.settings.public_url, house.vault.derive("pixel"))
    wanted = wish(reference, zone or "UTC", ours)
    try:
        return await refer(
            house.visits, account.id, reference, _mine(body, account), wanted, house.settings.max_message_size
        )
    except Refused as refused:
        if refused.code == GONE and not body.dry_run:
            await tell_gone(call, account.id, given)
        raise


def _mine(body: Message, account: Account) -> Mine | None:
    if body.raw is not None:
        return None
    cids = [one.cid for one in body.attachments or () if one.cid]
    return Mine(own(account, *([body.from_.address] if body.from_ else [])), body.text, body.html, cids)


async def tell_gone(call: Call, account: str, given: Original, accepted: Accepted | None = None) -> None:
    """Writes the event of a reference that was not found. What is accepted stays so, whatever becomes of the event."""
    try:
        async with db.connection(call.house.pool) as conn:
            await tell_missing(conn, account, given.read().missing, UUID(accepted.queue_id) if accepted else None)
    except StoreAway as error:
        if accepted is None:
            raise
        _log.warning("the event of a missing reference is lost: %s", error, extra={"account": account})


def told(given: Original | None, original: Referred) -> ReferenceTold | None:
    if given is None:
        return None
    return ReferenceTold(message=given.message, success=not original.error, error=original.error or None)


async def told_again(call: Call, given: Original, first: Accepted) -> ReferenceTold | None:
    """As the first answer said it, as far as it is still known."""
    async with db.connection(call.house.pool) as conn:
        success = await messages.answers(conn, UUID(first.queue_id))
    return None if success is None else ReferenceTold(message=given.message, success=success)
