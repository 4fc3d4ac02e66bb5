"""Reports about mail we sent: bounces, warnings, complaints and auto-replies, in whatever dialect a server speaks.

First what machines are told (RFC 3464, RFC 5965, X-Failed-Recipients), then what people are told; all of it only on
evidence that the mail is a report. Never raises, and reads at most 1 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from relay.core import letter, phrases, prefixes, prose, statuses, words
from relay.core.letter import Fields, Letter
from relay.core.prose import ADDRESS, Told

OPENING = 6000  # characters in which a report says that it is one
LONGEST = 100 << 10  # characters of its text that are read

_RECEIPTS = frozenset({"message/disposition-notification", "message/global-disposition-notification"})
_STATUS = re.compile(r"delivery-status|disposition-notification")
_ID = re.compile(r"<[^<>\s]{1,500}>")
_ID_IN_TEXT = re.compile(r"message-?id\s?[:=]?\s{0,5}(<[^<>\s@]{1,250}@[^<>\s]{1,250}>)", re.IGNORECASE)


class Kind(StrEnum):
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto-reply"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Report:
    """What a message reports. `message_id` is the original's, in angle brackets; "" when it is not told."""

    kind: Kind
    message_id: str = ""
    recipients: tuple[Told, ...] = ()
    feedback: Fields = field(default_factory=Fields)  # of a complaint
    original: Fields = field(default_factory=Fields)  # header of what is complained about


def read(raw: bytes) -> Report:
    """What this message (RFC 5322) reports."""
    mail = letter.read(raw)
    if _receipt(mail):
        return Report(Kind.NONE)
    original = _original(mail)
    if (feedback := _feedback(mail, original)) is not None:
        return _complaint(feedback, original)
    if complained := statuses.amazon_complaint(mail):
        return _complaint(*complained)
    text = _text(mail)
    told = list(statuses.read(mail)) or list(statuses.amazon(mail))
    if (_typed(mail) and told) or _evident(mail, text):
        told = _reasoned(_unique(told), text) or _named(mail, text, original)
        if told:
            name = _message_id(original, text) or _answered(mail)
            return Report(Kind.BOUNCE, name, tuple(_judged(mail, told, text, original)))
    return Report(Kind.AUTO_REPLY if _auto_reply(mail) else Kind.NONE)


def _receipt(mail: Letter) -> bool:
    """A reader's notice (RFC 8098, 6533): the mail arrived, though its fields name a recipient as a failure's do.

    A server that writes one refuses the mail by it, for the recipient's filter or for want of room (RFC 5429 2.1.2).
    """
    told = [letter.fields_of(part.text) for part in mail.parts if part.kind in _RECEIPTS and not part.enclosed]
    declared = "disposition-notification" in mail.parameters.get("report-type", "").lower()
    deleted = any("deleted" in fields.get("disposition").lower() for fields in told)
    return bool(declared or told) and not (deleted and _machine(mail) and _titled(mail))


def _machine(mail: Letter) -> bool:
    """A server's name, or none: people have an address."""
    sender = mail.fields.get("from")
    return bool(phrases.MACHINE_SENDER.search(sender)) or "@" not in sender


def _titled(mail: Letter) -> bool:
    """As reports are; not as the answer of somebody away is, whatever it answers."""
    subject = words.decode(mail.fields.get("subject"))
    return bool(phrases.FAILURE_SUBJECT.search(subject)) and not phrases.AWAY.match(subject)


def _typed(mail: Letter) -> bool:
    """It says by its type, or is Amazon's: status fields in other mail may be quoted by people."""
    return (
        _of_delivery(mail)
        or any("delivery-status" in part.kind and not part.enclosed for part in mail.parts)
        or "@sns.amazonaws.com" in mail.fields.get("from").lower()
    )


def _of_delivery(mail: Letter) -> bool:
    """A report (RFC 6522) that names no other type: there are those of TLS, of recalled mail and more."""
    about = mail.parameters.get("report-type", "").lower()
    return mail.kind == "multipart/report" and (not about or "deliver" in about)


