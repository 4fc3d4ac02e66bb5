"""Makes generated calls fit to be sent: none dials out of this machine, or takes away what the run stands on.

Half of what is well formed is given a name that leads somewhere: else nearly every answer would be 404, or tell that an
address is none.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core import account

HERE = "127.0.0.1"
URLS = frozenset({"url", "baseUrl", "issuer", "serviceUrl"})
SOMEBODY = "somebody@there.example"
SOON = "2030-01-31T09:30:00Z"
WELL_FORMED = {
    "account": re.compile(account.ID),
    "queueId": re.compile(r"[0-9a-f]{32}"),
    "address": re.compile(r"[^/\0]+"),
}
GOOD = {
    **dict.fromkeys(("address", "email", "recipient"), SOMEBODY),
    **dict.fromkeys(("sendAt", "from", "to"), SOON),
    "tz": "Europe/Berlin",
    "locale": "de-DE",
    "content": "aGVsbG8=",
    "contentType": "text/plain",
}
"""What the words of the document do not tell of a text, and every call would refuse."""


@dataclass(frozen=True)
class Tamer:
    """`known`: values of parts of paths that lead somewhere; `kept`: tokens that stay; `closed`: a port of nobody's."""

    known: Mapping[str, Sequence[Any]]
    kept: Sequence[int]
    closed: int

    def lead(self, parts: dict[str, Any]) -> None:
        """Half of the names are those of something that there is."""
        for name, value in parts.items():
            if name in self.known and _well_formed(name, value) and _chance(value):
                parts[name] = self._one(name, value)

    def spare(self, method: str, path: str, parts: dict[str, Any]) -> None:
        """Tenants, the run's own tokens and the endpoints that all know are not taken away."""
        for name in ("account", "token", "endpoint"):
            stays = self.kept if name == "token" else self.known[name]
            if method == "DELETE" and path.endswith(f"{{{name}}}") and str(parts.get(name)) in map(str, stays):
                parts[name] = "gone" if name == "account" else 1 << 40

    def body(self, method: str, path: str, given: Any, *, good: bool) -> Any:
        """`good`: it is meant to be taken, and may be given what no call of its kind can do without."""
        body = self._here(given, "", good)
        if good and isinstance(body, dict) and _chance(sorted(body)):
            return self._needed(method, path) | body
        return body

    def _here(self, value: Any, name: str, good: bool) -> Any:
        """Hosts are this machine, ports are closed, URLs are both; what is no text or number stays what it is."""
        match value:
            case dict():
                return {key: self._here(one, key, good) for key, one in value.items()}
            case list():
                return [self._here(one, name, good) for one in value]
            case str() if name == "host" and value:
                return HERE
            case str() if name in URLS and value:
                return f"http://{HERE}:{self.closed}/"
            case int() if name == "port" and not isinstance(value, bool) and 0 < value < 65536:
                return self.closed
            case str() if good and name in GOOD and _chance(value):
                return GOOD[name]
            case str() if good and name == "account" and _chance(value):
                return self._one(name, value)
        return value

    def _needed(self, method: str, path: str) -> dict[str, Any]:
        tenant = self.known["account"][0]
        needed: Mapping[tuple[str, str], dict[str, Any]] = {
            ("POST", "/v1/account/{account}/submit"): {"to": [{"address": SOMEBODY}], "text": "Hello"},
            ("POST", "/v1/verifyAccount"): {"smtp": {"host": HERE, "port": self.closed}, "email": SOMEBODY},
            ("POST", "/v1/webhooks"): {"url": f"http://{HERE}:{self.closed}/"},
            ("POST", "/v1/suppressions"): {"account": tenant, "address": SOMEBODY},
            ("PATCH", "/v1/outbox/{queueId}"): {"sendAt": SOON},
        }
        return needed.get((method, path), {})

    def _one(self, name: str, value: Any) -> Any:
        return self.known[name][_number(value) % len(self.known[name])]


def _well_formed(name: str, value: Any) -> bool:
    known = WELL_FORMED.get(name)
    if known is None:
        return str(value).isdecimal()
    return isinstance(value, str) and known.fullmatch(value) is not None


def _chance(value: Any) -> bool:
    """Half of all values; the same again in a run with the same seed."""
    return _number(value) // 1000 % 2 == 0


def _number(value: Any) -> int:
    return zlib.crc32(repr(value).encode("utf-8", "replace"))
