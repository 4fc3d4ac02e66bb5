"""Verification: judge an account's servers, then try them, up to login and folders. No mail is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.core.classify import classify
from relay.core.folders import Folder, Use, special
from relay.core.hints import advise
from relay.core.masking import masked
from relay.core.model import Account, Imap, Smtp, Tls
from relay.core.reply import Stage
from relay.core.verification import SANDBOX, Result, imap_faults, smtp_faults
from relay.net import imap as mailbox
from relay.net import smtp as upstream
from relay.settings import Settings
from relay.trail import Failure, Telling, Trail

PATIENCE = 10.0  # seconds a step may take: a person is waiting
WHOLE = 25.0  # ... and all of them
BRIEF = 3.0  # ... and the goodbye
SMTP_STEPS = ("settings", "resolve", "connect", "ehlo", "tls", "auth")
SMTP_TLS_FIRST = ("settings", "resolve", "connect", "tls", "ehlo", "auth")
IMAP_STEPS = ("settings", "resolve", "connect", "greeting", "tls", "login", "folders")
IMAP_TLS_FIRST = ("settings", "resolve", "connect", "tls", "greeting", "login", "folders")
CODES = {
    "forbidden": "EFORBIDDEN",
    "dns": "EDNS",
    "unreachable": "ECONNECTION",
    "lost": "ECONNECTION",
    "tls": "ETLS",
    "certificate": "ETLS",
    "protocol": "EPROTOCOL",
    "refused": "EPROTOCOL",
}
"""What went wrong, for programs: the words of the mail library that EmailEngine hands on, and one of ours."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of each server; None where there is none to look at."""

    smtp: Result | None
    imap: Result | None

    @property
    def success(self) -> bool:
        return all(result is None or result.success for result in (self.smtp, self.imap))


async def verify(smtp: Smtp | None, imap: Imap | None, settings: Settings) -> Report:
    """Both servers at once. Never raises for what settings or servers do; takes half a minute at most."""
    found = await asyncio.gather(
        verify_smtp(smtp, settings) if smtp else _nothing(), verify_imap(imap, settings) if imap else _nothing()
    )
    return Report(*found)


def unopened(account: Account, why: str) -> Report:
    """Of an account whose secrets cannot be opened, nothing can be tried."""
    fault = [(why, "Give its secrets again, or bring back the key that they are sealed with (POSTFERRY_SECRET_KEYS).")]
    smtp = _trail(account.smtp.tls, SMTP_STEPS, SMTP_TLS_FIRST).misjudged(fault) if account.smtp else None
    imap = _trail(account.imap.tls, IMAP_STEPS, IMAP_TLS_FIRST).misjudged(fault) if account.imap else None
    return Report(smtp, imap)


async def verify_smtp(smtp: Smtp, settings: Settings) -> Result:
    """The account's upstream, each step in the order it is taken."""
    trail = _trail(smtp.tls, SMTP_STEPS, SMTP_TLS_FIRST)
    if faults := list(smtp_faults(smtp, settings.allow_networks, sandbox=bool(settings.sandbox_port))):
        return trail.misjudged(faults)
    trail.passed("settings")
    failure, extensions = None, ""
    try:
        async with asyncio.timeout(WHOLE):
            connection = await _connect(smtp, settings, trail)
        extensions = " ".join(sorted(connection.extensions)).upper()
        await connection.close()
    except TimeoutError:
        failure = _late(smtp, trail)
    except upstream.UpstreamError as error:
        failure = _refused_by(smtp, error, trail)
    details = _details(smtp) | {"ehlo": extensions, "auth": f"logged in as {smtp.user}"}
    untaken = {"tls": _clear(smtp), "auth": ("no user set", "")}
    return trail.ended(failure, Telling(details, passed_over=untaken))


async def verify_imap(imap: Imap, settings: Settings) -> Result:
    """The account's mailbox, each step in the order it is taken."""
    trail = _trail(imap.tls, IMAP_STEPS, IMAP_TLS_FIRST)
    if faults := list(imap_faults(imap, settings.allow_networks)):
        return trail.misjudged(faults)
    trail.passed("settings")
    failure, folders = None, None
    try:
        async with asyncio.timeout(WHOLE):
            folders = await _folders(imap, settings, trail)
        failure = _no_such_folder(imap, folders)
    except TimeoutError:
        failure = _late(imap, trail)
    except mailbox.MailboxError as error:
        failure = _barred(imap, error)
    if failure is None:
        trail.passed("folders")
    details = _details(imap) | {"login": f"logged in as {imap.user}", "folders": _named(folders or ())}
    remarks = {"folders": _unknown(imap, folders or ())}
    return trail.ended(failure, Telling(details, remarks, {"tls": _clear(imap)}), folders)


