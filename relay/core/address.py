"""Addresses: one for an envelope, strictly; many from a header field, tolerantly; and back into a header field."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from itertools import groupby

import idna

from relay.core import words
from relay.core.errors import Refused

LOCAL, DOMAIN, WHOLE = 64, 255, 254  # octets (RFC 5321 4.5.3.1, RFC 3696 erratum 1690)
LONGEST_NAME = 998

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What no value that ends up in a header field or a command may have: it could begin another one."""

_BLANK = re.compile(r"\s")
_LOCAL = re.compile(r'[^\s"(),:;<>@\[\\\]]+|"(?:[^"\\\r\n]|\\.)*"')
_BRACKETS = re.compile("[<>]")  # quotes would make them good, and too many servers end the path there
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PLAIN = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,63})"
)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_TOKEN = re.compile(
    r'\s+|"(?:[^"\\]++|\\.)*+"?|<[^<>]*+>?|[(,;:]|=\?[^?\s]++\?[bq]\?[^?\s]*+\?='
    r'|(?:[^\s"<(,;:\[=]|=(?!\?)|\[[^\]]*+\]?)++|=',
    re.DOTALL | re.IGNORECASE,
)
_USUAL = re.compile(r"([\w .'-]{0,200})<([\w.+-]++@[\w.-]++)>", re.ASCII)  # what applications write in From
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)


def envelope(text: str, key: str = "") -> str:
    """The address, with its domain in lower case; the part before @ is its owner's business. Raises Refused.

    RFC 5321 with RFC 6531 (UTF-8), without source routes. `key` names the field in the refusal.
    """
    if (plain := _PLAIN.fullmatch(text)) and len(text) <= WHOLE:
        at = plain.start(1)
        return text[:at] + text[at:].lower()
    local, domain = _parted(text, key)
    if _BRACKETS.search(local) and local.startswith('"'):
        raise _refused(text, "has < or > in its quotes, which many servers take for the end of the address", key)
    if not _LOCAL.fullmatch(local):
        raise _refused(text, "has characters before the @ that need quotes", key)
    if len(local.encode()) > LOCAL:
        raise _refused(text, f"is longer than {LOCAL} bytes before the @", key)
    domain = _literal(text, domain, key) if domain.startswith("[") else _domain(text, domain, key)
    if len(f"{local}@{domain}".encode()) > WHOLE:
        raise _refused(text, f"is longer than {WHOLE} bytes", key)
    return f"{local}@{domain}"


def is_ascii(address: str) -> bool:
    """Whether an upstream without SMTPUTF8 can be told this address as it is."""
    return address.isascii()


def ascii_domain(address: str) -> str:
    """The address with its domain as A-labels (IDNA 2008), for upstreams without SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{idna.encode(domain, uts46=True).decode()}"


def spellings(address: str) -> tuple[str, ...]:
    """The address as it is, and with its domain as people write it, or as servers are told it."""
    local, at, domain = address.rpartition("@")
    if len(domain) > DOMAIN or (domain.isascii() and "xn--" not in domain.lower()):
        return (address,)
    try:
        ascii_form = idna.encode(domain, uts46=True).decode()
        return tuple(dict.fromkeys((address, local + at + ascii_form, local + at + idna.decode(ascii_form))))
    except (idna.IDNAError, UnicodeError):
        return (address,)


def _parted(text: str, key: str) -> tuple[str, str]:
    """The parts before and after the last @, once nothing in them can end a command or a header field."""
    if not text:
        raise Refused("The address is empty", smtp="553 5.1.3", key=key)
    if CONTROLS.search(text):
        raise _refused(text, "has a line break or another control character in it", key)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(text, "has half a character in it (an unpaired surrogate)", key) from None
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise _refused(text, "is not of the form name@domain", key)
    if local.startswith("@"):
        raise _refused(text, "has a source route, which nobody uses any more", key)
    if _BLANK.search(domain) or (_BLANK.search(local) and not local.startswith('"')):
        raise _refused(text, "has a blank in it", key)
    return local, domain


def _domain(text: str, domain: str, key: str) -> str:
    """A domain name in lower case, in Unicode when it was given so."""
    lower = domain.lower()
    if len(domain) > DOMAIN:
        raise _refused(text, f"has a domain longer than {DOMAIN} bytes", key)
    try:
        ascii_form = lower if lower.isascii() else idna.encode(lower, uts46=True).decode()
        lower = lower if lower.isascii() else idna.decode(ascii_form)
    except (idna.IDNAError, UnicodeError):
        raise _refused(text, f"has a domain that cannot exist: {domain}", key) from None
    labels = ascii_form.split(".")
    if labels[-1].isdigit():
        raise _refused(text, "has a domain that ends in digits; an IP address is written in brackets, [192.0.2.1]", key)
    if len(ascii_form) > DOMAIN or not all(map(_LABEL.fullmatch, labels)):
        raise _refused(text, f"has a domain that cannot exist: {domain}", key)
    return lower


def _literal(text: str, domain: str, key: str) -> str:
    """[192.0.2.1] or [IPv6:2001:db8::1]."""
    inside = domain[1:-1] if domain.endswith("]") else ""
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        raise _refused(text, f"has an IP address that is none: {domain}", key) from None


def _refused(text: str, fault: str, key: str) -> Refused:
    """Shows what was given, without its controls and not all of it."""
    shown = CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text[:80]).encode("utf-8", "replace").decode()
    shown = shown + "…" if len(text) > 80 else shown
    return Refused(f"The address <{shown}> {fault}", smtp="553 5.1.3", key=key)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A name to show and an address. `name` may be empty."""

    name: str
    address: str

    def header(self) -> str:
        """As header fields spell it: quoted or encoded where it must be. Only the address may be beyond ASCII."""
        address = ascii_domain(self.address) if self.address.rpartition("@")[0].isascii() else self.address
        return f"{_phrase(self.name)} <{address}>" if self.name else address


