"""The pixel: a picture of one transparent dot, its signed name, and the tag that shows it.

A name says nothing to anyone but us: it holds the number of a delivery, masked, under a signature. No address is in it,
and the numbers of a sender's deliveries cannot be counted from it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import html
from collections.abc import Sequence
from functools import lru_cache

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

_SIGNATURE = 16  # bytes: 128 bits
_NUMBER = 8
_TOKEN = (_SIGNATURE + _NUMBER) * 4 // 3  # characters, no padding


def sign(keys: Sequence[bytes], delivery: int) -> str:
    """The token of a delivery, 32 characters of base64url, always the same for one key. The first key signs."""
    number = delivery.to_bytes(_NUMBER, "big")
    signature = _signature(keys[0], number)
    return base64.urlsafe_b64encode(signature + _masked(keys[0], signature, number)).decode()


def read(keys: Sequence[bytes], token: str) -> int | None:
    """The delivery of a token that one of the keys signed; None for any other text. Constant time, never raises."""
    try:
        raw = base64.b64decode(token.encode("ascii"), b"-_", validate=True) if len(token) == _TOKEN else b""
    except (binascii.Error, ValueError):
        raw = b""
    found = None
    if len(raw) == _SIGNATURE + _NUMBER and "+" not in token and "/" not in token:  # Python's base64url takes both
        signature, masked = raw[:_SIGNATURE], raw[_SIGNATURE:]
        for key in keys:
            number = _masked(key, signature, masked)
            if hmac.compare_digest(_signature(key, number), signature):
                found = int.from_bytes(number, "big")
    return found


def tag(public_url: str, token: str) -> str:
    """The <img> for a token, in ASCII."""
    before, after = _around(public_url)
    return before + token + after


@lru_cache(maxsize=16)
def _around(public_url: str) -> tuple[str, str]:
    url = html.escape(public_url.rstrip("/")).encode("ascii", "xmlcharrefreplace").decode()
    return f'<img src="{url}/t/', '.gif" width="1" height="1" alt="" style="border:0">'


def _signature(key: bytes, number: bytes) -> bytes:
    return hmac.digest(key, b"pixel" + number, "sha256")[:_SIGNATURE]


def _masked(key: bytes, signature: bytes, number: bytes) -> bytes:
    """The number, hidden or shown again; the signature makes the mask another one for each."""
    mask = hmac.digest(key, b"mask" + signature, "sha256")[:_NUMBER]
    return bytes(a ^ b for a, b in zip(mask, number, strict=True))
