"""The link by which a mailbox's user connects an account anew: signed, good until a moment, and for one account.

That is the account of this id that was made then: one of the same id that is made later is another's. It holds no
secret: whoever has it may begin an authorisation of that account, and must then sign in as its user.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_SIGNATURE = 16  # bytes: 128 bits
_UNTIL = 5  # bytes of the second until which it is good
_MADE = 8  # bytes of the microsecond in which the account was made
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST = 400  # characters


class Link(NamedTuple):
    """Whom it is for."""

    account: str
    made: datetime


def sign(keys: Sequence[bytes], account: str, made: datetime, until: int) -> str:
    """The token, in base64url; `until`: Unix time. The first key signs."""
    micros = (made - _EPOCH) // timedelta(microseconds=1)
    told = until.to_bytes(_UNTIL, "big") + micros.to_bytes(_MADE, "big") + account.encode()
    return base64.urlsafe_b64encode(_signature(keys[0], told) + told).rstrip(b"=").decode()


def read(keys: Sequence[bytes], token: str, now: float) -> Link | None:
    """What a token holds that one of the keys signed and that is still good; None for any other text."""
    if len(token) > LONGEST:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        signature, told = raw[:_SIGNATURE], raw[_SIGNATURE:]
        until, micros = int.from_bytes(told[:_UNTIL], "big"), int.from_bytes(told[_UNTIL : _UNTIL + _MADE], "big")
        link = Link(told[_UNTIL + _MADE :].decode(), _EPOCH + timedelta(microseconds=micros))
    except (binascii.Error, ValueError, OverflowError):
        return None
    good = [hmac.compare_digest(_signature(key, told), signature) for key in keys]
    canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode()  # one link has one spelling
    return link if canonical and any(good) and now < until else None


def _signature(key: bytes, told: bytes) -> bytes:
    return hmac.digest(key, b"mend" + told, "sha256")[:_SIGNATURE]
