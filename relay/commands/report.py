"""`postferry report`: what the reader of bounces and complaints sees in a message, one JSON line a file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from relay.commands.terminal import USAGE, complain, describe
from relay.core import letter, report
from relay.core.report import Report

UNSHOWN = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would move a terminal's cursor or turn its lines around: whoever wrote the report may have written it."""


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        _report,
        "Read mail files and tell what each reports: one JSON line a file, with its kind (bounce, complaint, "
        "auto-reply or none), the Message-ID of the original, and each recipient with action, status and the "
        "server's words. `failed` is for good; `delayed` is a warning, or a delivery given up for want of time. Only "
        "the first 1 MiB of a file is read. Nothing is stored; no server is needed.",
        "report bounce.eml",
        "report *.eml | jq -r 'select(.kind==\"bounce\") | .recipients[].recipient'",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a mail as it arrived; - is stdin")


def _report(args: argparse.Namespace) -> int:
    code = 0
    for file in args.files:
        try:
            found = shown(report.read(_content(file)))
        except OSError as error:  # the others are read all the same: one of a thousand may be gone by now
            complain(f"cannot read {file}: {error.strerror}")
            code = USAGE
            continue
        text = json.dumps({"file": file, **found}, ensure_ascii=False)
        print(UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
    return code


def shown(found: Report) -> dict[str, Any]:
    """The report as JSON."""
    told = [
        {
            "recipient": one.recipient,
            "action": one.action,
            "status": one.status,
            "diagnostic": one.diagnostic,
            "mta": one.mta,
        }
        for one in found.recipients
    ]
    return {"kind": found.kind.value, "messageId": found.message_id or None, "recipients": told}


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(letter.MOST)
    with Path(file).open("rb") as opened:
        return opened.read(letter.MOST)
