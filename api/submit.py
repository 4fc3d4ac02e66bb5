"""Submit over HTTP: a message as JSON, accepted once it is stored."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from api import reading, referring
from api.call import Call
from api.problems import Problem
from api.referring import Original, ReferenceTold
from api.shapes import ONE_LINE, AccountId, Answer, Body, Instant
from api.submission import read
from relay.accept import new_id
from relay.core.model import Accepted, Reason, Submission, Suppressed
from relay.core.options import LONGEST_KEY, MOST_ATTEMPTS
from relay.core.suppression import AllSuppressed
from relay.prepare import prepare
from relay.reference import NOTHING
from relay.store import db, messages

KEY = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_KEY}}}")
DOCUMENTED: dict[str, Any] = {
    "large": True,
    "errors": (409, 422, 502),
    "headers": {
        "Idempotency-Key": {
            "description": "For 24 hours the same key and body, byte for byte, get the first answer again, and"
            " nothing is sent twice. The same key with another body is a 409. 1 to 1024 ASCII characters, no blanks.",
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST_KEY,
            "pattern": "^[!-~]+$",
        }
    },
}

RENDERED = "is not available here: hand over the message as it shall be sent"
LATER = {
    "trackingEnabled": "is called trackOpens here",
    "trackClicks": "is not available here: links are left as they are",
    "gateway": "is not available here: mail leaves through the account's own smtp settings",
    "dsn": "is not available here: what becomes of a message is told as events",
    **dict.fromkeys(("template", "render", "mailMerge", "previewText", "locale"), RENDERED),
}
"""Fields of programs written for EmailEngine that this version has not, and what to do about each."""

_log = logging.getLogger("postferry.api")


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError('must be {"address": "ada@example.com"}, or a list of such')
    return [value] if isinstance(value, dict) else value


def _as_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Address(Body):
    name: str | None = Field(None, description="Display name.")
    address: str = Field(description="The address alone, e.g. `ada@example.com`.")


Addresses = Annotated[list[Address], BeforeValidator(_as_list, json_schema_input_type=Address | list[Address])]
Label = Annotated[str, StringConstraints(max_length=255, pattern=ONE_LINE)]
Folder = Annotated[str, StringConstraints(max_length=1024, pattern=ONE_LINE)]
Recipients = Annotated[list[str], BeforeValidator(_as_texts, json_schema_input_type=str | list[str])]
Disposition = Annotated[Literal["attachment", "inline"], BeforeValidator(_lower)]


class Attachment(Body):
    content: str = Field(description="The file in base64.")
    filename: str | None = Field(None, description="Any characters.")
    content_type: str | None = Field(None, description="Found by the filename when left out.")
    content_disposition: Disposition | None = None
    cid: str | None = Field(None, description='For images in `html`: `<img src="cid:…">`.')
    encoding: Literal["base64"] | None = None


class Envelope(Body):
    """Who really sends and receives, whatever the headers show."""

    from_: str | None = Field(None, description='Where bounces go; "" for nowhere.')
    to: Recipients | None = Field(None, description="All recipients.")


class Message(Body):
    """A message. With `raw`, the fields that would make one are refused; its own headers say who sends and receives.

    A raw message may also have the control headers of mail by SMTP, such as `X-Send-At`: what a field here says goes
    before them.
    """

    later: ClassVar = LATER
    from_: Address | None = Field(None, description="The account's own name and address when left out.")
    reply_to: Addresses | None = None
    to: Addresses | None = None
    cc: Addresses | None = None
    bcc: Addresses | None = Field(None, description="Get their copy; nobody sees them.")
    subject: str | None = None
    text: str | None = Field(None, description="The message as plain text.")
    html: str | None = Field(None, description="The message as HTML. With `text`, both travel and the reader chooses.")
    attachments: list[Attachment] | None = Field(None, max_length=1000)
    headers: dict[str, str] | None = Field(None, description="More header fields.")
    message_id: str | None = Field(None, description="Made up when left out.")
    reference: Original | None = Field(None, description="The message that this one answers or forwards.")
    envelope: Envelope | None = None
    raw: str | None = Field(
        None,
        description="A whole message (RFC 5322) in base64, instead of all that. Its lines end with CRLF, or all LF.",
    )
    send_at: str | int | float | None = Field(
        None, description="ISO 8601, RFC 5322, or epoch seconds. A time that has passed means now."
    )
    delivery_attempts: int | None = Field(None, ge=1, le=MOST_ATTEMPTS, description="Tries before it is a dead letter.")
    priority: Literal["high", "normal", "bulk"] | None = Field(
        None, description="Its place in the account's own queue; `normal`, if null."
    )
    track_opens: bool | None = Field(
        None, description="A pixel for each recipient in the HTML; as the account says, if null."
    )
    copy_: bool | Literal["auto", "append", "replace", "none"] | None = Field(
        None, description="The Sent copy of this message; as the account says, if null."
    )
    sent_mail_path: Folder | None = Field(None, description="Folder of the Sent copy, where it is another one.")
    email_type: Label | None = Field(None, description="A word of yours for this kind of mail.")
    reference_type: Label | None = Field(None, description="What it is about in your system: the kind of thing,")
    reference_id: Label | None = Field(None, description="and its id.")
    tz: str | None = Field(None, max_length=64, description="Time zone of the sender, e.g. `Europe/Berlin`.")
    dry_run: bool | None = Field(None, description="Answer with what would be sent; store nothing.")


class Idempotency(Answer):
    key: str
    status: Literal["MISS", "HIT"] = Field(description="HIT: this is the first answer again.")


class Skipped(Answer):
    recipient: str
    reason: Reason
    since: Instant


class Submitted(Answer):
    response: str = Field(description="`Queued for delivery`, or `Dry run`.")
    message_id: str
    send_at: Instant
    queue_id: str | None = Field(default=None, description="The message's name here. None of a dry run.")
    reference: ReferenceTold | None = None
    idempotency: Idempotency | None = None
    suppressed: list[Skipped] | None = Field(
        default=None, description="Recipients that get nothing: the account sends to them no longer."
    )
    preview: str | None = Field(default=None, description="Of a dry run: the message in base64, as it would be stored.")

    def json_bytes(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)


async def submit(call: Call, account: AccountId, body: Message) -> Submitted:
    """Hand over a message. The answer comes after it is stored; from then on it is sent, whatever happens here.

    Each recipient gets a copy, tried until it is sent or its attempts or lifetime end. Mail of a paused account is
    accepted and waits. 422: the account has no server to send through yet, or every recipient is suppressed.
    """
    tenant = await call.account(account)
    sent, settings, key = call.request[reading.BODY], call.house.settings, _idempotency_key(call)
    if body.reference and key and not body.dry_run and (first := await _before(call, account, key, sent)):
        return _answer(call, account, first, key, await referring.told_again(call, body.reference, first))
    original = await referring.referred(call, tenant, body, body.reference) if body.reference else NOTHING
    now = datetime.now(UTC)
    submission = read(body, tenant, now=now, key=key, sent=sent, settings=settings, original=original)
    told = referring.told(body.reference, original)
    if body.dry_run:
        return await _dry_run(call, submission, now, told)
    key = submission.options.idempotency_key
    accepted = await call.house.acceptor.accept(submission)
    if body.reference and original.missing and not accepted.duplicate:
        await referring.tell_gone(call, account, body.reference, accepted)
    return _answer(call, account, accepted, key, told)


def _answer(
    call: Call, account: str, accepted: Accepted, key: str | None, reference: ReferenceTold | None
) -> Submitted:
    _log.info(
        "accepted again: same idempotency key" if accepted.duplicate else "accepted",
        extra={"queueId": accepted.queue_id, "account": account, "ingress": "api", "requestId": call.id},
    )
    return Submitted(
        response="Queued for delivery",
        message_id=accepted.message_id,
        send_at=accepted.send_at,
        queue_id=accepted.queue_id,
        reference=reference,
        idempotency=Idempotency(key=key, status="HIT" if accepted.duplicate else "MISS") if key else None,
        suppressed=_skipped(accepted.suppressed),
    )


async def _before(call: Call, account: str, key: str, sent: bytes) -> Accepted | None:
    """The first answer to this key: it counts, whatever became of the original since."""
    async with db.connection(call.house.pool) as conn:
        found = await messages.earlier(conn, account, key)
    if found is None:
        return None
    body_hash, accepted = found
    if body_hash != hashlib.sha256(sent).digest():
        raise messages.different_body()
    return accepted


async def _dry_run(call: Call, submission: Submission, now: datetime, reference: ReferenceTold | None) -> Submitted:
    (prepared,) = await call.house.acceptor.judge([prepare(submission, call.house.settings, now, new_id())])
    if len(prepared.suppressed) == len(prepared.recipients):
        raise AllSuppressed(prepared.account, prepared.suppressed)
    return Submitted(
        response="Dry run",
        message_id=prepared.message_id,
        send_at=prepared.send_at or now,
        reference=reference,
        suppressed=_skipped(prepared.suppressed),
        preview=base64.b64encode(prepared.content).decode(),
    )


def _skipped(suppressed: Sequence[Suppressed]) -> list[Skipped] | None:
    """None where there are none, so that the field is left out."""
    return [Skipped(recipient=one.recipient, reason=one.reason, since=one.since) for one in suppressed] or None


def _idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        fields = [("Idempotency-Key", f"must be 1 to {LONGEST_KEY} ASCII characters, no blanks")]
        raise Problem(400, "The Idempotency-Key cannot be used", code="InvalidFields", fields=fields)
    return key
