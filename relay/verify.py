"""Verification: judge an account's servers, then try them, up to login and folders. No mail is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from relay.core import bearer
from relay.core.classify import classify
from relay.core.folders import Folder, Use, special
from relay.core.hints import advise
from relay.core.masking import masked
from relay.core.reply import Stage
from relay.core.tenant import Account, Imap, Mailgun, Smtp, Tls
from relay.core.verification import SANDBOX, Result, imap_faults, smtp_faults
from relay.mailgundomain import misjudged, verify_mailgun
from relay.net import imap as mailboxes
from relay.net import smtp as upstreams
from relay.settings import Settings
from relay.trail import PATIENCE, WHOLE, Failure, Telling, Trail, forbidden, late
from relay.trail import code as code_of

BRIEF = 3.0  # seconds the goodbye may take
SMTP_STEPS = ("settings", "resolve", "connect", "ehlo", "tls", "auth")
SMTP_TLS_FIRST = ("settings", "resolve", "connect", "tls", "ehlo", "auth")
IMAP_STEPS = ("settings", "resolve", "connect", "greeting", "tls", "login", "folders")
IMAP_TLS_FIRST = ("settings", "resolve", "connect", "tls", "greeting", "login", "folders")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of each server; None where there is none to look at. `smtp` is of the upstream, Mailgun too."""

    smtp: Result | None
    imap: Result | None

    @property
    def success(self) -> bool:
        return all(result is None or result.success for result in (self.smtp, self.imap))


async def verify(upstream: Smtp | Mailgun | None, imap: Imap | None, settings: Settings) -> Report:
    """Both servers at once. Never raises for what settings or servers do; takes half a minute at most."""
    mailbox = verify_imap(imap, settings) if imap else _nothing()
    return Report(*await asyncio.gather(_upstream(upstream, settings), mailbox))


async def _upstream(upstream: Smtp | Mailgun | None, settings: Settings) -> Result | None:
    match upstream:
        case Smtp():
            return await verify_smtp(upstream, settings)
        case Mailgun():
            return await verify_mailgun(upstream, settings)
        case None:
            return None


def unopened(account: Account, why: str) -> Report:
    """Of an account whose secrets cannot be opened, nothing can be tried."""
    fault = [(why, "Give its secrets again, or bring back the key that they are sealed with (POSTFERRY_SECRET_KEYS).")]
    smtp = _trail(account.smtp.tls, SMTP_STEPS, SMTP_TLS_FIRST).misjudged(fault) if account.smtp else None
    imap = _trail(account.imap.tls, IMAP_STEPS, IMAP_TLS_FIRST).misjudged(fault) if account.imap else None
    return Report(misjudged(account.mailgun, fault) if account.mailgun else smtp, imap)


def untokened(account: Account, code: str, why: str, advice: str) -> Report:
    """Of servers that are logged in to with an access token, where there is none to be had."""
    smtp, imap = account.smtp, account.imap
    at, late = Failure("auth", code, why, advice), Failure("login", code, why, advice)
    wanted = account.mailgun is None and smtp is not None and bearer.bare(smtp)
    return Report(
        _trail(smtp.tls, SMTP_STEPS, SMTP_TLS_FIRST).ended(at, Telling()) if smtp is not None and wanted else None,
        _trail(imap.tls, IMAP_STEPS, IMAP_TLS_FIRST).ended(late, Telling())
        if imap is not None and bearer.bare(imap)
        else None,
    )


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
        failure = late(smtp.host, trail)
    except upstreams.UpstreamError as error:
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
        failure = late(imap.host, trail)
    except mailboxes.MailboxError as error:
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


async def _connect(smtp: Smtp, settings: Settings, trail: Trail) -> upstreams.Connection:
    timeouts = (settings.connect_timeout, settings.command_timeout, settings.data_timeout)
    return await upstreams.connect(
        smtp,
        hostname=settings.hostname,
        allowed=settings.allow_networks,
        sandbox_port=settings.sandbox_port,
        timeouts=upstreams.Timeouts(*(min(seconds, PATIENCE) for seconds in timeouts)),
        passed=trail.passed,
    )


def _refused_by(smtp: Smtp, error: upstreams.UpstreamError, trail: Trail) -> Failure:
    if error.kind == "forbidden":
        return forbidden(smtp.host)
    theirs = error.kind == "refused"
    text = masked(str(error.reply) if theirs else error.reply.text, (smtp.password, smtp.access_token))
    step = {Stage.TLS: "tls", Stage.AUTH: "auth"}.get(error.stage) or trail.next()
    advice = advise(step, smtp.host, text) or classify(error.reply, error.stage).advice
    code = "EAUTH" if theirs and step == "auth" else code_of(error.kind, text)
    return Failure(step, code, text, advice, text if theirs else "")


# -- IMAP ------------------------------------------------------------------------------------------------------------


async def _folders(imap: Imap, settings: Settings, trail: Trail) -> list[Folder]:
    seconds = min(settings.connect_timeout, settings.command_timeout, PATIENCE)
    connection = await mailboxes.connect(imap, allowed=settings.allow_networks, seconds=seconds, passed=trail.passed)
    try:
        return await connection.folders()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(BRIEF):
                await connection.close()


def _barred(imap: Imap, error: mailboxes.MailboxError) -> Failure:
    if error.kind == "forbidden":
        return forbidden(imap.host)
    code = error.code or (
        "EAUTH" if error.kind == "refused" and error.step == "login" else code_of(error.kind, str(error))
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
