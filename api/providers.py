"""Webhooks of providers: what they tell of mail that left through them. Their signature is who they are."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from api.call import Call
from api.problems import Problem
from api.shapes import AccountId, Answer, Body
from relay.core.mailgunevents import Effect
from relay.providers import Repeated, Unsigned


class MailgunPost(Body):
    """As Mailgun posts it; what it has beside this is passed over."""

    model_config = ConfigDict(extra="allow")

    signature: dict[str, Any] = Field(
        description="`timestamp` and `token`, and `signature`: their HMAC-SHA256 with `mailgun.webhookSigningKey`.",
        examples=[{"timestamp": "1795172524", "token": "e0b5…", "signature": "12d9…"}],
    )
    event_data: dict[str, Any] = Field(
        alias="event-data",
        description="The event, and the mail that it is about.",
        examples=[{"event": "failed", "severity": "permanent", "recipient": "ada@example.com"}],
    )


class Told(Answer):
    """What came of it."""

    effect: Effect = Field(description="`none`: nothing that was sent from here changes by it.")


async def mailgun(call: Call, account: AccountId, body: MailgunPost) -> Told:
    """Where Mailgun posts its webhooks for this account. It wants no token: the signature says who it is.

    401 for what is not signed with the account's `mailgun.webhookSigningKey` within the last day, whether or not there
    is such an account: Mailgun posts it again for eight hours, in which a wrong key can be mended. 406, after which
    Mailgun gives up, for a token that was taken before.
    """
    try:
        return Told(effect=await call.house.providers.mailgun(account, body.signature, body.event_data))
    except Unsigned:
        why = "This is not signed with the key that the account has for Mailgun's webhooks, or not lately"
        raise Problem(401, why, code="BadSignature") from None
    except Repeated:
        raise Problem(406, "This webhook was taken before", code="Repeated") from None
