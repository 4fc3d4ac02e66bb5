"""Secrets at rest: sealed with the newest key, opened with any, each bound to the account and field it belongs to."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class VaultError(Exception):
    """A secret cannot be opened: the key is missing, or it was sealed for another account or field."""


class Vault:
    """Seals and opens secrets. `keys` are Fernet keys (32 bytes, urlsafe base64), newest first."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise VaultError("POSTFERRY_SECRET_KEYS is empty; make a key with: postferry doctor --new-key")
        self._keys = tuple(base64.urlsafe_b64decode(key) for key in keys)
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, account: str, field: str, text: str) -> str:
        """The token to store. It opens for the same account and field alone."""
        return self._fernet.encrypt(_binding(account, field) + text.encode()).decode("ascii")

    def open(self, account: str, field: str, token: str) -> str:
        """What `seal` was given. Raises VaultError; the message never holds the secret."""
        try:
            plain = self._fernet.decrypt(token)
        except (InvalidToken, ValueError):  # the second: what is no token at all
            raise VaultError(
                f"{field} of account {account} was sealed with a key that is not in POSTFERRY_SECRET_KEYS"
            ) from None
        binding = _binding(account, field)
        if not hmac.compare_digest(plain[: len(binding)], binding):
            raise VaultError(f"{field} of account {account} was sealed for another account or field")
        return plain[len(binding) :].decode()

    def rotate(self, account: str, field: str, token: str) -> str:
        """The same secret under the newest key."""
        return self.seal(account, field, self.open(account, field, token))

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Keys for another purpose (signing pixels), one for each of ours, newest first."""
        return tuple(hmac.digest(key, b"postferry " + purpose.encode(), "sha256") for key in self._keys)


def new_key() -> str:
    """A fresh key for POSTFERRY_SECRET_KEYS."""
    return Fernet.generate_key().decode("ascii")


def _binding(account: str, field: str) -> bytes:
    """32 bytes that name the place; hashed, so that no choice of ids can run into the secret or each other."""
    return hashlib.sha256(f"{len(account)}:{account}:{field}".encode()).digest()
