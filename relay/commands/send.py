"""`postferry send`: a test message through an account, by the same way as any other, and watched until it is sent."""

from __future__ import annotations

import argparse
import html
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from relay.commands.account import found
from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import USAGE, Stop, describe, paint, seconds
from relay.commands.watch import Watch, judge

if TYPE_CHECKING:
    from relay.core.model import Submission
    from relay.core.tenant import Account
    from relay.settings import Settings
    from relay.store.overview import Progress

PATIENCE = 60.0
INGRESS = "cli"
TEXT = """\
This is a test message.

It went through account {account} of Postferry on {host} at {time}.
"""
HTML = """\
<html><body><p>This is a test message.</p>
<p>It went through account <b>{account}</b> of Postferry on {host} at {time}.</p></body></html>
"""


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_send),
        "Hand over a test message and watch it: queued, leased, sent, with the upstream's own words. It goes the way "
        "of all mail, so the worker and the scheduler must be running. Exit 0: sent to all; 75: it waits and will be "
        "tried again; 69: it failed for good.",
        "send sandbox --to you@example.com",
        "send shop --to you@example.com --from orders@shop.example --subject 'Does it arrive?'",
        "send shop --to you@example.com --file message.eml",
    )
    parser.add_argument("account", metavar="ACCOUNT", help="the account to send through")
    parser.add_argument("--to", metavar="ADDRESS", action="append", required=True, help="repeat for more recipients")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", help="default: the account's email")
    parser.add_argument("--subject", default="A test message", metavar="TEXT")
    parser.add_argument("--file", metavar="FILE", help="a whole message (RFC 5322) instead of ours; - is stdin")
    parser.add_argument("--no-track", action="store_true", help="without a pixel")
    parser.add_argument("--timeout", type=seconds, default=PATIENCE, metavar="SECONDS", help="how long to watch (60)")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


async def _send(args: argparse.Namespace) -> int:
    from relay.accept import Acceptor

    async with opened(args) as here:
        account = (await found(here.conn, args.account)).account(None)
        submission = _submission(args, account, here.settings)
        watch = Watch(quiet=args.json)
        async with here.pool() as pool:
            acceptor = Acceptor(pool, here.settings)
            try:
                accepted = await acceptor.accept(submission)
            finally:
                await acceptor.close()
        watch.say("ok", f"queued as {paint(accepted.queue_id, 'bold')}, from <{submission.sender}>")
        last = await watch.follow(here.conn, UUID(accepted.queue_id), args.timeout)
    if args.json:
        result = {"queueId": accepted.queue_id, "messageId": accepted.message_id}
        print(json.dumps({**result, "deliveries": [_facts(one) for one in last]}, indent=2))
    return judge(last, account.id, accepted.queue_id, args.timeout)


def _submission(args: argparse.Namespace, account: Account, given: Settings) -> Submission:
    from relay.commands.preview import content
    from relay.core import address, mime
    from relay.core.model import Options, Priority, Submission

    if not (args.sender or account.email):
        raise Stop(f"account {account.id} has no email to send as", "name one: --from ADDRESS", USAGE)
    sender = address.envelope(args.sender or account.email)
    recipients = tuple(address.envelope(to) for to in args.to)
    raw = content(args.file) if args.file else _test_message(args.subject, account, sender, recipients, given.hostname)
    mail = mime.tidy(raw, now=datetime.now(UTC), domain=given.hostname, unique=secrets.token_hex(16))
    options = Options(priority=Priority.HIGH, track=False if args.no_track else None)
    return Submission(account, INGRESS, sender, recipients, mail, options)


def _test_message(subject: str, account: Account, sender: str, recipients: Sequence[str], host: str) -> bytes:
    """Text and HTML, so that tracking has something to work on."""
    from relay.core.address import Mailbox
    from relay.core.compose import Draft, compose

    now = datetime.now(UTC)
    about = {"account": account.id, "host": host, "time": f"{now:%Y-%m-%d %H:%M:%S} UTC"}
    draft = Draft(
        sender=Mailbox(account.name, sender),
        to=tuple(Mailbox("", recipient) for recipient in recipients),
        subject=subject,
        text=TEXT.format(**about),
        html=HTML.format(**{name: html.escape(value) for name, value in about.items()}),
    )
    return compose(draft, now=now, domain=host, unique=secrets.token_hex(16))


def _facts(one: Progress) -> dict[str, Any]:
    """As an outbox entry speaks of a delivery."""
    return {"recipient": one.recipient, "state": one.state, "attempts": one.attempts, "reply": one.reply}
