"""What a verification finds: the steps it took, how each went, and what is certainly wrong without trying."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.core import hosts, mailgunsettings
from relay.core.folders import Folder, special
from relay.core.networks import Network
from relay.core.tenant import Imap, Mailgun, Smtp, Tls

SANDBOX = "sandbox"
LONGEST = 1000  # characters of what a server says
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
ASSIGNED: Mapping[int, str] = {
    **dict.fromkeys((25, 465, 587), "SMTP"),
    **dict.fromkeys((143, 993), "IMAP"),
    **dict.fromkeys((110, 995), "POP3"),
    **dict.fromkeys((80, 443), "HTTP"),
}
"""What speaks on a port, by IANA. A port that is not here may speak anything."""
FROM_THE_START = frozenset({465, 993})  # TLS from the first byte (RFC 8314)
IN_THE_CLEAR = frozenset({25, 587, 143})  # ... and where it cannot be
PORTS = {"SMTP": "587 (STARTTLS) or 465 (TLS from the start)", "IMAP": "993 (TLS from the start) or 143 (STARTTLS)"}


class StepState(StrEnum):
    """How a step went. SKIPPED: not asked for, or an earlier one failed."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification; `advice` is for the person who made the settings."""

    name: str
    state: StepState
    detail: str = ""
    advice: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """How one server fared. `code`: a word for programs, where a step failed; `said`: the server's own words then."""

    steps: tuple[Step, ...]
    code: str = ""
    said: str = ""
    folders: tuple[Folder, ...] | None = None  # of a mailbox, once they were listed
    provider: str = ""  # mailgun, where the upstream is no SMTP server

    @property
    def failed(self) -> Step | None:
        return next((step for step in self.steps if step.state is StepState.FAILED), None)

    @property
    def success(self) -> bool:
        return self.failed is None

    def told(self) -> dict[str, Any]:
        """As it is stored, and as the API tells it: EmailEngine's fields, then ours."""
        told: dict[str, Any] = {"success": self.success}
        told |= {"provider": self.provider} if self.provider else {}
        if failed := self.failed:
            told |= {"error": _text(failed.detail), "code": _text(self.code)}
            told |= {"responseText": _text(self.said)} if self.said else {}
        told["steps"] = [_told(step) for step in self.steps]
        if self.folders is not None:
            told["folders"] = {str(use): found.folder.path for use, found in special(self.folders).items()}
        return told


def _told(step: Step) -> dict[str, Any]:
    told: dict[str, Any] = {"step": step.name, "state": str(step.state), "seconds": round(step.seconds, 3)}
    return told | {key: _text(value) for key, value in (("detail", step.detail), ("advice", step.advice)) if value}


def _text(said: str) -> str:
    """What a server said, as text that can be stored and shown: one line, not too long, no halves of characters."""
    return UNPRINTABLE.sub(" ", said).strip()[:LONGEST]


Fault = tuple[str, str]
"""What is wrong, and advice."""


def smtp_faults(smtp: Smtp, allowed: Sequence[Network], *, sandbox: bool) -> Iterator[Fault]:
    """What is certainly wrong with these settings; found without asking anybody."""
    if not (sandbox and smtp.host == SANDBOX):
        yield from _host(smtp.host, allowed, "SMTP")
    yield from _port(smtp.port, smtp.tls, "SMTP")
    if smtp.user and not (smtp.password or smtp.access_token):
        yield "there is a user, but neither password nor access token", "Set the password, or connect with OAuth2."
    if not smtp.user and (smtp.password or smtp.access_token):
        yield "there is a password or token, but no user", "Set the user: mostly the mailbox's full address."
    if smtp.auth_method in ("xoauth2", "oauthbearer") and not smtp.access_token:
        yield (
            f"{smtp.auth_method} wants an access token",
            "Connect the account with OAuth2, or leave the login method open.",
        )


def mailgun_faults(mailgun: Mailgun, allowed: Sequence[Network]) -> Iterator[Fault]:
    """The same of a Mailgun domain."""
    if not mailgun.api_key:
        yield "there is no API key", "Set mailgun.apiKey: a sending key of the domain is enough."
    if reason := mailgunsettings.judge_url(mailgun.base_url, allowed):
        yield f"baseUrl {reason}", "Leave mailgun.baseUrl out for the US, or set https://api.eu.mailgun.net for the EU."


def imap_faults(imap: Imap, allowed: Sequence[Network]) -> Iterator[Fault]:
    """The same of a mailbox, which nobody enters without a login."""
    yield from _host(imap.host, allowed, "IMAP")
    yield from _port(imap.port, imap.tls, "IMAP")
    if not imap.user:
        yield "there is no user", "Set the user: mostly the mailbox's full address."
    if not (imap.password or imap.access_token):
        yield "there is neither password nor access token", "Set the password, or connect with OAuth2."


def _host(host: str, allowed: Sequence[Network], protocol: str) -> Iterator[Fault]:
    if not host:
        yield "there is no host", f"Set the name of the provider's {protocol} server."
    elif any(char.isspace() or char in "/@" for char in host):
        yield f"{host!r} is not a host name", f"Set the server's name alone, as in {protocol.lower()}.example.com."
    elif reason := hosts.judge_literal(host, allowed):
        yield f"{host} refused: {reason}", "The operator may allow its network with POSTFERRY_ALLOW_NETWORKS."


def _port(port: int, tls: Tls, protocol: str) -> Iterator[Fault]:
    if not 0 < port < 65536:
        yield f"there is no port {port}", f"Use {PORTS[protocol]}."
    elif (other := ASSIGNED.get(port, protocol)) != protocol:
        yield f"port {port} is for {other}, not for {protocol}", f"Use {PORTS[protocol]}."
    elif port in FROM_THE_START and tls is not Tls.IMPLICIT:
        start = next(one for one in IN_THE_CLEAR if ASSIGNED[one] == protocol and one != 25)
        yield f"port {port} speaks TLS from the first byte", f"Set secure to true, or use port {start}."
    elif port in IN_THE_CLEAR and tls is Tls.IMPLICIT:
        start = next(one for one in FROM_THE_START if ASSIGNED[one] == protocol)
        yield f"port {port} starts in the clear", f"Set secure to false (STARTTLS), or use port {start}."
