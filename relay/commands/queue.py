"""`postferry queue`: what waits, for whom, since when and why."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import Stop, describe, paste, span, table

if TYPE_CHECKING:
    from relay.store.overview import Waiting

HEAD = ("account", "due", "leased", "deferred", "later", "failed 24h", "oldest", "note")


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_queue),
        "Show the mail that is not finished, account by account, the one that has waited longest first.\n"
        "  due        may go now, waits for its turn\n"
        "  leased     a worker has it\n"
        "  deferred   was tried, is tried again later\n"
        "  later      asked to be sent later\n"
        "  failed     dead letters of the last 24 hours\n"
        "  oldest     how long the oldest that is due has waited",
        "queue",
        "queue shop",
        "queue --json | jq '.[] | select(.oldest_due > 60)'",
    )
    parser.add_argument("account", nargs="?", metavar="ID", help="this account alone")
    parser.add_argument("--all", action="store_true", help="accounts with nothing waiting too")
    parser.add_argument("--json", action="store_true", help="as JSON")


async def _queue(args: argparse.Namespace) -> int:
    from relay.store import overview

    async with opened(args) as here:
        found = await overview.queue(here.conn, args.account)
    if args.account and not found:
        raise Stop(f"there is no account {args.account!r}", f"see: {paste('account list')}")
    shown = found if args.all or args.account else [one for one in found if _busy(one)]
    if args.json:
        print(json.dumps([_facts(one) for one in shown], indent=2))
    elif shown:
        print(table(HEAD, [_row(one) for one in shown]))
    else:
        print(f"nothing waits ({len(found)} account{'s' * (len(found) != 1)})")
    return 0


def _busy(one: Waiting) -> bool:
    return bool(one.ready or one.leased or one.deferred or one.scheduled or one.failed or one.state == "refused")


def _row(one: Waiting) -> tuple[str, ...]:
    numbers = (one.ready, one.leased, one.deferred, one.scheduled, one.failed)
    oldest = span(one.oldest_due) if one.oldest_due is not None else ""
    return one.account, *(str(number) if number else "-" for number in numbers), oldest, why(one)


def why(one: Waiting) -> str:
    """Why mail of this account waits, in one line; empty when it just takes its turn."""
    if one.state == "paused":
        return f"paused: {one.reason}" if one.reason else "paused"
    if one.state == "refused":
        return f"login refused: {one.reason}{_again(one.resting)}"
    if one.resting is not None:
        return f"upstream in trouble: {one.reason}{_again(one.resting)}"
    for window, most, used in one.limits:
        if used >= most and one.ready:
            return f"limit reached: {used} of {most} per {window}"
    if one.deferred:
        return f"deferred: {one.last_reply}{_again(one.next_due)}"
    if one.scheduled:
        return f"next in {span(max(one.next_due or 0, 0))}"
    return ""


def _again(seconds: float | None) -> str:
    return "" if seconds is None else f" (again in {span(max(seconds, 0))})"


def _facts(one: Waiting) -> dict[str, Any]:
    return {**asdict(one), "why": why(one)}
