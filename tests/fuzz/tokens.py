"""Names that only we can make, under fuzz: pixels, places, links, cursors."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from api.shapes import read_cursor, write_cursor
from relay.core import bearer, mendlink, pixel, place
from relay.core.errors import Refused
from relay.core.place import Place
from relay.core.vault import Vault, VaultError
from tests.fuzz.target import Target

KEYS = (b"n" * 32, b"o" * 32)
VAULT = Vault((base64.urlsafe_b64encode(b"k" * 32).decode(),))
NOW, UNTIL = 1_700_000_000.0, 1_800_000_000
MADE = datetime(2026, 11, 20, tzinfo=UTC)


def check(raw: bytes) -> None:
    """Only what was signed or spelt here is read, and as what it was; nothing raises but what says so."""
    text = raw.decode("utf-8", "surrogateescape")
    for token in dict.fromkeys((text, text.strip(), text[:32])):
        if (delivery := pixel.read(KEYS, token)) is not None:
            assert any(pixel.sign((key,), delivery) == token for key in KEYS), "a token that nobody signed"
        if (link := mendlink.read(KEYS, token, NOW)) is not None:
            _link(link, token)
        _place(token)
        _cursor(token)
    bearer.reason(text)
    bearer.reason(raw)
    _sealed(text)


def _link(link: mendlink.Link, token: str) -> None:
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    until = int.from_bytes(raw[16:21], "big")
    assert until > NOW
    assert any(mendlink.sign((key,), *link, until) == token.rstrip("=") for key in KEYS), "a link that nobody signed"


def _place(token: str) -> None:
    try:
        found = place.read(token)
    except ValueError:
        return
    assert place.spell(found) == token, "two ids of one mail"


def _cursor(token: str) -> None:
    try:
        found = read_cursor(token, int, int, str)
    except Refused:
        return
    assert read_cursor(write_cursor(*found), int, int, str) == found


def _sealed(token: str) -> None:
    """What was sealed for one place opens at no other, and nothing else opens at all."""
    try:
        opened = VAULT.open("a1", "smtp", token)
    except VaultError:
        return
    raise AssertionError(f"{opened!r} was opened, which nobody sealed for this")


def seeds() -> Iterator[bytes]:
    for number in (0, 1, 7, (1 << 63) - 1):
        for keys in (KEYS[:1], KEYS[1:], (b"x" * 32,)):
            yield pixel.sign(keys, number).encode()
            yield mendlink.sign(keys, f"account-{number}", MADE, UNTIL).encode()
    yield mendlink.sign(KEYS, "late", MADE, 1).encode()
    for path in ("INBOX", "Sent Items", "日本", "\ud800", '"'):
        yield place.spell(Place(path, 1, 2)).encode()
    yield write_cursor(10, 1, "2030-01-01").encode()
    yield base64.urlsafe_b64encode(json.dumps([1, 1 << 63, "INBOX"]).encode())
    yield base64.urlsafe_b64encode(b"[" * 3000)
    yield b"\xfe[\xfe"
    yield base64.b64encode(b'{"status":"401","schemes":"bearer"}')
    yield binascii.hexlify(b"\0" * 40)
    yield VAULT.seal("a2", "smtp", "secret").encode()


WORDS = (b"=", b"==", b"-", b"_", b"+", b"/", b"\n", b" ", b"WzEs", b"\xff", b"\xfe", b"\xed\xa0\x80")

TARGETS = (Target("tokens", check, seeds, WORDS, longest=1024),)
