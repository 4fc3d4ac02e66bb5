"""Mailgun's API in our words: what is posted to send a mail, and what each of its answers means as an SMTP reply.

https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages (messages.mime), and
https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses for the statuses. What is met beside them:

- Of several refusals the status differs from day to day (400, 403, 420, 429), the words do not: they go first.
- A path that Mailgun does not know is answered 200 "Mailgun Magnificent API", or 404 without JSON.
- A key that sends for one domain alone ("sending key") is refused by every other call as if it were wrong.
- MAIL FROM is always Mailgun's own (bounce+...@the domain): no parameter names another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from relay.core.address import ascii_domain
from relay.core.reply import MOST_TEXT, UNPRINTABLE, Reply, Stage

SHORTEST, LONGEST = 1.0, 86_400.0  # seconds that Mailgun may have us wait
AGAIN = 60.0  # ... where it does not say how long
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Meaning:
    """An answer of Mailgun's, known by its words or its status. `said` puts its words into ours."""

    sample: str
    pattern: str
    stage: Stage
    code: int
    enhanced: str
    said: str = "{}"
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.IGNORECASE))


BY_WORDS: tuple[Meaning, ...] = (
    # The first that fits counts. What each has as its consequence is in core/rules.py.
    Meaning(
        "Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are for test purposes only. Please add"
        " your own domain or add the address to your authorized recipients.",
        r"sandbox subdomains are for test",
        *(Stage.RCPT, 550, "5.7.1"),
    ),
    Meaning(
        "Domain mg.example.com is not allowed to send: recipient limit exceeded, try again after Mon, 25 Aug 2025"
        " 07:00:31 UTC",
        r"limit exceeded|sending too fast|on probation|domains are limited to",
        *(Stage.MAIL, 452, "4.7.0"),
    ),
    Meaning(
        "Domain mg.example.com is not allowed to send: Account disabled",
        r"is not allowed to send|activate your mailgun account|unverified and requires",
        *(Stage.AUTH, 550, "5.7.1", "Mailgun does not let this domain send: {}"),
    ),
    Meaning(
        "Domain not found: mg.example.com",
        r"domain not found|unknown domain",
        *(Stage.AUTH, 550, "5.7.1", "Mailgun has no such domain here: {}"),
    ),
    Meaning(
        "'to' parameter is not a valid address. please check documentation",
        r"'?\bto'? parameter is not a valid",
        *(Stage.RCPT, 501, "5.1.3"),
    ),
    Meaning(
        "'from' parameter is not a valid address. please check documentation",
        r"'?\bfrom'? parameter is (not a valid|missing)",
        *(Stage.MAIL, 553, "5.1.7"),
    ),
)
KEY = (Stage.AUTH, 535, "5.7.8", "Mailgun refuses the API key: {}")
STRANGE = (Stage.MAIL, 451, "4.5.0", "this is no answer of Mailgun's: {}")
LATER = (Stage.MAIL, 451, "4.7.0", "{}")
BY_STATUS: Mapping[int, tuple[Stage, int, str, str]] = {
    400: (Stage.DOT, 554, "", "{}"),
    401: KEY,
    402: (Stage.AUTH, 550, "5.7.1", "Mailgun does not let this domain send: {}"),
    403: KEY,
    404: (Stage.AUTH, 550, "5.7.1", "Mailgun has no such domain here: {}"),
    408: (Stage.DOT, 451, "4.3.0", "{}"),
    413: (Stage.DOT, 552, "5.3.4", "message size is over Mailgun's limit: {}"),
    420: LATER,
    422: (Stage.DOT, 554, "", "{}"),
    429: LATER,
}
"""What an answer means whose words nobody knows. 5xx is temporary; any other is not Mailgun's."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of HTTP. `retry_after` as its header has it; `whole`: the body is all there, within our bounds."""

    status: int
    body: bytes
    retry_after: str = ""
    whole: bool = True

    @property
    def object(self) -> Mapping[str, Any]:
        """The body's JSON object; empty where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def words(self) -> str:
        """Its message, else the beginning of whatever it has, on one line."""
        told = next((self.object[key] for key in ("message", "Error") if isinstance(self.object.get(key), str)), "")
        text = told or self.body[:200].decode("utf-8", "replace")
        return _line(text) or "no words"


@dataclass(frozen=True, slots=True)
class Standing:
    """What Mailgun says of a domain. `state`: active, unverified, disabled; "" where the key may not see it."""

    state: str
    why: str = ""


# -- what is sent ------------------------------------------------------------------------------------------------------


def path(domain: str) -> str:
    return f"/v3/{quote(domain, safe='')}/messages.mime"


def domain_path(domain: str) -> str:
    """https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/domains/get-v4-domains--name-"""
    return f"/v4/domains/{quote(domain, safe='')}"


def recipient(address: str) -> str:
    """The address as Mailgun takes it: its domain in ASCII. Raises ValueError for one that would be more than one."""
    if UNSPEAKABLE.search(address):
        raise ValueError("the address has characters that no request can carry")
    try:
        return ascii_domain(address)
    except UnicodeError:
        return address


def form(address: str, boundary: str, *, test: bool) -> tuple[bytes, bytes]:
    """What stands before the mail in the multipart body, and what behind it; the mail's own bytes go between them.

    Mailgun writes to `to` alone, whatever the mail's headers say. We track opens ourselves.
    """
    fields = {"to": address, "o:tracking": "no", **({"o:testmode": "yes"} if test else {})}
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in
             fields.items()]  # fmt: skip
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="message"; filename="message.mime"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()


# -- what is answered --------------------------------------------------------------------------------------------------


def took(said: Said) -> str | None:
    """Mailgun's name of the mail that it took: {"id": "<name@domain>", "message": "Queued. Thank you."}."""
    name = said.object.get("id")
    return _line(name).strip("<> ") if 200 <= said.status < 300 and isinstance(name, str) and name else None


