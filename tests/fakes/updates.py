"""Key updates of TLS 1.3 (RFC 8446 4.6.3, 7.2), as many as wanted: records that carry no data, made by hand.

    updates = Updates(secret)                                     # as `secret_of` reads it from a context's key log
    updates.flood(1000)                                           # bytes of so many records, each of which is valid

The handshake was for TLS_AES_256_GCM_SHA384. `said`: records that the side has said since.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE, KEY_UPDATE = 22, 24
HEAD = struct.pack("!BHH", 23, 0x303, 5 + 1 + 16)


def secret_of(side: str, log: Path) -> bytes:
    """What CLIENT or SERVER says is sealed with, of the log's one connection."""
    label = f"{side}_TRAFFIC_SECRET_0"
    (secret,) = [line.split()[2] for line in log.read_text().splitlines() if line.startswith(label)]
    return bytes.fromhex(secret)


class Updates:
    """See above."""

    def __init__(self, secret: bytes, said: int = 0) -> None:
        self._secret, self._said = secret, said

    def flood(self, number: int, *, asking: bool = False) -> bytes:
        """`asking`: each wants one in return."""
        said = struct.pack("!BBHB", KEY_UPDATE, 0, 1, asking) + bytes([HANDSHAKE])
        return b"".join(self._record(said) for _ in range(number))

    def _record(self, said: bytes) -> bytes:
        """Each but the first one is the first of its key."""
        nonce = int.from_bytes(self._derived(b"iv", 12)) ^ self._said
        sealed = AESGCM(self._derived(b"key", 32)).encrypt(nonce.to_bytes(12), said, HEAD)
        self._said = 0
        self._secret = self._derived(b"traffic upd", 48)
        return HEAD + sealed

    def _derived(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446 7.1), for no more than one hash."""
        name = b"tls13 " + label
        info = struct.pack("!HB", length, len(name)) + name + b"\0"
        return hmac.digest(self._secret, info + b"\1", hashlib.sha384)[:length]
