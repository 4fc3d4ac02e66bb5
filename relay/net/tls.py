"""TLS: how tenants' servers are checked, what a failed handshake is called, and how much TLS alone anybody may make.

After the handshake nobody begins another one: OpenSSL 3 refuses clients by itself, 1.1.1 does not, and neither refuses
servers. TLS 1.3 has key updates instead (RFC 8446 4.6.3), without end: each costs what kilobytes of mail do.
"""

from __future__ import annotations

import errno
import functools
import ssl
from typing import Any

from relay.core import trust

IDLE = 32_768  # bytes of one connection's records that carry no data: tickets, alerts, key updates; one record is half
EACH = 32  # bytes of records for a byte of data: who writes each alone needs 23


class Tempered(ssl.SSLObject):
    """Reads no more records than their data is worth. Raises ssl.SSLError instead, which ends the connection."""

    _incoming: ssl.MemoryBIO
    _spare = IDLE

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *rest: Any, **more: Any) -> Tempered:
        """What `SSLContext.wrap_bio` calls."""
        made: Tempered = super()._create(incoming, *rest, **more)  # type: ignore[misc]
        made._incoming = incoming
        return made

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        held = b""
        if self._incoming.pending > self._spare:  # OpenSSL reads on until there is data: it sees no more than it may
            held = self._incoming.read()
            self._incoming.write(held[: self._spare])
            held = held[self._spare :]
        waiting, data = self._incoming.pending, 0
        try:
            found = super().read(len, buffer)
            data = found if isinstance(found, int) else found.__len__()
            return found
        finally:
            read = waiting - self._incoming.pending
            self._spare = min(IDLE, self._spare - read + EACH * data)  # nobody saves up for a flood
            self._incoming.write(held)
            if self._spare <= 0:
                raise ssl.SSLError(errno.EPROTO, "too many TLS records without data")


def tempered(made: ssl.SSLContext) -> ssl.SSLContext:
    """The context, for connections with strangers. What is not read through an event loop is not counted."""
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.sslobject_class = Tempered
    return made


@functools.cache
def context(verified: bool) -> ssl.SSLContext:
    """Kept, for reading the system's certificates takes longer than a handshake."""
    made = tempered(ssl.create_default_context())
    if not verified:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def words(fault: ssl.SSLError, host: str) -> str:
    """What was wrong, as far as the library knows."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        why = trust.reason(fault.verify_code, fault.verify_message)
        return f"certificate of {host} not trusted: {why}"
    return f"no TLS with {host}: {fault.reason or fault}"
