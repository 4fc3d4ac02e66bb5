"""Which hosts may be dialled: a tenant must not reach our own network through us (server-side request forgery).

Judged twice: here when settings are saved, on what the host spells out; in net/guard.py on the resolved address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from relay.core.networks import Address, Network

# The special-purpose registries of IANA, and what the clouds put their metadata on. Order: the narrow reason first.
REASONS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("169.254.169.254/32", "cloud metadata address"),
        ("168.63.129.16/32", "cloud metadata address"),
        ("100.100.100.200/32", "cloud metadata address"),
        ("fd00:ec2::254/128", "cloud metadata address"),
        ("0.0.0.0/8", "unspecified address"),
        ("10.0.0.0/8", "private address"),
        ("100.64.0.0/10", "carrier-grade NAT address"),
        ("127.0.0.0/8", "loopback address"),
        ("169.254.0.0/16", "link-local address"),
        ("172.16.0.0/12", "private address"),
        ("192.0.0.0/24", "reserved address"),
        ("192.0.2.0/24", "documentation address"),
        ("192.88.99.0/24", "reserved address"),
        ("192.168.0.0/16", "private address"),
        ("198.18.0.0/15", "benchmarking address"),
        ("198.51.100.0/24", "documentation address"),
        ("203.0.113.0/24", "documentation address"),
        ("224.0.0.0/4", "multicast address"),
        ("255.255.255.255/32", "broadcast address"),
        ("240.0.0.0/4", "reserved address"),
        ("::/128", "unspecified address"),
        ("::1/128", "loopback address"),
        ("fc00::/7", "private address"),
        ("fe80::/10", "link-local address"),
        ("fec0::/10", "private address"),
        ("ff00::/8", "multicast address"),
        ("2001:db8::/32", "documentation address"),
        ("3fff::/20", "documentation address"),
        ("2001::/23", "reserved address"),
    )
)
PUBLIC6 = IPv6Network("2000::/3")  # all that IANA has given out; the rest of IPv6 is nobody's

# IPv6 that carries an IPv4 address, by the bits below it: mapped, translated, compatible, NAT64, 6to4.
CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
SINGLE = frozenset({IPv6Address("::"), IPv6Address("::1")})  # inside ::/96, yet names of their own
LOCAL_NAMES = re.compile(r"(.+\.)?(localhost|localhost\.localdomain|ip6-(localhost|loopback))")
NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
LONGEST_URL = 2048  # characters
URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")  # RFC 3986 2
NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")


def judge(address: Address, allowed: Iterable[Network]) -> str:
    """Why this address may not be dialled; "" when it may. `allowed` are the networks that the operator opened."""
    inner = carried(address)
    if opened(address, allowed):
        return ""
    if inner is None:
        return _reason(address)
    reason = _reason(inner)
    return reason and f"{reason} {inner} inside IPv6"


def opened(address: Address, allowed: Iterable[Network]) -> bool:
    """It is in a network that the operator opened by name."""
    inner = carried(address)
    return any(candidate in network for network in allowed for candidate in (address, inner) if candidate is not None)


def judge_literal(host: str, allowed: Iterable[Network]) -> str:
    """Why this host may not be an upstream, as far as its spelling says; "" when it may or only DNS can tell."""
    address = literal(host)
    if address is not None:
        return judge(address, allowed)
    if LOCAL_NAMES.fullmatch(_plain(host)):
        return judge(IPv4Address("127.0.0.1"), allowed)
    return ""


def judge_url(url: str, allowed: Iterable[Network]) -> str:
    """Why nothing may be posted to this URL, in words that follow the name of its field; "" when it may."""
    if not url:
        return "is missing"
    if len(url) > LONGEST_URL:
        return f"must be at most {LONGEST_URL} characters"
    if not URL.fullmatch(url):
        return "must hold only what a URL may: percent-encode the rest, and write the host in ASCII (xn--...)"
    if not url.lower().startswith(("https://", "http://")):
        return "must begin with https:// or http://"
    if "#" in url:
        return "must hold no fragment (#...): it is never sent"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL: its host or port cannot be read"
    if "@" in parts.netloc:
        return "must hold no user or password: give them as a custom header, e.g. Authorization"
    six = "[" in parts.netloc
    if port == 0 or not (isinstance(literal(host), IPv6Address) if six else NAME.fullmatch(host)):
        return "is no URL: it needs the name or address of a host, and a port that there is"
    reason = judge_literal(host, allowed)
    return reason and f"leads to {an(reason)}, refused unless the operator allows it with POSTFERRY_ALLOW_NETWORKS"


def an(reason: str) -> str:
    """The reason with its article."""
    return f"{'an' if reason[0] in 'aeiou' else 'a'} {reason}"


def literal(host: str) -> Address | None:
    """The address that a host spells out, in any spelling that a resolver would take for one; None: a name."""
    text = _plain(host)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return ip_address(bare.partition("%")[0])
    except ValueError:
        return _old_spelling(bare)


def carried(address: Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one."""
    if isinstance(address, IPv4Address) or address in SINGLE:
        return None
    for network, shift in CARRIERS:
        if address in network:
            return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return None


def _reason(address: Address) -> str:
    for network, reason in REASONS:
        if address.version == network.version and address in network:
            return reason
    if isinstance(address, IPv6Address) and address not in PUBLIC6:
        return "reserved address"
    return ""


def _plain(host: str) -> str:
    """Full-width digits and the ideographic full stop are what IDNA makes of them; a final dot says nothing."""
    return unicodedata.normalize("NFKC", host).replace("。", ".").strip().rstrip(".").lower()


def _old_spelling(text: str) -> IPv4Address | None:
    """inet_aton's spellings: 2130706433, 0x7f.1, 0177.0.0.1, 127.1 (the last number fills what is left)."""
    parts = text.split(".")
    if len(parts) > 4 or not all(NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        *heads, tail = [_number(part) for part in parts]
    except ValueError:
        return None
    if any(head > 255 for head in heads) or tail >= 256 ** (4 - len(heads)):
        return None
    return IPv4Address(sum(head << (24 - 8 * place) for place, head in enumerate(heads)) + tail)


def _number(part: str) -> int:
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") else int(part)
