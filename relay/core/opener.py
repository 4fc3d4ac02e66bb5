"""Who fetched a pixel: a person, a webmail for one, a machine ahead of anybody, a gateway, or the sender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from relay.core.model import Opener
from relay.core.networks import Address, Network, plain, within
from relay.core.openers import FLOOD, RULES, Rule
from relay.core.readers import CLIENTS

LONGEST_AGENT = 512  # characters that are looked at: those of a reader are told within them


@dataclass(frozen=True, slots=True)
class Look:
    """One fetch of a pixel, as far as it is known."""

    agent: str
    address: Address | None
    method: str = "GET"
    since_sent: float | None = None  # seconds since upstream took the mail; None: not known to be sent
    earlier: int = 0  # fetches of this pixel before
    burst: int = 0  # of those: in the last 10 seconds
    own: Sequence[Network] = ()  # the sender's own networks (Account.own)
    host: str = ""  # confirmed reverse DNS name; "" is unknown


@dataclass(frozen=True, slots=True)
class Judgement:
    """Who it was, with what ("" when nothing tells), and why we think so: one sentence for people."""

    opener: Opener
    client: str
    reason: str


def judge(look: Look) -> Judgement:
    """The judgement of the first rule that fits (core/openers.py). Never raises; costs the same whatever is sent."""
    agent = look.agent[:LONGEST_AGENT].strip().lower().replace("%20", " ")  # as Apple's apps spell their names
    address = plain(look.address) if look.address else None
    flood = look.burst >= FLOOD.burst
    fitting, client = ((FLOOD,), "") if flood else _read(agent)
    if within(address, look.own):
        return Judgement(Opener.SELF, client, "It came from one of the sender's own networks.")
    for rule in fitting:
        if _holds(rule, look, address):
            return Judgement(rule.opener, rule.client or client, rule.reason)
    if client:
        return Judgement(Opener.PERSON, client, f"It was shown in {client}, which people read mail with.")
    return Judgement(Opener.UNKNOWN, "", "Nothing tells whether a person or a machine fetched it.")


@lru_cache(maxsize=2048)
def _read(agent: str) -> tuple[tuple[Rule, ...], str]:
    """The rules that this agent does not rule out, and the client that it names. The same few agents come all day."""
    fitting = tuple(rule for rule in RULES if rule.regex.search(agent))
    return fitting, next((client.name for client in CLIENTS if client.regex.search(agent)), "")


def _holds(rule: Rule, look: Look, address: Address | None) -> bool:
    """Every sign that the rule asks for, beside the agent, is there."""
    return (
        (not rule.other_method or look.method.upper() != "GET")
        and look.burst >= rule.burst
        and (rule.soon is None or (look.since_sent is not None and look.since_sent < rule.soon))
        and (not rule.networks or within(address, rule.networks))
        and (not rule.hosts or any(_named(look.host, name) for name in rule.hosts))
    )


def _named(host: str, name: str) -> bool:
    """The host is `name` or below it; or `name` has a `*`, and the host begins and ends so."""
    host = host.lower().rstrip(".")
    begin, star, end = name.partition("*")
    if star:
        return host.startswith(begin) and host.endswith(end) and len(host) > len(begin) + len(end)
    return host == name or host.endswith("." + name)
