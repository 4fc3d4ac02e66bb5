"""Log in to a mailbox: AUTHENTICATE PLAIN (RFC 4616), XOAUTH2 (Google, Microsoft), OAUTHBEARER (RFC 7628), LOGIN.

The best that is offered.
"""

from __future__ import annotations

from relay.core import bearer
from relay.core.tenant import Imap
from relay.net.imapwire import Wire

CLEAR = "[PRIVACYREQUIRED] the server takes no login without TLS"
Answer = tuple[str, str]
"""OK, NO or BAD, and the server's words."""


def log_in(wire: Wire, imap: Imap) -> Answer:
    """How the login ended. A password that is refused is not tried again in another way: some providers count."""
    offered = {word.removeprefix("AUTH=") for word in wire.capabilities if word.startswith("AUTH=")}
    if imap.access_token and (offered & {*bearer.MECHANISMS} or not imap.password):
        return _bearer(wire, imap, offered)
    typ, said = _plain(wire, imap) if "PLAIN" in offered else ("BAD", CLEAR)
    if typ == "BAD" and "LOGINDISABLED" not in wire.capabilities:
        return _login(wire, imap)
    return typ, said


def _plain(wire: Wire, imap: Imap) -> Answer:
    typ, said, _ = wire.sasl("PLAIN", f"\0{imap.user}\0{imap.password}".encode())
    return typ, said


def _login(wire: Wire, imap: Imap) -> Answer:
    """A password that is not ASCII goes as a literal, for a quoted string has seven bits."""
    if imap.password.isascii():
        return wire.ask("LOGIN", quoted(imap.user), quoted(imap.password))
    return wire.ask("LOGIN", quoted(imap.user), literal=imap.password.encode())


def _bearer(wire: Wire, imap: Imap, offered: set[str]) -> Answer:
    """A refusal comes as JSON in a challenge, which wants an answer of nothing before the NO that counts."""
    name = next((name for name in bearer.MECHANISMS if name in offered), None)
    if name is None:
        return "NO", "the server takes no access token: it does not offer XOAUTH2 or OAUTHBEARER"
    answer = bearer.response(name, imap.user, imap.access_token, imap.host, imap.port)
    typ, said, challenge = wire.sasl(name, answer, bearer.MECHANISMS[name])
    return typ, said if typ == "OK" else " ".join(f"{name} refused: {bearer.reason(challenge)} {said}".split())


def quoted(text: str) -> bytes:
    """A quoted string (RFC 3501 4.3). The account's settings hold no line end, and neither may this."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError("a line end or NUL in a quoted string")
    return b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
