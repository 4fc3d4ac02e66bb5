"""From a submission to a message ready to be stored. Apart from accept, so that `preview` needs no database driver."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from relay.core import address, splice
from relay.core.errors import Refused
from relay.core.model import Prepared, Submission
from relay.settings import Settings


def prepare(submission: Submission, settings: Settings, now: datetime, message: UUID) -> Prepared:
    """The message as it will be stored and sent; raises Refused when it may not be. Touches its arguments alone."""
    account, mail, options = submission.account, submission.mail, submission.options
    if account.never_configured:
        raise Refused(
            f"Account {account.id} has no upstream to send through yet; set its smtp settings first",
            smtp="550 5.3.5",
            status=422,
            code="AccountNotConfigured",
        )
    if not submission.recipients:
        raise Refused("The message has no recipients", smtp="554 5.5.1", key="to")
    if len(submission.recipients) > settings.max_recipients:
        raise Refused(f"More than {settings.max_recipients} recipients", smtp="452 4.5.3", key="to")
    if len(mail.content) > settings.max_message_size:
        words = f"The message is larger than {settings.max_message_size} bytes"
        raise Refused(words, smtp="552 5.3.4", status=413, code="MessageTooLarge")
    tracked = account.track_opens if options.track is None else options.track
    recipients = tuple(dict.fromkeys(submission.recipients))
    addresses_are_ascii = all(map(address.is_ascii, (submission.sender, *recipients)))
    return Prepared(
        id=message,
        account=account.id,
        ingress=submission.ingress,
        message_id=mail.message_id,
        sender=submission.sender,
        subject=mail.subject,
        recipients=recipients,
        names=mail.names,
        bcc=submission.bcc or mail.bcc,
        content=mail.content,
        splice=splice.find(mail.content) if tracked else None,
        smtputf8=mail.smtputf8 or not addresses_are_ascii,
        eightbit=mail.eightbit,
        send_at=options.send_at if options.send_at and options.send_at > now else None,
        options=options,
        body_hash=submission.body_hash,
        suppresses=account.suppresses and submission.ingress != "notice",  # whom to tell is not whom to write to
    )
