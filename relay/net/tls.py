"""TLS towards tenants' servers: how certificates are checked, and what a failed handshake is called."""

from __future__ import annotations

import functools
import ssl

from relay.core import trust


@functools.cache
def context(verified: bool) -> ssl.SSLContext:
    """Kept, for reading the system's certificates takes longer than a handshake."""
    made = ssl.create_default_context()
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
