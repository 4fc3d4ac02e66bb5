"""What MAIL and RCPT say: the envelope of one transaction, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay.core import address
from relay.core.errors import Refused

# Possessive throughout: one pass, whatever is sent. A path without its brackets is an old habit of some applications.
_PATH = re.compile(r""" ?<((?:[^<>"\\]++|"(?:[^"\\]++|\\.)*+")*+)>(?: +(.*))?""")
_BARE = re.compile(r" ?([^\s<>\"]++)(?: +(.*))?")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([^=\s]++))?")


class Bad(Refused):
    """A command that makes no sense here. Some are forgiven; then we hang up."""

    def __init__(self, message: str, *, smtp: str = "501 5.5.4") -> None:
        super().__init__(message, smtp=smtp)


@dataclass(slots=True)
class Envelope:
    """Of one transaction. `sender` is None until MAIL; "" is the null reverse-path."""

    sender: str | None = None
    smtputf8: bool = False
    recipients: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    named: dict[str, None] = field(default_factory=dict)  # with those that are left out

    def mail(self, argument: str, *, max_size: int) -> None:
        """MAIL: `argument` is what follows the verb. Raises Refused."""
        path, given = _split(argument, "FROM:", "MAIL FROM:<address>")
        smtputf8 = _judge(_parameters(given), max_size)
        self.sender = _address(path, smtputf8) if path else ""
        self.smtputf8 = smtputf8

    def rcpt(self, argument: str, *, most: int) -> str:
        """RCPT, the same; tells the recipient. One named twice gets one copy."""
        path, given = _split(argument, "TO:", "RCPT TO:<address>")
        for name in _parameters(given):
            raise Refused(f"RCPT parameter {name} is not supported", smtp="555 5.5.4")
        recipient = _address(path, self.smtputf8)
        if len(self.recipients) >= most and recipient not in self.recipients:
            raise Refused(f"Too many recipients: {most} a message at most", smtp="452 4.5.3")
        self.recipients[recipient] = self.named[recipient] = None
        return recipient

    def leave_out(self, recipient: str) -> None:
        """It was named, and gets none of the message."""
        del self.recipients[recipient]


def _split(argument: str, word: str, syntax: str) -> tuple[str, str]:
    """The path and the parameters after `word`."""
    if argument[: len(word)].upper() == word:
        rest = argument[len(word) :].rstrip(" ")
        if found := _PATH.fullmatch(rest) or _BARE.fullmatch(rest):
            return found[1], found[2] or ""
    raise Bad(f"Syntax: {syntax}")


def _address(path: str, smtputf8: bool) -> str:
    if not smtputf8 and not path.isascii():
        raise Refused("An address beyond ASCII needs the SMTPUTF8 parameter of MAIL", smtp="553 5.6.7")
    return address.envelope(path)


def _parameters(text: str) -> dict[str, str | None]:
    """Upper-case names and their values; None for a name alone."""
    found: dict[str, str | None] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            raise Bad(f"Parameter {word} is malformed or given twice")
        found[match[1].upper()] = match[2]
    return found


def _judge(parameters: dict[str, str | None], max_size: int) -> bool:
    """Raises Refused for what we do not do; returns whether SMTPUTF8 was asked for."""
    for name, value in parameters.items():
        match name, value:
            case "SIZE", str(size) if size.isascii() and size.isdigit() and len(size) <= 20:
                if int(size) > max_size:
                    raise Refused(f"Too large: {max_size} bytes at most", smtp="552 5.3.4")
            case "BODY", str(body) if body.upper() in ("7BIT", "8BITMIME"):
                pass
            case "SMTPUTF8", None:
                pass
            case "AUTH", str():
                pass  # RFC 4954, section 5: taken, and not believed
            case "SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _:
                raise Bad(f"MAIL parameter {name} has a value it cannot have")
            case _:
                raise Refused(f"MAIL parameter {name} is not supported", smtp="555 5.5.4")
    return "SMTPUTF8" in parameters
