"""Verification of a Mailgun domain: judged, reached, and asked whether its key and it may send. No mail is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from relay.core import mailgun as api
from relay.core.classify import classify
from relay.core.hints import advise
from relay.core.mailgun import Said
from relay.core.masking import masked
from relay.core.reply import Stage
from relay.core.tenant import Mailgun
from relay.core.verification import Fault, Result, mailgun_faults
from relay.net import mailgun as upstreams
from relay.net.exchange import Unanswered, Unsent
from relay.net.smtp import UpstreamError
from relay.net.transaction import Timeouts
from relay.settings import Settings
from relay.trail import PATIENCE, WHOLE, Failure, Telling, Trail, code, forbidden, late

STEPS = ("settings", "resolve", "connect", "tls", "auth")
WORDS = {"mailgun_key": "EAUTH", "mailgun_domain": "EDOMAIN", "mailgun_disabled": "EDOMAIN"}
STATES = {
    "unverified": "Publish the DNS records that Mailgun's dashboard lists for this domain, and let it verify them.",
    "disabled": "Mailgun's dashboard says why: mend it there, or ask its support.",
}
"""What to do about a domain that may not send."""
BLIND = "The key may send, and is not told more: whether the domain is verified, Mailgun's dashboard says."


async def verify_mailgun(mailgun: Mailgun, settings: Settings) -> Result:
    """Each step in the order it is taken."""
    trail = _trail(mailgun)
    if faults := list(mailgun_faults(mailgun, settings.allow_networks)):
        return _named(trail.misjudged(faults))
    trail.passed("settings")
    try:
        async with asyncio.timeout(WHOLE):
            failure, detail, remark = await _try(mailgun, settings, trail)
    except TimeoutError:
        failure, detail, remark = late(mailgun.host, trail), "", ""
    if failure is None:
        trail.passed("auth")
    details = {"resolve": mailgun.host, "connect": f"port {mailgun.port}", "tls": "certificate valid", "auth": detail}
    clear = ("switched off", "Mail and key travel readable.")
    return _named(trail.ended(failure, Telling(details, {"auth": remark}, {"tls": clear})))


def misjudged(mailgun: Mailgun, faults: Sequence[Fault]) -> Result:
    """Of settings that nothing can be tried with."""
    return _named(_trail(mailgun).misjudged(faults))


Found = tuple[Failure | None, str, str]
"""What failed; else detail and remark of the last step."""


async def _try(mailgun: Mailgun, settings: Settings, trail: Trail) -> Found:
    seconds = (settings.connect_timeout, settings.command_timeout, settings.data_timeout)
    timeouts = Timeouts(*(min(one, PATIENCE) for one in seconds))
    try:
        connection = await upstreams.connect(
            mailgun, allowed=settings.allow_networks, timeouts=timeouts, passed=trail.passed
        )
        try:
            found = _judged(mailgun, await connection.domain())
        finally:
            await connection.close()
        if found is not None:
            return found
        connection = await upstreams.connect(mailgun, allowed=settings.allow_networks, timeouts=timeouts)
        try:
            return _knocked(mailgun, await connection.knock())
        finally:
            await connection.close()
    except UpstreamError as error:
        return _unreached(mailgun, error, trail), "", ""
    except (Unsent, Unanswered) as fault:
        text = str(fault)
        return Failure("auth", code("lost", text), text, advise("connect", mailgun.host, text)), "", ""


def _judged(mailgun: Mailgun, said: Said) -> Found | None:
    """By what Mailgun says of the domain; None where it does not say it to this key."""
    standing = api.standing(said)
    if standing is None:
        return None if said.status in (401, 403) else (_refused(mailgun, said), "", "")
    if standing.state not in STATES:
        return None, f"the domain {mailgun.domain} is {standing.state or 'there'}", ""
    text = f"the domain {mailgun.domain} is {standing.state}" + (f": {standing.why}" if standing.why else "")
    return Failure("auth", "EDOMAIN", text, STATES[standing.state], standing.why), "", ""


def _knocked(mailgun: Mailgun, said: Said) -> Found:
    """By what it says to a mail without anything: that something is missing, where the key is good."""
    stage, _ = api.read(said, datetime.now(UTC))
    if said.status == 400 and stage is not Stage.AUTH:
        return None, f"the key may send for {mailgun.domain}", BLIND
    return _refused(mailgun, said), "", ""


def _refused(mailgun: Mailgun, said: Said) -> Failure:
    stage, reply = api.read(said, datetime.now(UTC))
    verdict = classify(reply, stage)
    text = masked(reply.text, (mailgun.api_key,))
    return Failure(
        "auth", WORDS.get(verdict.category, "EPROTOCOL"), text, verdict.advice, masked(said.words, (mailgun.api_key,))
    )


def _unreached(mailgun: Mailgun, error: UpstreamError, trail: Trail) -> Failure:
    if error.kind == "forbidden":
        return forbidden(mailgun.host)
    step = "tls" if error.stage is Stage.TLS else trail.next()
    text = error.reply.text
    advice = advise(step, mailgun.host, text) or classify(error.reply, error.stage).advice
    return Failure(step, code(error.kind, text), text, advice)


def _trail(mailgun: Mailgun) -> Trail:
    return Trail(STEPS, time.monotonic, never=() if mailgun.guarded else ("tls",))


def _named(result: Result) -> Result:
    return replace(result, provider="mailgun")
