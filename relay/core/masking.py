"""Takes secrets out of what servers say: one that repeats what it was told must not make it known."""

from __future__ import annotations

import base64
from collections.abc import Iterable

SHORTEST = 3  # characters; what is shorter is in every text
MASK = "***"


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets, in the clear or in base64."""
    told = [secret for secret in secrets if len(secret) >= SHORTEST]
    encoded = [base64.b64encode(secret.encode()).decode().rstrip("=") for secret in told]
    for secret in sorted(told + encoded, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
