"""From envelope and content to the reply: whose mail it is, what it asks for, and its acceptance."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

from relay.core import mime, suppression
from relay.core.errors import Refused, StoreAway
from relay.core.model import Accepted, Mail, Submission
from relay.core.options import read_options, spelled
from relay.core.tenant import Account
from relay.ingress.envelope import Envelope
from relay.ingress.login import Directory, Login
from relay.store import db

_log = logging.getLogger("postferry.smtp")


class Acceptor(Protocol):
    """Stores a submission. Returns after COMMIT; raises Refused, Conflict or StoreAway when it is not stored."""

    async def accept(self, submission: Submission) -> Accepted: ...


class Intake:
    """Takes messages in: one call a message, and its answer is the reply, of one line or several."""

    def __init__(self, directory: Directory, acceptor: Acceptor, *, domain: str) -> None:
        self._directory, self._acceptor, self._domain = directory, acceptor, domain

    async def take(self, envelope: Envelope, content: bytes, login: Login | None, client: str) -> str:
        """Answers for the message. Never raises: what nobody foresaw is a temporary failure, told in the log."""
        try:
            submission = await self._submission(envelope, content, login)
            accepted = await self._acceptor.accept(submission)
        except Refused as refused:
            return refused.reply()
        except db.Locked:
            return "451 4.3.0 What this needs in the message store is locked, try again later"
        except StoreAway:
            return "451 4.3.0 The message store is away, try again later"
        except Exception:
            request = secrets.token_hex(8)
            _log.exception("a message could not be taken", extra={"requestId": request, "client": client})
            return f"451 4.3.0 Internal error, try again later (request {request})"
        _tell(submission, accepted, client)
        queued = f"250 2.0.0 Message queued for delivery as {accepted.queue_id} ({spelled(accepted.send_at)})"
        return f"{queued}; {suppression.left_out(accepted.suppressed)}" if accepted.suppressed else queued

    async def _submission(self, envelope: Envelope, content: bytes, login: Login | None) -> Submission:
        now = datetime.now(UTC)
        sender = envelope.sender or ""
        mail = mime.tidy(content, now=now, domain=self._domain, unique=secrets.token_hex(16))
        account = await self._account(mail, sender, login)
        options = read_options(mail.controls, now)
        return Submission(
            account=account,
            ingress="smtp",
            sender=sender,
            recipients=tuple(envelope.recipients),
            mail=mail,
            options=options,
            bcc=mail.bcc,
            body_hash=_hash(sender, envelope.named, content) if options.idempotency_key else b"",
        )

    async def _account(self, mail: Mail, sender: str, login: Login | None) -> Account:
        """Whose mail it is: who logged in, else X-Account, else the one account that sends as the envelope sender."""
        named = mail.controls.get("account")
        if login is not None:
            if named not in (None, login.user):
                raise Refused("X-Account names another account than the one logged in", smtp="550 5.7.1")
            if not await login.holds(self._directory):
                raise Refused("The login of this session holds no more", smtp="550 5.7.1")
            named = login.user
        if named is None:
            account = await self._directory.account_for_sender(sender)
            if account is None:
                raise Refused(_nobody(sender), smtp="550 5.7.1")
        else:
            account = await self._directory.account(named)
            if account is None:
                raise Refused(f"Unknown account {named}", smtp="550 5.1.8")
        if account.never_configured:
            raise Refused(f"Account {account.id} has no upstream: its smtp settings were never made", smtp="550 5.3.5")
        return account


def _nobody(sender: str) -> str:
    whose = f"no single account sends as <{sender}>" if sender else "the null sender belongs to nobody"
    return f"Whose mail is this? Log in or add X-Account: {whose}"


def _hash(sender: str, recipients: Iterable[str], content: bytes) -> bytes:
    """Identifies the request. NUL separates: neither an address nor accepted content has one."""
    digest = hashlib.sha256("\0".join((sender, *recipients, "")).encode())
    digest.update(content)
    return digest.digest()


def _tell(submission: Submission, accepted: Accepted, client: str) -> None:
    _log.info(
        "accepted again: same idempotency key" if accepted.duplicate else "accepted",
        extra={
            "queueId": accepted.queue_id,
            "account": submission.account.id,
            "ingress": "smtp",
            "client": client,
            "recipients": len(submission.recipients),
            "size": len(submission.mail.content),
        },
    )
