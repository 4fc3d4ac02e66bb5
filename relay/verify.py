"""Verification: judge an account's upstream settings, then try them, up to the login. No mail is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.core import hosts
from relay.core.classify import classify
from relay.core.hosts import Network
from relay.core.model import Smtp, Tls
from relay.core.reply import Stage
from relay.net import smtp as upstream
from relay.settings import Settings

PATIENCE = 15.0  # seconds a step may take: a person is waiting
PLAIN_FIRST = ("settings", "resolve", "connect", "ehlo", "tls", "auth")
TLS_FIRST = ("settings", "resolve", "connect", "tls", "ehlo", "auth")
NAMES = {Stage.CONNECT: "connect", Stage.TLS: "tls", Stage.EHLO: "ehlo", Stage.AUTH: "auth"}


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


async def verify(smtp: Smtp, settings: Settings) -> list[Step]:
    """Each step in the order it is taken. Never raises for what the settings or the upstream do."""
    judged = _settings(smtp, settings)
    if judged.state is StepState.FAILED:
        return _until([judged], smtp)
    try:
        connection = await _connect(smtp, settings)
    except upstream.UpstreamError as error:
        return _until([judged, *_failed(smtp, error)], smtp)
    steps = [judged, *_passed(smtp, connection)]
    await connection.close()
    return steps


def faults(smtp: Smtp, allowed: Sequence[Network], *, sandbox: bool) -> Iterator[tuple[str, str]]:
    """What is certainly wrong with these settings, each with advice; found without asking anybody."""
    if not smtp.host:
        yield "there is no host", "Set the name of the provider's SMTP server."
    elif any(char.isspace() or char in "/@" for char in smtp.host):
        yield f"{smtp.host!r} is not a host name", "Set the server's name alone, as in smtp.example.com."
    elif not (sandbox and smtp.host == upstream.SANDBOX) and (reason := hosts.judge_literal(smtp.host, allowed)):
        yield f"{smtp.host} refused: {reason}", "The operator may allow its network with POSTFERRY_ALLOW_NETWORKS."
    if not 0 < smtp.port < 65536:
        yield f"there is no port {smtp.port}", "Use 587 (STARTTLS) or 465 (TLS from the start)."
    if smtp.user and not (smtp.password or smtp.access_token):
        yield "there is a user, but neither password nor access token", "Set the password, or connect with OAuth2."
    if not smtp.user and (smtp.password or smtp.access_token):
        yield "there is a password or token, but no user", "Set the user: mostly the mailbox's full address."
    if smtp.auth_method == "xoauth2" and not smtp.access_token:
        yield "xoauth2 wants an access token", "Connect the account with OAuth2, or leave the login method open."


def doubt(smtp: Smtp) -> str:
    """What is probably wrong: a port whose usual TLS is another. Worth a try all the same."""
    if smtp.port == 465 and smtp.tls is not Tls.IMPLICIT:
        return "Port 465 speaks TLS from the first byte: set secure to true, or use port 587."
    if smtp.port in (25, 587) and smtp.tls is Tls.IMPLICIT:
        return f"Port {smtp.port} starts in the clear: set secure to false (STARTTLS), or use port 465."
    return ""


def _settings(smtp: Smtp, settings: Settings) -> Step:
    found = list(faults(smtp, settings.allow_networks, sandbox=bool(settings.sandbox_port)))
    if not found:
        return Step("settings", StepState.OK, advice=doubt(smtp))
    return Step("settings", StepState.FAILED, "; ".join(fault for fault, _ in found), " ".join(tip for _, tip in found))


async def _connect(smtp: Smtp, settings: Settings) -> upstream.Connection:
    timeouts = (settings.connect_timeout, settings.command_timeout, settings.data_timeout)
    return await upstream.connect(
        smtp,
        hostname=settings.hostname,
        allowed=settings.allow_networks,
        sandbox_port=settings.sandbox_port,
        timeouts=upstream.Timeouts(*(min(seconds, PATIENCE) for seconds in timeouts)),
    )


def _order(smtp: Smtp) -> Sequence[str]:
    return TLS_FIRST if smtp.tls is Tls.IMPLICIT else PLAIN_FIRST


def _failed(smtp: Smtp, error: upstream.UpstreamError) -> Iterator[Step]:
    """The steps that went well before the one that did not, and that one."""
    failed = "resolve" if error.kind in ("dns", "forbidden") else NAMES[error.stage]
    for name in _order(smtp)[1:]:
        if name == failed:
            yield Step(name, StepState.FAILED, str(error.reply), classify(error.reply, error.stage).advice)
            return
        yield _tls(smtp, error.encrypted) if name == "tls" and error.stage is Stage.AUTH else Step(name, StepState.OK)


def _passed(smtp: Smtp, connection: upstream.Connection) -> Iterator[Step]:
    made = {
        "resolve": Step("resolve", StepState.OK, smtp.host),
        "connect": Step("connect", StepState.OK, f"port {smtp.port}"),
        "ehlo": Step("ehlo", StepState.OK, " ".join(sorted(connection.extensions)).upper()),
        "tls": _tls(smtp, connection.encrypted),
        "auth": _auth(smtp),
    }
    return (made[name] for name in _order(smtp)[1:])


def _tls(smtp: Smtp, encrypted: bool) -> Step:
    if encrypted:
        return Step("tls", StepState.OK, "certificate valid" if smtp.verify_certificate else "certificate not checked")
    detail = "switched off" if smtp.tls is Tls.NONE else "not offered"
    readable = "Mail and password travel readable." if smtp.user else "Mail travels readable."
    return Step("tls", StepState.SKIPPED, detail, "" if smtp.host == upstream.SANDBOX else readable)


def _auth(smtp: Smtp) -> Step:
    if smtp.user:
        return Step("auth", StepState.OK, f"logged in as {smtp.user}")
    return Step("auth", StepState.SKIPPED, "no user set")


def _until(steps: list[Step], smtp: Smtp) -> list[Step]:
    """With the steps that were not reached."""
    return steps + [Step(name, StepState.SKIPPED) for name in _order(smtp)[len(steps) :]]
