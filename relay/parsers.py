"""Parsers of settings: each reads the text of one value, and raises ValueError with what it must be."""

from __future__ import annotations

import ipaddress
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def text(value: str) -> str:
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = int(value) if re.fullmatch(r"\s*-?[0-9]+\s*", value) else None
        if number is None or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number of seconds from {low:.12g} to {high:.12g}")
        return number

    return parse


def flag(value: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def networks(value: str) -> tuple[Network, ...]:
    found = []
    for item in value.replace(",", " ").split():
        try:
            found.append(ipaddress.ip_network(item, strict=False))
        except ValueError:
            raise ValueError(f"{item!r} is not an address or network (example: 10.0.0.0/8)") from None
    return tuple(found)


def keys(value: str) -> tuple[str, ...]:
    import base64
    import binascii

    keys = tuple(value.replace(",", " ").split())
    for number, key in enumerate(keys, 1):
        try:
            good = len(base64.urlsafe_b64decode(key)) == 32
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError(f"key {number} is not 32 bytes in urlsafe base64 (make one: postferry doctor --new-key)")
    return keys


def web(value: str) -> str:
    """Of a web server: what is put behind it must lead there, and stand in HTML as it is."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"""[\s"'<>?#]""", value):
        raise ValueError("must be a URL starting with http:// or https:// and a host, without ? and #")
    return value.rstrip("/")


def postgres(value: str) -> str:
    """Its shape: PostgreSQL's own library, for URLs and `host=... dbname=...`, judges the rest (store/db.py)."""
    if value and not re.match(r"postgres(ql)?://|\s*\w+\s*=", value):
        raise ValueError("must be a URL such as postgresql://user:pass@host/db, or words such as host=... dbname=...")
    return value


def redis(value: str) -> str:
    """As redis.Redis.from_url() takes it; a fault does not repeat what may be a password."""
    try:
        parts = urlsplit(value)
        good = bool(parts.path) if parts.scheme == "unix" else parts.port is None or parts.port > 0
    except ValueError:
        good = False
    if value and not (good and value.startswith(("redis://", "rediss://", "unix://"))):
        raise ValueError("must be a URL such as redis://host:6379/0, rediss://... (TLS) or unix:///path/to/socket")
    return value


def file(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"no file at {value}")
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"no file at {value}") from None
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}; let the user that Postferry runs as read it") from None
    return path


def folder(value: str) -> Path | None:
    return Path(value) if value else None


def waits(value: str) -> tuple[float, ...]:
    return tuple(map(seconds(0.01, 31536000), value.replace(",", " ").split()))


def one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value.strip().lower()

    return parse


def our_name(value: str) -> str:
    return value or socket.gethostname()