def _evident(mail: Letter, text: str) -> bool:
    """Whether three signs agree that it is a report; one or two may be chance."""
    fields, opening = mail.fields, text[:OPENING]
    subject, sender = words.decode(fields.get("subject")), fields.get("from")
    typed, machine = _of_delivery(mail), _machine(mail)
    titled, plainly = _titled(mail), bool(phrases.PLAINLY.match(subject))
    auto = fields.get("auto-submitted").lower()
    if fields.get("x-failed-recipients"):
        return True
    path = fields.get("return-path").replace(" ", "").lower()
    nobody = path == "<>" or path.startswith("<mailer-daemon")
    own = bool(set(ADDRESS.findall(path)) & set(ADDRESS.findall(sender.lower())))
    notice = titled and not prefixes.prefixed(subject)  # a postmaster may be a person, who answers
    if own and not typed and not (machine and (notice or "daemon" in sender.lower())):
        return False  # somebody's own mail: its sender waits for bounces at the address that it writes from
    if phrases.NO_FAILURE.search(subject) and not titled:
        return False
    if _passed_on(mail) and not (machine or nobody):
        return False
    unasked = bool(fields.get("list-unsubscribe")) or auto.startswith("auto-generated")
    daemon = machine and "bounce" not in sender.lower()  # newsletters come from there as well
    if unasked and not (daemon or nobody or typed):
        return False  # a newsletter, or an application's notice, of a parcel perhaps (RFC 3834 5.1)
    failed, said = phrases.FAILED.search(opening) or phrases.DELAYED.search(opening), prose.SAID.search(opening)
    if not (typed or titled or failed or said) and phrases.HELD.search(f"{subject}\n{opening}"):
        return False
    signs = sum(
        (
            2 * typed,
            nobody,
            machine,
            titled,
            plainly,
            auto.startswith(("auto-replied", "auto-generated")),
            bool(failed),
            bool(said),
            prose.names(opening, _others(mail, Fields())),
            -2 * (not titled and bool(phrases.AWAY.search(subject))),
            -3 * (not machine and not plainly and auto.startswith("auto-")),  # somebody is away, or counts tickets
            -2 * (not machine and prefixes.prefixed(subject)),
            -(2 - plainly) * (not machine and bool(fields.get("list-id") or fields.get("list-unsubscribe"))),
            -(not machine and bool(fields.get("in-reply-to"))),
        )
    )
    if machine or typed:
        return signs >= 3
    if nobody or auto or fields.get("precedence"):
        person = not (titled or phrases.UNANSWERED.search(sender))
        return signs >= (4 if person else 3)  # who has left tells so by such mail, and whom to write to
    return signs >= 5  # people write of deliveries that failed, too


def _passed_on(mail: Letter) -> bool:
    """A report is enclosed in it: people pass on what came back to them."""
    return any("delivery-status" in part.kind and part.enclosed for part in mail.parts)


def _auto_reply(mail: Letter) -> bool:
    fields = mail.fields
    return (
        fields.get("auto-submitted").lower().startswith("auto-replied")
        or bool(fields.get("x-autoreply") or fields.get("x-autorespond"))
        or fields.get("precedence").lower() in ("auto_reply", "auto-reply")
        or bool(phrases.AWAY.search(words.decode(fields.get("subject"))))
    )


# -- the parts that matter ---------------------------------------------------------------------------------------------


def _text(mail: Letter) -> str:
    """What people are told: the texts that are not of the original message."""
    own = [part for part in mail.parts if not part.enclosed]
    texts = [part.text for part in own if part.kind in ("text/plain", "text/html", "text")]
    return prose.before_original("\n".join(texts or [part.text for part in own])[:LONGEST])


def _original(mail: Letter) -> Fields:
    """The header of the original message: an enclosed part's, else the one that follows in the text."""
    for part in mail.parts:
        if part.kind in letter.ENCLOSED or part.kind.startswith("message/rfc822"):
            fields = letter.fields_of(part.text.lstrip("\n"))
            if len(fields.pairs) > 1:
                return fields
    for part in mail.parts:
        if not part.enclosed and (block := prose.original_header(part.text[:LONGEST])):
            return letter.fields_of(block)
    return Fields()


def _message_id(original: Fields, text: str) -> str:
    if found := _ID.search(original.get("message-id")):
        return found[0]
    told = _ID_IN_TEXT.search(text)
    return told[1] if told else ""


def _answered(mail: Letter) -> str:
    """What the report answers, as servers tell that do not send the original along: by a field beside the recipient
    (RFC 8098, Google), by one of the header (Coremail), or as an answer.
    """
    parts = [part for part in mail.parts if _STATUS.search(part.kind) and not part.enclosed]
    blocks = [letter.fields_of(part.text.lstrip("\n")) for part in parts]
    told = [block.get(key) for block in blocks for key in ("original-message-id", "x-original-message-id")]
    told += [mail.fields.get(key) for key in ("x-cm-original-message-id", "in-reply-to")]
    found = _ID.findall(next(filter(None, told), ""))
    return found[0] if len(found) == 1 else ""