def _phrase(name: str) -> str:
    if not name.isascii() or "=?" in name or len(name) > 60:
        return " ".join(words.encode(name, first=60))
    if _ATOMS.fullmatch(name) and name == " ".join(name.split()):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def parse_list(text: str) -> list[Mailbox]:
    """The mailboxes of an unfolded header field, names decoded. What is no address is left out. Never raises."""
    if usual := _USUAL.fullmatch(text):  # the same, in a quarter of the time
        return [Mailbox(" ".join(usual[1].split()), usual[2])]
    found: list[Mailbox] = []
    pieces: list[str] = []
    angle: str | None = None
    comment = ""
    at = 0
    while match := _TOKEN.match(text, at):
        word, at = match[0], match.end()
        if word == "(":
            end = _comment_end(text, at)
            comment, at = text[at : end - 1], end
        elif word in ",;":
            if pieces or angle is not None:
                _add(found, pieces, angle, comment)
            pieces, angle, comment = [], None, ""
        elif word == ":":
            pieces = []  # the name of a group ends here
        elif word[0] == "<":
            angle = word.strip("<>")
        else:
            pieces.append(word)
    _add(found, pieces, angle, comment)
    return found


def _add(found: list[Mailbox], pieces: list[str], angle: str | None, comment: str) -> None:
    """`pieces` is what stands outside brackets: the name beside <address>, else the address itself."""
    if angle is None:
        bare = next((word for word in reversed(_joined(pieces)) if "@" in word), "")
        name = comment
    else:
        bare = angle.rpartition(":")[2] if angle.lstrip().startswith("@") else angle
        name = "".join(map(_unquoted, pieces))
    if "@" in bare and not CONTROLS.search(bare):
        found.append(Mailbox(_shown(name), bare.strip()))


def _joined(pieces: list[str]) -> list[str]:
    """Pieces that no blank divides are one word, as in "quoted local part"@example.com."""
    return ["".join(word) for blank, word in groupby(pieces, str.isspace) if not blank]


def _shown(name: str) -> str:
    """Decoded, on one line, without what could be mistaken for the end of a line."""
    return " ".join(CONTROLS.sub(" ", words.decode(name)).split())[:LONGEST_NAME]


def _unquoted(token: str) -> str:
    if not token.startswith('"'):
        return token
    return re.sub(r"\\(.)", r"\1", token[1 : -1 if len(token) > 1 and token.endswith('"') else None])


def _comment_end(text: str, at: int) -> int:
    """Just behind the parenthesis that closes the one before `at`; comments nest."""
    depth = 1
    for match in _PARENTHESIS.finditer(text, at):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(text) + 1
