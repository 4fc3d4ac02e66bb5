"""Log in to a mailbox: AUTHENTICATE PLAIN (RFC 4616), XOAUTH2 (Google, Microsoft), LOGIN: the best that is offered."""

from __future__ import annotations

import base64

from relay.core.model import Imap
from relay.net.imapwire import Wire

CLEAR = "[PRIVACYREQUIRED] the server takes no login without TLS"
Answer = tuple[str, str]
"""OK, NO or BAD, and the server's words."""


def log_in(wire: Wire, imap: Imap) -> Answer:
    """How the login ended. A password that is refused is not tried again in another way: some providers count."""
    offered = {word.removeprefix("AUTH=") for word in wire.capabilities if word.startswith("AUTH=")}
    if imap.access_token and ("XOAUTH2" in offered or not imap.password):
        return _xoauth2(wire, imap, offered)
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


def _xoauth2(wire: Wire, imap: Imap, offered: set[str]) -> Answer:
    """A refusal comes as JSON in a challenge, which wants an empty answer before the NO that counts."""
    if "XOAUTH2" not in offered:
        return "NO", "the server takes no access token: it does not offer XOAUTH2"
    answer = f"user={imap.user}\x01auth=Bearer {imap.access_token}\x01\x01"
    typ, said, challenge = wire.sasl("XOAUTH2", answer.encode())
    return typ, said if typ == "OK" else " ".join(f"XOAUTH2 refused: {_decoded(challenge)} {said}".split())


def _decoded(challenge: bytes) -> str:
    """JSON in base64."""
    try:
        return base64.b64decode(challenge, validate=True).decode("utf-8", "replace")
    except ValueError:
        return challenge.decode("utf-8", "replace")


def quoted(text: str) -> bytes:
    """A quoted string (RFC 3501 4.3). The account's settings hold no line end, and neither may this."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError("a line end or NUL in a quoted string")
    return b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
