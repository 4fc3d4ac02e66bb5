"""The mailbox of one account of a ledger run: a real Dovecot, and what lies in it in the end, read from its disk."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

from tests.chaos.ledger import Filed
from tests.dovecot import PASSWORDS, Dovecot

USER = "ann"
PIXEL = b"/t/"  # in the address of every pixel


class Box:
    """Started when it is made; `stop` it."""

    def __init__(self, port: int, tls_port: int) -> None:
        self._dovecot = Dovecot(port, tls_port)
        self.port = port

    @staticmethod
    def missing() -> str:
        """Why there can be none here; "" when there can."""
        return Dovecot.missing()

    @staticmethod
    def settings(port: int) -> dict[str, Any]:
        """As the API takes them, for whoever comes by way of this port."""
        auth = {"user": USER, "pass": PASSWORDS[USER]}
        return {"host": "127.0.0.1", "port": port, "secure": False, "tls": {"mode": "none"}, "auth": auth}

    def filed(self) -> Iterator[Filed]:
        """Every mail in it, in whatever folder."""
        maildir = self._dovecot.folder / "mail" / USER
        for place in (*maildir.rglob("cur/*"), *maildir.rglob("new/*")):
            content = place.read_bytes()
            yield Filed(message_from_bytes(content)["Message-ID"] or "", clean=PIXEL not in content)

    def stop(self) -> None:
        self._dovecot.stop()
