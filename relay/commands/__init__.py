"""The commands of `postferry`, one file each: what it reads, one call into the plot, what it shows.

This file is the map. It stays light: the file of a command is imported when that command is asked for.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    name: str
    module: str  # in relay.commands: `configure(parser)` declares the arguments and sets `run`
    group: str
    summary: str


COMMANDS = (
    Command("up", "run", "Start", "everything on this machine, with its own PostgreSQL and Valkey"),
    Command("smtp", "run", "Start", "the SMTP ingress alone"),
    Command("api", "run", "Start", "the HTTP API alone"),
    Command("worker", "run", "Start", "workers alone: they send"),
    Command("scheduler", "run", "Start", "a scheduler alone: it decides when"),
    Command("notify", "run", "Start", "a notifier alone: it posts webhooks and alerts, and keeps the books"),
    Command("mailbox", "run", "Start", "the mailboxes alone: bounces and complaints, and the Sent copies"),
    Command("account", "account", "Set up", "add, list, show, verify, pause and resume accounts"),
    Command("token", "token", "Set up", "create, list and revoke API tokens"),
    Command("webhook", "webhook", "Set up", "tell endpoints what happens: add, list, show, test, log, replay"),
    Command("migrate", "migrate", "Set up", "bring the database to this version's schema"),
    Command("keys", "keys", "Set up", "seal every stored secret again with the newest key"),
    Command("send", "send", "Look", "send a test message through an account and watch it go"),
    Command("queue", "queue", "Look", "what waits, for whom, since when and why"),
    Command("preview", "preview", "Look", "the exact bytes that upstream would receive"),
    Command("statistics", "statistics", "Look", "hold the sums of statistics against the rows, and mend them"),
    Command("report", "report", "Look", "what a bounce or complaint says, as one JSON line a file"),
    Command("doctor", "doctor", "Look", "check this installation, and list every setting"),
)

EXAMPLES = """\
  postferry up                                  start here: no settings needed
  postferry send sandbox --to you@example.com   a message through the local sink
  postferry account add shop --email shop@example.com \\
      --smtp-host smtp.example.com --smtp-user shop@example.com
  postferry account verify shop                 does its mail server let us in?
  postferry queue                               is anything stuck?
"""


def find(name: str) -> Command | None:
    return next((command for command in COMMANDS if command.name == name), None)
