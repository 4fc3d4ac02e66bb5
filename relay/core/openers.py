"""Who fetches pixels: rules and networks as data, each with where it is known from and since when.

The first rule that fits wins. The order is the judgement where signs contradict each other, strongest sign first: what
no reader does (another method than GET, no agent), machines that say so, confirmed names and networks of gateways,
floods; then what webmails and Apple fetch; then times, which alone convict nobody; readers last. What each can get
wrong is in docs/opens.md. Samples are agents; patterns are searched in the lower-cased agent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from relay.core.model import Opener

Network = IPv4Network | IPv6Network
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Rule:
    """One sign, or several that must come together. `client` is empty where the agent names it."""

    name: str
    opener: Opener
    client: str
    reason: str
    source: str
    sample: str
    agent: str = ""
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()  # domains: the confirmed name is one of them, or below one
    soon: float | None = None  # fetched before so many seconds since upstream took the mail
    burst: int = 0  # at least so many earlier fetches within the last 10 seconds
    reading: bool = True  # False: by another method than GET
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.agent))


@dataclass(frozen=True, slots=True)
class Client:
    """What people read mail with."""

    name: str
    sample: str
    agent: str
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.agent))


RULES: tuple[Rule, ...] = (
    Rule(
        "method",
        Opener.SCANNER,
        "",
        "It did not ask for the picture, only about it (another method than GET): whoever shows mail asks for it.",
        "RFC 9110 9.3.2: HEAD has no content to show. 2026-09",
        CHROME,
        reading=False,
    ),
    Rule(
        "no agent",
        Opener.SCANNER,
        "",
        "It does not say what it is (no user agent): mail clients and browsers do.",
        "Every mail client and browser sends a User-Agent (RFC 9110 10.1.5); simple programs do not. 2026-09",
        "",
        agent=r"^[^a-z]*$",
    ),
    Rule(
        "Gmail",
        Opener.PROXY,
        "Gmail",
        "Gmail fetched it because somebody opened the mail; where they are stays hidden.",
        "Google, 'Images now showing' (Gmail blog, 2013-12); the agent as of 2026-09",
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        agent=r"googleimageproxy|\bvia ggpht\.com\b",
    ),
)

CLIENTS: tuple[Client, ...] = (Client("Chrome", CHROME, r"^mozilla/.*\bchrome/\d"),)
