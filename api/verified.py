"""The shapes of what a verification found: EmailEngine's fields, then the steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.shapes import Answer, Instant
from relay.core.verification import Result, StepState


class Step(Answer):
    step: str = Field(
        examples=["connect"],
        description="SMTP: `settings` `resolve` `connect` `ehlo` `tls` `auth`. IMAP: `settings` `resolve` `connect`"
        " `greeting` `tls` `login` `folders`. Mailgun: `settings` `resolve` `connect` `tls` `auth`. In the order they"
        " are taken: TLS comes early where it is implicit.",
    )
    state: StepState = Field(description="`skipped`: not asked for, or an earlier one failed.")
    seconds: float = Field(description="How long it took.", examples=[0.021])
    detail: str | None = Field(None, description="What was found; for a failure, what is wrong.", examples=["port 465"])
    advice: str | None = Field(None, description="What to do about it.")


class Server(Answer):
    """How one server fared."""

    success: bool
    provider: Literal["mailgun"] | None = Field(None, description="Whose API it is; null for a mail server.")
    error: str | None = Field(None, description="What is wrong, where `success` is false.")
    code: str | None = Field(
        None,
        description="A word for programs: `ESETTINGS`, `EFORBIDDEN`, `EDNS`, `ECONNECTION`, `ETIMEDOUT`, `ETLS`,"
        " `EAUTH`, `EDOMAIN`, `EPROTOCOL`, or the mailbox's own response code, e.g. `AUTHENTICATIONFAILED`.",
    )
    response_text: str | None = Field(None, description="The server's own words, where it refused.")
    steps: list[Step]


class Mailbox(Server):
    folders: dict[Literal["sent", "trash", "drafts", "junk", "all"], str] | None = Field(
        None,
        description="The folders of each special use that there are, by what the server says or by their names.",
        examples=[{"sent": "Sent", "trash": "Trash"}],
    )


class Known(Answer):
    """What the last verification found. After a change of the servers nothing is known until they are looked at."""

    at: Instant | None = Field(description="When.")
    pending: bool = Field(description="The servers were changed, and are to be looked at.")
    smtp: Server | None
    imap: Mailbox | None


def server_shown(result: Result | None) -> Server | None:
    return None if result is None else Server.model_validate(result.told())


def mailbox_shown(result: Result | None) -> Mailbox | None:
    return None if result is None else Mailbox.model_validate(result.told())