def read(said: Said, now: datetime) -> tuple[Stage, Reply]:
    """The answer to a posted mail as a reply of SMTP, at the stage that has the same consequences."""
    if (name := took(said)) is not None:
        return Stage.DOT, Reply(250, "2.0.0", f"{said.words} id={name}"[:MOST_TEXT])
    meaning = _meaning(said)
    stage, code, enhanced, ours = meaning
    text = ours.format(said.words if said.status >= 400 else f"{said.status} {said.words}")[: MOST_TEXT - 40]
    wait = _wait(said, now) or (AGAIN if meaning is LATER else None)
    if wait is not None and code < 500:
        text += f"; retry after {wait:.0f} s"
    return stage, Reply(code, enhanced, text)


def unclear(said: Said) -> bool:
    """Whether the mail may have been taken although nobody says so."""
    return said.status == 504 or (200 <= said.status < 300 and not said.whole)


def standing(said: Said) -> Standing | None:
    """What the answer about a domain says; None where it does not tell of one."""
    domain = said.object.get("domain")
    if said.status != 200 or not isinstance(domain, dict):
        return None
    disabled = domain.get("disabled")
    why = _line(str(disabled.get("reason") or disabled.get("note") or "")) if isinstance(disabled, dict) else ""
    state = "disabled" if domain.get("is_disabled") is True else str(domain.get("state", ""))
    return Standing(state[:50].lower(), why)


def _meaning(said: Said) -> tuple[Stage, int, str, str]:
    if said.status >= 400:
        for known in BY_WORDS:
            if known.regex.search(said.words):
                return known.stage, known.code, known.enhanced, known.said
    if said.status == 404 and not said.object:
        return STRANGE
    if said.status >= 500:
        return Stage.DOT, 451, "4.3.0", "{}"
    return BY_STATUS.get(said.status, STRANGE)


_SECONDS = re.compile(r"enabled in (\d{1,9}) seconds", re.IGNORECASE)
_MOMENT = re.compile(
    r"(?:try again after|disabled until) (\w{3}, \d\d? \w{3} \d{4} \d\d:\d\d:\d\d \w{3,4})", re.IGNORECASE
)


def _wait(said: Said, now: datetime) -> float | None:
    """Seconds that it asks us to wait: in its header (RFC 9110 10.2.3), or in its words."""
    header = said.retry_after.strip()
    if header.isascii() and header.isdigit():
        return _bounded(float(header[:9]))
    if found := _SECONDS.search(said.words):
        return _bounded(float(found[1]))
    moment = _MOMENT.search(said.words)
    until = _moment(header) or (_moment(moment[1]) if moment else None)
    return _bounded((until - now).total_seconds()) if until else None


def _moment(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _bounded(seconds: float) -> float:
    return min(max(seconds, SHORTEST), LONGEST)


def _line(text: str) -> str:
    return UNPRINTABLE.sub(" ", text.encode("utf-8", "replace").decode()).strip()[:MOST_TEXT]
