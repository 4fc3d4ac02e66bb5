"""What goes wrong with a mailbox, told apart: connections that end, and commands that are refused."""

from __future__ import annotations

import imaplib


class Ended(imaplib.IMAP4.abort):
    """The server closed the connection; its text is what it said before, if anything (BYE)."""


class Silent(imaplib.IMAP4.abort):
    """No answer in time."""


class TooMuch(imaplib.IMAP4.abort):
    """An answer without end."""


class Unsupported(imaplib.IMAP4.error):
    """The server never learnt what we need."""


class Misunderstood(imaplib.IMAP4.error):
    """The server calls a command BAD."""


class OutOfTurn(imaplib.IMAP4.abort):
    """Somebody spoke where only TLS may begin."""
