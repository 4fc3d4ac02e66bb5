"""What servers tell machines about recipients: RFC 3464 status fields, in whatever shape, and Amazon's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from relay.core.letter import Fields, Letter
from relay.core.prose import ADDRESS, Told

_NAMES = ("original-recipient", "final-recipient", "x-actual-recipient")
_PRESENT = re.compile(r"^[>\s]{0,8}(?:final|original|x-actual)-recipient\s?:", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(
    r"[>\s]{0,10}((?:final|original|x-actual)-recipient|(?:reporting|remote|received-from)-mta|diagnostic-code|action|status"
    r"|(?:last-attempt|arrival)-date|will-retry-until|final-log-id|x-[\w-]{1,40})\s{0,5}:(.*)",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_CODE = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
_GROUPS = re.compile(r"\n[ \t>]*\n")
_ACTIONS = {
    **{word: word for word in ("failed", "delayed", "delivered", "relayed", "expanded")},
    **dict.fromkeys(("failure", "fail", "error"), "failed"),
    "deliverable": "delivered",
}


def read(mail: Letter) -> Iterator[Told]:
    """The recipients whose status fields the mail has: in a part of the right type, else in any."""
    for block in _blocks(mail):
        yield from _recipients(block)


def amazon(mail: Letter) -> Iterator[Told]:
    """Amazon SES tells by JSON, bare or wrapped by SNS (docs.aws.amazon.com: SES notification contents)."""
    for part in mail.parts[:3]:
        told = _json(part.text)
        for one in _listed(told.get("bounce"), "bouncedRecipients"):
            if isinstance(one, dict) and ADDRESS.fullmatch(str(one.get("emailAddress"))):
                yield Told(
                    str(one["emailAddress"]),
                    _ACTIONS.get(str(one.get("action")), "failed"),
                    str(one.get("status") or ""),
                    str(one.get("diagnosticCode") or ""),
                    str(told["bounce"].get("reportingMTA") or ""),
                )
        for one in _listed(told.get("delivery"), "recipients"):
            if ADDRESS.fullmatch(str(one)):
                yield Told(str(one), "delivered", diagnostic=str(told["delivery"].get("smtpResponse") or ""))


def amazon_complaint(mail: Letter) -> tuple[Fields, Fields] | None:
    """The complaint that Amazon SES tells of by SNS: as a feedback report's fields, and the original's header."""
    for part in mail.parts[:3] if "@sns.amazonaws.com" in mail.fields.get("from").lower() else []:
        told = _json(part.text)
        people = _listed(told.get("complaint"), "complainedRecipients")
        names = [("original-rcpt-to", str(one.get("emailAddress"))) for one in people if isinstance(one, dict)]
        if names:
            kind = ("feedback-type", str(told["complaint"].get("complaintFeedbackType") or "abuse"))
            sent = told["mail"] if isinstance(told.get("mail"), dict) else {}
            common = sent["commonHeaders"] if isinstance(sent.get("commonHeaders"), dict) else {}
            return Fields((kind, *names)), Fields((("message-id", str(common.get("messageId") or "")),))
    return None


def _blocks(mail: Letter) -> Iterator[str]:
    """Texts with status fields. Those of an enclosed message are its own, unless there are no others."""
    for enclosed in (False, True):
        found = [part.text for part in mail.parts if "delivery-status" in part.kind and part.enclosed is enclosed]
        if any(_PRESENT.search(text) for text in found):
            yield from found
            return
    yield from [part.text for part in mail.parts if not part.enclosed and _PRESENT.search(part.text)][:1]


def _recipients(block: str) -> Iterator[Told]:
    """One for each group of fields that names a recipient (RFC 3464 2.3); the original name is the one we sent to."""
    reporter = ""
    for group in _GROUPS.split(block):
        fields = _fields(group)
        reporter = _last(fields.get("reporting-mta")) or reporter
        names = [found[0] for key in _NAMES if (found := ADDRESS.search(f"<{_name(fields.get(key))}>"))]
        if not names:
            continue
        status = _CODE.search(fields.get("status"))
        kind, typed, said = fields.get("diagnostic-code").partition(";")
        yield Told(
            names[0],
            _action(fields, status[0] if status else ""),
            status[0] if status else "",
            said.strip() or fields.get("diagnostic-code").strip(),
            _last(fields.get("remote-mta")) or reporter,
            kind.strip().lower() if typed else "",
        )


def _action(fields: Fields, status: str) -> str:
    """As told; else by the status (RFC 3463 2): a 2 is a success, and a 4 that is tried until some time a delay."""
    if told := _ACTIONS.get(fields.get("action").strip().lower().partition(" ")[0].rstrip(".;,")):
        return told
    late = status.startswith("4") and fields.get("will-retry-until")
    return "delivered" if status.startswith("2") else "delayed" if late else ""


def _fields(group: str) -> Fields:
    """The fields of a group: quoted, indented, or with a space before the colon."""
    found: list[tuple[str, str]] = []
    for line in group.split("\n"):
        if match := _FIELD.match(line):
            found.append((match[1].lower(), match[2].strip()))
        elif found and line[:1] in (" ", "\t") and line.strip():
            key, value = found[-1]
            found[-1] = (key, f"{value} {line.strip()}"[:4096])
    return Fields(tuple(found))


def _name(value: str) -> str:
    """An address behind its type (`rfc822;`), or without one; an international one may be escaped (RFC 6533 3)."""
    name = _last(value) if "@" in _last(value) else value
    return _ESCAPED.sub(lambda found: _character(int(found[1], 16)), name)


def _character(code: int) -> str:
    return chr(code) if code < 0xD800 or 0xDFFF < code <= 0x10FFFF else ""


def _last(value: str) -> str:
    return value.rpartition(";")[2].strip()


def _json(text: str) -> dict[str, Any]:
    at = text.find("{")
    if at < 0 or not ("otificationType" in text or "eventType" in text):
        return {}
    try:
        told, _ = json.JSONDecoder(strict=False).raw_decode(text, at)
        if isinstance(told, dict) and isinstance(told.get("Message"), str):
            told = json.loads(told["Message"], strict=False)
        json.dumps(told, ensure_ascii=False).encode()  # half a character is told by nobody we know
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _listed(told: Any, key: str) -> list[Any]:
    found = told.get(key) if isinstance(told, dict) else None
    return found if isinstance(found, list) else []
