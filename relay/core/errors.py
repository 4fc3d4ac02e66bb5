"""Errors that carry a code, a public text and a private cause: the client reads the text, the log has the rest."""

from __future__ import annotations


class Refused(Exception):
    """A submission that is refused. `smtp` is the SMTP reply, `status` the HTTP one; `key` names the field."""

    def __init__(
        self, message: str, *, smtp: str = "550 5.6.0", status: int = 400, key: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.smtp, self.status, self.key, self.code = message, smtp, status, key, code

    def reply(self) -> str:
        """The SMTP reply, without its CRLF. A line break is one between its lines: what is quoted brings none along."""
        return f"{self.smtp} {self.message}".replace("\n", " ")


class StoreAway(Exception):
    """PostgreSQL cannot be reached: nothing was accepted; the sender should try again (451 4.3.0, 503)."""


class Doubtful(StoreAway):
    """It went in the middle and stays away: what was to be stored may have been."""


class Unmigrated(Exception):
    """The database has no schema of ours, or an older one than this version's. Both texts are for operators."""

    def __init__(self, message: str, advice: str = "run: postferry migrate") -> None:
        super().__init__(message)
        self.advice = advice


class MailboxAway(Exception):
    """An account's mailbox does not do as asked, now. `theirs`: its server was there and refused, or somebody must do
    something about the settings (502); else it is away, and may be back soon (503). The text is public.
    """

    def __init__(self, message: str, *, theirs: bool = False) -> None:
        super().__init__(message)
        self.message, self.theirs = message, theirs


class Conflict(Refused):
    """The same idempotency key with another body; or, with `retry_after` (s), one still in flight: temporary."""

    def __init__(self, message: str, *, code: str = "IdempotencyConflict", retry_after: int | None = None) -> None:
        smtp = "550 5.7.1" if retry_after is None else "451 4.5.0"
        super().__init__(message, smtp=smtp, status=409, key="Idempotency-Key", code=code)
        self.retry_after = retry_after
