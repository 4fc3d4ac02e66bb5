"""The points at which a role may die, in the words of the design; each is a function of ours and a side of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """`target` is `module:name` or `module:Class.name` of what the role calls there; `after`: it had returned."""

    name: str
    role: str
    target: str
    after: bool = False
    by: str = "smtp"  # how the mail is handed over
    needs: str = "mail"  # what makes the role come there: mail, open, webhook, copy, bounce


MAILBOX = ("copy", "bounce")  # what needs a mailbox server
APPEND = "relay.net.imap:Mailbox.append"

POINTS = (
    Point("accept: before the commit", "smtp", "relay.store.messages:_write"),
    Point("accept: after the commit, before the 250", "smtp", "relay.store.messages:insert", after=True),
    Point("accept over HTTP: before the commit", "api", "relay.store.messages:_write", by="http"),
    Point("accept over HTTP: after the commit, before the 200", "api", "relay.store.messages:insert", True, "http"),
    Point("schedule: before the lease", "scheduler", "relay.store.turns:grant"),
    Point("schedule: in the lease's database transaction", "scheduler", "relay.store.turns:grant", after=True),
    Point("schedule: after the lease, before it is enqueued", "scheduler", "workers.broker:enqueue"),
    Point("schedule: after it is enqueued", "scheduler", "workers.broker:enqueue", after=True),
    Point("deliver: taken from the broker, before the lease is begun", "worker", "relay.store.leases:start"),
    Point("deliver: the lease is begun, before the connection", "worker", "relay.net.smtp:connect"),
    Point("deliver: connected, before MAIL", "worker", "relay.net.transaction:Connection.transact"),
    Point("deliver: after DATA, before the dot", "worker", "relay.net.transaction:final_dot"),
    Point("deliver: after the dot, before the reply", "worker", "tests.matrix.role:dotted", after=True),
    Point("deliver: after the reply, before the commit", "worker", "relay.record:Recorder.record"),
    Point("deliver: as the group is committed, before its statement", "worker", "relay.store.outcomes:commit"),
    Point("deliver: after the commit", "worker", "relay.store.outcomes:commit", after=True),
    Point("deliver: before the lease is given back", "worker", "relay.store.leases:release"),
    Point("webhook: claimed", "notify", "relay.store.postings:claim", after=True, needs="webhook"),
    Point("webhook: before it is posted", "notify", "relay.net.http:Poster.post", needs="webhook"),
    Point("webhook: answered, before that is stored", "notify", "relay.store.postings:settle", needs="webhook"),
    Point("webhook: stored", "notify", "relay.store.postings:settle", after=True, needs="webhook"),
    Point("open: after the GIF, before it is stored", "api", "relay.store.opens:record", needs="open"),
    Point("open: stored", "api", "relay.store.opens:record", after=True, needs="open"),
    Point("Sent copy: after the last outcome, claimed", "mailbox", "relay.store.sentcopies:claim", True, needs="copy"),
    Point("Sent copy: before it is looked for", "mailbox", "relay.copyfinder:Finder.look", needs="copy"),
    Point("Sent copy: what comes is on record, before APPEND", "mailbox", APPEND, needs="copy"),
    Point("Sent copy: after APPEND, before its place is on record", "mailbox", APPEND, True, needs="copy"),
    Point("Sent copy: before the provider's copies go", "mailbox", "relay.copyclearing:Clearing.only", needs="copy"),
    Point("Sent copy: those are marked, before EXPUNGE", "mailbox", "relay.net.imap:Mailbox.expunge", needs="copy"),
    Point("Sent copy: after EXPUNGE", "mailbox", "relay.net.imap:Mailbox.expunge", True, needs="copy"),
    Point("Sent copy: done, before that is stored", "mailbox", "relay.store.sentcopies:settle", needs="copy"),
    Point("Sent copy: stored", "mailbox", "relay.store.sentcopies:settle", True, needs="copy"),
    Point("bounce: read, before it is recorded", "mailbox", "relay.store.bounces:record", needs="bounce"),
    Point(
        "bounce: recorded, before the place in the mailbox is",
        "mailbox",
        "relay.store.bounces:record",
        True,
        needs="bounce",
    ),
)


def named(name: str) -> Point:
    return next(point for point in POINTS if point.name == name)
