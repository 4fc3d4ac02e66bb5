"""What an endpoint is posted: the body's exact bytes, its two signatures, its headers; and when it is tried again.

Signed twice, since receivers know either: as Standard Webhooks says (https://www.standardwebhooks.com; several
signatures while secrets rotate), and as EmailEngine signs: `X-EE-Wh-Signature` is the HMAC-SHA256 of the body in
base64url without padding, keyed by the bytes of the whole secret text, its `whsec_` included.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from relay.core.options import spelled

PREFIX = "whsec_"
SHORTEST_KEY, LONGEST_KEY = 24, 64  # bytes of a secret's key (Standard Webhooks, "Signature scheme")
MOST_HEADERS = 20
LONGEST_HEADER = 4096  # characters of one custom header's value
JITTER = 0.1  # of a wait, on top of it: what failed together does not come back together
USER_AGENT = "Postferry-Webhooks/1"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 5.6.2
_OURS = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "date", "expect", "host", "keep-alive", "te"}
    | {"trailer", "transfer-encoding", "upgrade", "user-agent", "accept-encoding"}
)
_OUR_PREFIXES = ("webhook-", "x-ee-wh-", "proxy-")


def event_id(number: int) -> str:
    """`webhook-id`: the same over retries and replays, so that receivers can tell what they have seen."""
    return f"evt_{number}"


def body(service_url: str, account: str, at: datetime, event: str, data: Mapping[str, Any]) -> bytes:
    """The posted bytes: compact JSON in UTF-8. `account` is "" for an event of the whole installation."""
    fields = {"serviceUrl": service_url, "account": account, "date": spelled(at), "event": event, "data": data}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def headers(
    number: int, posted: bytes, secrets: Sequence[str], now: datetime, custom: Mapping[str, str]
) -> dict[str, str]:
    """All headers of one try of event `number`, but those of the connection. `secrets`: newest first."""
    stamp = int(now.timestamp())
    return {
        **{name: value for name, value in custom.items() if not _reserved(name)},
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": event_id(number),
        "webhook-timestamp": str(stamp),
        "webhook-signature": " ".join(sign(secret, event_id(number), stamp, posted) for secret in secrets),
        "X-EE-Wh-Event-Id": event_id(number),
        "X-EE-Wh-Signature": sign_body(secrets[0], posted),
    }


def sign(secret: str, id: str, timestamp: int, posted: bytes) -> str:
    """One signature of `webhook-signature`."""
    return "v1," + base64.b64encode(hmac.digest(key(secret), f"{id}.{timestamp}.".encode() + posted, "sha256")).decode()


def sign_body(secret: str, posted: bytes) -> str:
    """`X-EE-Wh-Signature`."""
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), posted, "sha256")).rstrip(b"=").decode()


def new_secret(random: bytes) -> str:
    """A secret from 24 to 64 random bytes."""
    if not SHORTEST_KEY <= len(random) <= LONGEST_KEY:
        raise ValueError(f"a secret is made of {SHORTEST_KEY} to {LONGEST_KEY} bytes")
    return PREFIX + base64.b64encode(random).decode()


def key(secret: str) -> bytes:
    """The key that a secret spells. Raises ValueError, which does not repeat it, for one that is none."""
    wanted = f"a secret is {PREFIX} and the base64 of {SHORTEST_KEY} to {LONGEST_KEY} bytes; leave it out to get one"
    if not secret.startswith(PREFIX):
        raise ValueError(wanted)
    text = secret.removeprefix(PREFIX)
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(wanted) from None
    if not SHORTEST_KEY <= len(found) <= LONGEST_KEY:
        raise ValueError(f"{wanted} (this one has {len(found)})")
    return found


def check_headers(custom: Mapping[str, str]) -> None:
    """Raises ValueError, naming the header, for custom headers that cannot be sent or that are ours to set."""
    if len(custom) > MOST_HEADERS:
        raise ValueError(f"at most {MOST_HEADERS} custom headers can be set")
    if len({name.lower() for name in custom}) < len(custom):
        raise ValueError("a custom header can be set once")
    for name, value in custom.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no name of a header")
        if _reserved(name):
            raise ValueError(f"{name} is set by Postferry itself and cannot be a custom header")
        if len(value) > LONGEST_HEADER:
            raise ValueError(f"the value of {name} is longer than {LONGEST_HEADER} characters")
        if not value.replace("\t", " ").isprintable():
            raise ValueError(f"the value of {name} holds a line break or another control character")


def wait(tries: int, waits: Sequence[float], rng: Callable[[], float]) -> float | None:
    """Seconds from try number `tries`, which failed, to the next; None: that was the last. Never shorter than set."""
    if tries > len(waits):
        return None
    return waits[tries - 1] * (1 + JITTER * rng())


def _reserved(name: str) -> bool:
    return name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES)
