"""Takes secrets out of what servers say: one that repeats what it was told must not make it known."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

SHORTEST = 3  # characters; what is shorter is in every text
SHORTEST_INNER = 8  # letters of base64 that cannot be there by chance
MASK = "***"


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets, in the clear or in base64, alone or amid something else (as SASL has them)."""
    told = [secret for secret in secrets if len(secret) >= SHORTEST]
    encoded = [form for secret in told for form in _encoded(secret.encode())]
    for secret in sorted(told + encoded, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _encoded(secret: bytes) -> Iterator[str]:
    """Its forms in base64. Amid other bytes it begins at one of three places, and shares its outer letters."""
    yield base64.b64encode(secret).decode().rstrip("=")
    for shift in range(3):
        letters = base64.b64encode(b"\0" * shift + secret).decode()
        inner = letters[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6]
        if len(inner) >= SHORTEST_INNER:
            yield inner
