"""Which copies may come twice: those of which nobody could know whether they had arrived. Pure.

A connection hands over its next mail only when the outcome of the last one is stored. So a mail is certain once the
next one's content begins on its connection (its envelope says nothing: that rides behind the last dot), and until then
it is in doubt when something strikes its host that can part the two: the end of a worker, of PostgreSQL, of a line to
either, or a stand-still for longer than a lease. What cannot (all the rest: schedulers, Redis, doors, webhooks) puts
nothing in doubt, and a copy beyond one is then a broken promise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from tests.chaos.ledger import Taken

SOON = 1.0  # s; what a host had begun to say may be heard that much later


@dataclass
class Mail:
    """One mail as upstream saw it; all times in s. `host`: who said that it sends."""

    host: str
    account: str
    began: float  # when its content did, once that came
    recipients: list[str] = field(default_factory=list)
    at: float | None = None  # when the final dot came: it was taken
    told: bool = True  # upstream answered that it took it
    next: float | None = None  # when the next one's content began on its connection, or that ended


@dataclass(frozen=True)
class Strike:
    """From when to when something was wrong that can leave these hosts in doubt. None: all of them."""

    hosts: Collection[str] | None
    begin: float
    end: float

    def parts(self, mail: Mail) -> bool:
        """Whether the mail was neither over when it began, nor begun when it was over."""
        if self.hosts is not None and mail.host not in self.hosts:
            return False
        return any(
            mail.began <= moment + SOON and (mail.next is None or mail.next >= moment)
            for moment in (self.begin, self.end)
        )


def judged(mails: Iterable[Mail], strikes: Collection[Strike]) -> list[Taken]:
    """The copies that were taken, each with whether it may come again."""
    return [
        Taken(mail.account, recipient, mail.at, doubtful=not mail.told or any(one.parts(mail) for one in strikes))
        for mail in mails
        if mail.at is not None
        for recipient in mail.recipients
    ]