async def _nothing() -> None:
    return None


def _trail(tls: Tls, usual: Sequence[str], tls_first: Sequence[str]) -> Trail:
    names = tls_first if tls is Tls.IMPLICIT else usual
    return Trail(names, time.monotonic, never=("tls",) if tls is Tls.NONE else ())


# -- SMTP ------------------------------------------------------------------------------------------------------------


async def _connect(smtp: Smtp, settings: Settings, trail: Trail) -> upstream.Connection:
    timeouts = (settings.connect_timeout, settings.command_timeout, settings.data_timeout)
    return await upstream.connect(
        smtp,
        hostname=settings.hostname,
        allowed=settings.allow_networks,
        sandbox_port=settings.sandbox_port,
        timeouts=upstream.Timeouts(*(min(seconds, PATIENCE) for seconds in timeouts)),
        passed=trail.passed,
    )


def _refused_by(smtp: Smtp, error: upstream.UpstreamError, trail: Trail) -> Failure:
    if error.kind == "forbidden":
        return _forbidden(smtp)
    theirs = error.kind == "refused"
    text = masked(str(error.reply) if theirs else error.reply.text, (smtp.password, smtp.access_token))
    step = {Stage.TLS: "tls", Stage.AUTH: "auth"}.get(error.stage) or trail.next()
    advice = advise(step, smtp.host, text) or classify(error.reply, error.stage).advice
    code = "EAUTH" if theirs and step == "auth" else _code(error.kind, text)
    return Failure(step, code, text, advice, text if theirs else "")


# -- IMAP ------------------------------------------------------------------------------------------------------------


async def _folders(imap: Imap, settings: Settings, trail: Trail) -> list[Folder]:
    seconds = min(settings.connect_timeout, settings.command_timeout, PATIENCE)
    connection = await mailbox.connect(imap, allowed=settings.allow_networks, seconds=seconds, passed=trail.passed)
    try:
        return await connection.folders()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(BRIEF):
                await connection.close()


def _barred(imap: Imap, error: mailbox.MailboxError) -> Failure:
    if error.kind == "forbidden":
        return _forbidden(imap)
    code = error.code or (
        "EAUTH" if error.kind == "refused" and error.step == "login" else _code(error.kind, str(error))
    )
    return Failure(error.step, code, str(error), advise(error.step, imap.host, str(error)), error.said)


def _no_such_folder(imap: Imap, folders: Sequence[Folder]) -> Failure | None:
    """The account names a folder for sent mail that is not there."""
    if not imap.sent_path or any(folder.path == imap.sent_path and folder.selectable for folder in folders):
        return None
    sent = special(folders).get(Use.SENT)
    advice = (
        f"Set imap.sentMailPath to {sent.folder.path!r}." if sent else "Set imap.sentMailPath to one that there is."
    )
    return Failure("folders", "NONEXISTENT", f"there is no folder {imap.sent_path!r}", advice)


def _named(folders: Sequence[Folder]) -> str:
    found = special(folders)
    return ", ".join(f"{use}: {found[use].folder.path}" for use in Use if use in found)


def _unknown(imap: Imap, folders: Sequence[Folder]) -> str:
    if imap.sent_path or Use.SENT in special(folders):
        return ""
    return "No folder for sent mail was found: name it in imap.sentMailPath."


# -- Both ------------------------------------------------------------------------------------------------------------


def _details(server: Smtp | Imap) -> dict[str, str]:
    certificate = "certificate valid" if server.verify_certificate else "certificate not checked"
    return {"resolve": server.host, "connect": f"port {server.port}", "tls": certificate}


def _clear(server: Smtp | Imap) -> tuple[str, str]:
    """Detail and advice where there is no TLS."""
    detail = "switched off" if server.tls is Tls.NONE else "not offered"
    readable = "Mail and password travel readable." if server.user else "Mail travels readable."
    return detail, "" if server.host == SANDBOX else readable


def _forbidden(server: Smtp | Imap) -> Failure:
    """Nothing is said of the address: whoever asks must not learn our network from it."""
    text = f"{server.host} may not be used as a host here"
    return Failure("resolve", CODES["forbidden"], text, advise("resolve", server.host, text))


def _late(server: Smtp | Imap, trail: Trail) -> Failure:
    step, text = trail.next(), f"{server.host} took too long: all steps together have {WHOLE:g} seconds"
    return Failure(step, "ETIMEDOUT", text, advise(step, server.host, text))


def _code(kind: str, text: str) -> str:
    late = kind in ("lost", "unreachable", "dns") and ("in time" in text or "too long" in text)
    return "ETIMEDOUT" if late else CODES[kind]
