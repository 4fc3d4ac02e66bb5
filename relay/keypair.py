"""A TLS certificate and its private key, as files: what is wrong with them. OpenSSL says `PEM lib` to most of it."""

from __future__ import annotations

import ssl
from pathlib import Path

_STRANGERS = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}  # the last: RSA beside EC


class _Encrypted(Exception):
    """The key wants a passphrase."""


def fault(certificate: Path, key: Path) -> str:
    """What keeps the two from being used, and what to do; "" for nothing. Both can be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        return f"{certificate} holds no certificate in PEM: it must begin with -----BEGIN CERTIFICATE-----"
    try:
        context.load_cert_chain(certificate, key, _refuse)  # else OpenSSL asks whoever sits at the terminal
    except _Encrypted:
        return f"the key {key} is encrypted, and nobody is there to decrypt it: openssl pkey -in {key} -out plain.key"
    except ssl.SSLError as error:
        if error.reason in _STRANGERS:
            return (
                f"the key {key} does not belong to the first certificate in {certificate}: name the key that it was "
                "made with, and let the server's own certificate stand first"
            )
        return f"{key} holds no private key in PEM: it must have a line such as -----BEGIN PRIVATE KEY-----"
    return ""


def _refuse() -> str:
    raise _Encrypted
