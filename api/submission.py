"""From the JSON of a submit to a Submission: who sends, who receives, which bytes, and every fault with its field."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from api.problems import faulty
from api.times import read_time
from relay import enrol
from relay.core import address, compose, mime, thread
from relay.core.account import COPY
from relay.core.address import Mailbox
from relay.core.compose import Draft
from relay.core.errors import Refused
from relay.core.model import Mail, Options, Priority, Submission
from relay.core.options import read_options
from relay.core.tenant import Account
from relay.reference import NOTHING, Referred
from relay.settings import Settings

if TYPE_CHECKING:
    from api.submit import Address, Attachment, Message

T = TypeVar("T")
COMPOSED = (
    *("from_", "reply_to", "to", "cc", "bcc", "subject", "text", "html", "attachments", "headers", "message_id"),
)
"""Fields that make a message, and have no say when one is given as `raw`."""
BLANKS = b" \t\r\n\v\f"
NOBODY = "is missing: nobody would receive this"
NOBODY_IN_RAW = "has no recipient in To, Cc or Bcc, and envelope.to names none"


def read(
    body: Message,
    account: Account,
    *,
    now: datetime,
    key: str | None,
    sent: bytes,
    settings: Settings,
    original: Referred = NOTHING,
) -> Submission:
    """The submission; `sent` is the body as it came. Raises a Problem with each field that is wrong, or Refused."""
    return _Reader(body, account, now, settings, original).submission(key, sent)


class _Reader:
    """Reads one body; collects faults until all that can be judged was."""

    def __init__(self, body: Message, account: Account, now: datetime, settings: Settings, original: Referred) -> None:
        self.body, self.account, self.now, self.original = body, account, now, original
        self.to: Sequence[Mailbox] = ()
        self.cc: Sequence[Mailbox] = ()
        self.hostname, self.most = settings.hostname, settings.max_recipients
        self.faults: list[tuple[str, str]] = []

    def submission(self, key: str | None, sent: bytes) -> Submission:
        options = self._options(key)
        raw = self._raw() if self.body.raw is not None else self._composed()
        self._give_up_on_faults()
        mail = mime.tidy(raw, now=self.now, domain=self.hostname, unique=secrets.token_hex(16))
        options = self._with_controls(options, mail)
        sender, recipients = self._sender(mail), self._recipients(raw, mail)
        self._give_up_on_faults()
        return Submission(
            account=self.account,
            ingress="api",
            sender=sender,
            recipients=recipients,
            mail=mail,
            options=options,
            bcc=tuple(one.address for one in self.body.bcc or ()) or mail.bcc,
            body_hash=hashlib.sha256(sent).digest() if options.idempotency_key else b"",
        )

    def _give_up_on_faults(self) -> None:
        if self.faults:
            raise faulty(self.faults)

    @contextmanager
    def _at(self, key: str) -> Iterator[None]:
        """What is refused inside is a fault of this field."""
        try:
            yield
        except Refused as refused:
            self.faults.append((refused.key or key, refused.message))

    def _options(self, key: str | None) -> Options:
        body, send_at = self.body, None
        if body.send_at is not None:
            with self._at("sendAt"):
                send_at = read_time(body.send_at, self.now)
        if body.tz is not None and body.tz not in enrol.zones():
            self.faults.append(("tz", "is not a known time zone (example: Europe/Berlin)"))
        return Options(
            send_at=send_at,
            attempts=body.delivery_attempts,
            priority=Priority.named(body.priority or "normal"),
            track=body.track_opens,
            copy=None if body.copy_ is None else COPY[body.copy_],
            sent_mail_path=body.sent_mail_path,
            email_type=body.email_type,
            reference_type=body.reference_type,
            reference_id=body.reference_id,
            tz=body.tz,
            idempotency_key=key,
            answers=self.original.answers,
        )

    def _with_controls(self, options: Options, mail: Mail) -> Options:
        """What the control headers of a raw message ask for, where no field of the body says it."""
        asked = Options()
        with self._at("raw"):
            asked = read_options(mail.controls, self.now)
            if mail.controls.get("account", self.account.id) != self.account.id:
                raise Refused("The raw message has an X-Account that names another account", key="raw")
        said = {option.name for option in fields(options) if getattr(options, option.name) is not None}
        if self.body.priority is None:
            said.discard("priority")
        return replace(options, **{name: getattr(asked, name) for name in asked.__slots__ if name not in said})

    def _raw(self) -> bytes:
        given = [name for name in COMPOSED if getattr(self.body, name) is not None]
        self.faults += [(name.rstrip("_"), "goes without raw: the raw message has its own") for name in given]
        raw = self._decoded("raw", self.body.raw or "")
        return raw if b"\r" in raw else raw.replace(b"\n", b"\r\n")  # as files have it; a mixture is not guessed at

    def _composed(self) -> bytes:
        body = self.body
        sender = self._mailboxes("from", [body.from_] if body.from_ else None)
        draft = Draft(
            sender=sender[0] if sender else Mailbox(self.account.name, self.account.email),
            reply_to=self._mailboxes("replyTo", body.reply_to),
            to=self._mailboxes("to", body.to),
            cc=self._mailboxes("cc", body.cc),
            subject=body.subject or "",
            text=body.text,
            html=body.html,
            attachments=tuple(self._attachment(at, one) for at, one in enumerate(body.attachments or ())),
            headers=body.headers or {},
            message_id=body.message_id or "",
        )
        if self.original.made is not None:
            everybody, subject = self.original.everybody, body.subject is not None
            draft = thread.completed(draft, self.original.made, everybody=everybody, subject=subject)
        self.to, self.cc = draft.to, draft.cc
        self._mailboxes("bcc", body.bcc)
        if not draft.sender.address:
            self.faults.append(("from", "is missing, and the account has no email of its own"))
        self._give_up_on_faults()
        return compose.compose(draft, now=self.now, domain=self.hostname, unique=secrets.token_hex(16))

    def _mailboxes(self, key: str, given: Sequence[Address] | None) -> tuple[Mailbox, ...]:
        found = []
        for at, one in enumerate(self._counted(key, given or ())):
            with self._at(f"{key}.address" if key == "from" else f"{key}[{at}].address"):
                found.append(Mailbox(one.name or "", address.envelope(one.address)))
        return tuple(found)

    def _counted(self, key: str, given: Sequence[T]) -> Sequence[T]:
        """What is given, unless it is more than any message may have: to judge each of a million takes minutes."""
        if len(given) > self.most:
            self.faults.append((key, f"has {len(given)} addresses, and one message has {self.most} at most"))
            return ()
        return given

    def _attachment(self, at: int, given: Attachment) -> compose.Attachment:
        return compose.Attachment(
            content=self._decoded(f"attachments[{at}].content", given.content),
            filename=given.filename or "",
            content_type=given.content_type or "",
            disposition=given.content_disposition or "",
            cid=given.cid or "",
        )

    def _decoded(self, key: str, text: str) -> bytes:
        try:
            return base64.b64decode(text.encode("ascii").translate(None, BLANKS), validate=True)
        except (binascii.Error, ValueError):
            self.faults.append((key, "is not base64"))
            return b""

    def _sender(self, mail: Mail) -> str:
        """The envelope's, else that of the headers, else the account's own."""
        envelope = self.body.envelope
        if envelope and envelope.from_ is not None:
            with self._at("envelope.from"):
                return address.envelope(envelope.from_) if envelope.from_ else ""
        sender = mail.sender or self.account.email
        if not sender:
            self.faults.append(("envelope.from", "is missing, and neither the message nor the account has a sender"))
            return ""
        with self._at("from"):
            return address.envelope(sender)
        return ""

    def _recipients(self, raw: bytes, mail: Mail) -> tuple[str, ...]:
        """The envelope's, else To, Cc and Bcc: of the fields, or of the raw message."""
        body = self.body
        if body.envelope and body.envelope.to is not None:
            return self._judged({"envelope.to": body.envelope.to})
        if body.raw is not None:
            return self._judged({"raw": (*mime.addressed(raw), *mail.bcc)})
        lists = {"to": self.to, "cc": self.cc, "bcc": body.bcc or ()}
        return self._judged({key: [one.address for one in given] for key, given in lists.items()})

    def _judged(self, lists: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """The addresses of these fields, unless they are none, or more together than a message may have."""
        given = {key: addresses for key, addresses in lists.items() if addresses}
        total = sum(map(len, given.values()))
        if not total:
            self.faults.append((next(iter(lists)), NOBODY if self.body.raw is None else NOBODY_IN_RAW))
        if total > self.most:
            those = f"of the {total} addresses of {', '.join(given)}" if len(given) > 1 else "addresses"
            words = f"{those}, and one message has {self.most} at most"
            self.faults += [(key, f"has {len(addresses)} {words}") for key, addresses in given.items()]
            return ()
        found = []
        for key, addresses in given.items():
            for at, one in enumerate(addresses):
                with self._at(key if key == "raw" else f"{key}[{at}]"):
                    found.append(address.envelope(one))
        return tuple(found)
