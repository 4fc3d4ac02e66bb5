"""Why a server's TLS certificate is not trusted, in words: OpenSSL's reasons (openssl-verification-options(1))."""

from __future__ import annotations

REASONS: dict[int, str] = {
    9: "not valid yet",
    10: "expired",
    18: "self-signed",
    19: "signed by an authority that nobody here knows",
    20: "signed by an authority that is unknown here, or sent without the certificate between",
    21: "sent without the certificate of its authority",
    23: "revoked",
    24: "signed by a certificate that may not sign others",
    26: "not made for servers",
    62: "for another host",
    64: "for another address",
    66: "signed with a key that is too short",
    67: "signed with a key that is too short",
    68: "signed with an algorithm that is too weak",
}
"""What follows "it is", by OpenSSL's number."""


def reason(code: int, message: str) -> str:
    """The reason for this number; OpenSSL's own words where there is none here."""
    return f"it is {REASONS[code]}" if code in REASONS else message
