"""The link by which a mailbox's user connects an account anew: signed, good until a moment, and for one account.

It holds no secret: whoever has it may begin an authorisation of that account, and must then sign in as its user.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

_SIGNATURE = 16  # bytes: 128 bits
_UNTIL = 5  # bytes of the second until which it is good
LONGEST = 400  # characters


def sign(keys: Sequence[bytes], account: str, until: int) -> str:
    """The token, in base64url; `until`: Unix time. The first key signs."""
    told = until.to_bytes(_UNTIL, "big") + account.encode()
    return base64.urlsafe_b64encode(_signature(keys[0], told) + told).rstrip(b"=").decode()


def read(keys: Sequence[bytes], token: str, now: float) -> str | None:
    """The account of a token that one of the keys signed and that is still good; None for any other text."""
    if len(token) > LONGEST:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        signature, told = raw[:_SIGNATURE], raw[_SIGNATURE:]
        account = told[_UNTIL:].decode()
    except (binascii.Error, ValueError):
        return None
    good = [hmac.compare_digest(_signature(key, told), signature) for key in keys]
    canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode()  # one link has one spelling
    return account if canonical and any(good) and now < int.from_bytes(told[:_UNTIL], "big") else None


def _signature(key: bytes, told: bytes) -> bytes:
    return hmac.digest(key, b"mend" + told, "sha256")[:_SIGNATURE]
