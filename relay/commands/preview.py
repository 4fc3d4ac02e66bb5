"""`postferry preview`: exactly the bytes that upstream would receive for one recipient."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from relay.commands.installation import read
from relay.commands.terminal import DATA, USAGE, Stop, describe
from relay.core import address, mime, pixel, splice
from relay.core.errors import Refused
from relay.core.model import Submission
from relay.core.options import read_options
from relay.core.tenant import Account, AccountState, Limits, Smtp
from relay.prepare import prepare

DELIVERY = 0  # no delivery has this number


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        _preview,
        "Write to stdout exactly the bytes that upstream would receive for this recipient: CRLF line ends, before "
        "dot-stuffing, with a pixel that counts for nothing. LF line ends of the file are read as CRLF. What the SMTP "
        "ingress would refuse ends with exit 65 and its reason. Nothing is stored or sent; no server is needed.",
        "preview message.eml --to you@example.com",
        "preview message.eml --to you@example.com --no-track | diff - <(unix2dos < message.eml)",
    )
    parser.add_argument("file", metavar="FILE", help="a message as it would be submitted; - is stdin")
    parser.add_argument("--to", metavar="ADDRESS", required=True, help="the recipient")
    parser.add_argument("--no-track", action="store_true", help="without a pixel")


def _preview(args: argparse.Namespace) -> int:
    given = read(args)
    raw, now = content(args.file), datetime.now(UTC)
    try:
        mail = mime.tidy(raw, now=now, domain=given.hostname, unique=secrets.token_hex(16))
        options = read_options(mail.controls, now)
        submission = Submission(
            account=_account(mail.sender),
            ingress="smtp",
            sender=mail.sender,
            recipients=(address.envelope(args.to),),
            mail=mail,
            options=replace(options, track=False) if args.no_track else options,
        )
        prepared = prepare(submission, given, now, UUID(int=0))
    except Refused as refused:
        raise Stop(refused.reply(), "", DATA) from None
    out = sys.stdout.buffer
    if prepared.splice is None:
        out.write(prepared.content)
    else:
        # A key of the moment: the pixel is as long as a real one, and no server takes it for one.
        tag = pixel.tag(given.public_url, pixel.sign((secrets.token_bytes(32),), DELIVERY))
        out.writelines(splice.render(prepared.content, prepared.splice, tag))
    out.flush()
    return 0


def content(file: str) -> bytes:
    """The message as it would come over SMTP: CRLF line ends, the last line closed."""
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Stop(f"cannot read {file}: {error.strerror}", "", USAGE) from None
    raw = re.sub(rb"(?<!\r)\n", b"\r\n", raw)
    return raw if raw.endswith(b"\r\n") or not raw else raw + b"\r\n"


def _account(email: str) -> Account:
    """Any account that tracks opens: whose it is changes no byte."""
    return Account("preview", "", email, AccountState.ACTIVE, Smtp("localhost", 25), Limits(), track_opens=True)