# -- complaints --------------------------------------------------------------------------------------------------------


def _feedback(mail: Letter, original: Fields) -> Fields | None:
    """The fields of a feedback report (RFC 5965); Hotmail's has none, it is the original alone. None: no complaint."""
    declared = "feedback" in mail.parameters.get("report-type", "").lower()
    for part in mail.parts:
        if not part.enclosed and (declared or part.kind == "message/feedback-report"):
            fields = letter.fields_of(part.text.lstrip("\n"))
            if fields.get("feedback-type") or part.kind == "message/feedback-report":
                return fields
    if declared:
        return Fields()
    staff = mail.fields.get("from").lower().find("staff@hotmail") >= 0
    about = phrases.COMPLAINT.match(mail.fields.get("subject"))
    if original.get("x-hmxmroriginalrecipient") or ((staff or about) and original.pairs):
        return Fields()
    return None


def _complaint(feedback: Fields, original: Fields) -> Report:
    told = [name for key in ("original-rcpt-to", "removal-recipient") for name in feedback.all(key)]
    names = told or [original.get("x-hmxmroriginalrecipient") or original.get("to") or original.get("delivered-to")]
    mta = feedback.get("reporting-mta").rpartition(";")[2].strip()
    found = dict.fromkeys(address for name in names for address in ADDRESS.findall(name))
    told_of = tuple(Told(address, mta=mta) for address in found)
    return Report(Kind.COMPLAINT, _message_id(original, ""), told_of, feedback, original)


# -- recipients --------------------------------------------------------------------------------------------------------


def _reasoned(told: list[Told], text: str) -> list[Told]:
    """With what the notice says of a recipient, where the status fields tell neither in words nor by number why."""
    if not any(_bare(one) for one in told):
        return told
    said = {one.recipient.lower(): one.diagnostic for one in prose.read(text, frozenset())}
    return [replace(one, diagnostic=said.get(one.recipient.lower(), "")) if _bare(one) else one for one in told]


def _bare(one: Told) -> bool:
    return not one.diagnostic and (not one.status or one.status.endswith(".0.0"))


def _named(mail: Letter, text: str, original: Fields) -> list[Told]:
    """Who is meant, where no status fields say so: the header, the notice, or the only one the original was for."""
    said = _unique(prose.read(text, _others(mail, original)))
    listed = ADDRESS.findall(" ".join(mail.fields.all("x-failed-recipients")))
    if listed and (not said or any(name.lower() in text.lower() for name in listed)):
        by_name = {told.recipient.lower(): told for told in said}
        return _unique(by_name.get(name.lower(), Told(name)) for name in listed)
    if said:
        return said
    wanted = dict.fromkeys(ADDRESS.findall(original.get("x-original-to") or original.get("to")))
    return [Told(name) for name in wanted] if len(wanted) == 1 else []


def _others(mail: Letter, original: Fields) -> frozenset[str]:
    """Addresses that a notice names without meaning that they failed: who it is from and to, and who wrote."""
    fields = mail.fields
    names = [fields.get(key) for key in ("from", "reply-to", "to", "delivered-to")]
    names += [original.get(key) for key in ("from", "return-path", "reply-to", "sender")]
    return frozenset(address.lower() for name in names for address in ADDRESS.findall(name))


def _unique(told: Iterable[Told]) -> list[Told]:
    """One for each address: the one that says most."""
    found: dict[str, Told] = {}
    for one in told:
        known = found.get(one.recipient.lower())
        if known is None or not known.diagnostic or (not known.status and one.status):
            found[one.recipient.lower()] = one
    return list(found.values())


def _judged(mail: Letter, told: Sequence[Told], text: str, original: Fields) -> Iterator[Told]:
    """With a status where the diagnostic has one, and an action for each. What the original is called tells nothing."""
    subject = words.decode(mail.fields.get("subject"))
    if called := words.decode(original.get("subject")):
        subject, text = subject.replace(called, ""), text.replace(called, "")
    whole = (replace(one, status=one.status or prose.status_in(one.diagnostic)) for one in told)
    return prose.judged(whole, subject, text)
