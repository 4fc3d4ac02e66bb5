"""`postferry statistics`: the sums that statistics are read from, held against the rows, and made anew from them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relay.commands.installation import Installation, asynchronous, opened
from relay.commands.terminal import Stop, choose, clean, describe, note, paste

if TYPE_CHECKING:
    from relay.store.audit import Difference

DIFFERENT = 1
PATIENCE = 2.0  # s between two words on how far it is


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Statistics are read from sums that are kept with every fact: mail that was sent or failed, opens, recipients."
        " Verify holds them against the rows they are of; rebuild makes what differs anew. Mail may flow meanwhile."
    )
    commands = choose(parser)
    verifying = commands.add_parser("verify", help="hold the sums against the rows; changes nothing")
    describe(
        verifying,
        asynchronous(_verify),
        "Hold the sums against the rows, account by account, and tell every difference; nothing is changed.\n"
        "Ends with 1 when there is one. What is older than the mail that is kept has no rows to be held against.",
        "statistics verify",
        "statistics verify --account shop --json | jq .column",
    )
    rebuilding = commands.add_parser("rebuild", help="make the sums anew where they differ from the rows")
    describe(
        rebuilding,
        asynchronous(_rebuild),
        "Make the sums anew from the rows, wherever they differ, for the time whose mail is still kept; older sums stay"
        " as they are. With --account, the sums of all accounts together are left alone.",
        "statistics rebuild",
        "statistics rebuild --account shop",
    )
    for one in (verifying, rebuilding):
        one.add_argument("--account", metavar="ID", help="of this account alone (default: all, and all together)")
        one.add_argument("--json", action="store_true", help="each difference as a line of JSON")


async def _verify(args: argparse.Namespace) -> int:
    async with opened(args) as here:
        found, accounts = await _examine(here, args, rebuild=False)
    if found:
        note(f"{_differences(found)}; mend them: {paste('statistics rebuild')}")
    elif not args.json:
        print(f"the sums of {_accounts(accounts)} are what the rows say")
    return DIFFERENT if found else 0


async def _rebuild(args: argparse.Namespace) -> int:
    async with opened(args) as here:
        found, accounts = await _examine(here, args, rebuild=True)
    if not args.json:
        done = f"{_differences(found)} mended" if found else "nothing to mend"
        print(f"{done}: the sums of {_accounts(accounts)} are what the rows say")
    return 0


async def _examine(here: Installation, args: argparse.Namespace, *, rebuild: bool) -> tuple[int, int]:
    """Tells every difference as it is found: how many there were, and how many accounts were looked at."""
    from relay import books
    from relay.store import audit

    if args.account and args.account not in await audit.accounts(here.conn):
        raise Stop(f"there is no account {args.account!r}", f"see: {paste('account list')}")
    found, accounts, told = 0, 0, time.monotonic()
    async for one in books.examine(here.conn, args.account, rebuild=rebuild):
        for difference in one.differences:
            print(json.dumps(_facts(difference)) if args.json else _line(difference))
        found += len(one.differences)
        accounts += one.account != books.EVERYBODY
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            sys.stdout.flush()
            note(f"{one.number:,} of {one.of:,} accounts, {_differences(found)} so far")
    return found, accounts


def _line(one: Difference) -> str:
    row = " ".join(_shown(part) for part in one.row)
    account = one.account or "(all accounts)"
    return clean(
        f"{account}  {one.table}  {row}  {one.column}: {_shown(one.kept)}, the rows say {_shown(one.expected)}"
    )


def _facts(one: Difference) -> dict[str, Any]:
    return {
        "account": one.account or None,
        "table": one.table,
        "row": [_plain(part) for part in one.row],
        "column": one.column,
        "kept": _plain(one.kept),
        "rows": _plain(one.expected),
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, (str, int, dict)) or value is None else int(value)


def _shown(value: Any) -> str:
    match value:
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}".replace(":00.000000Z", "Z")
        case None | "":
            return "-"
        case dict():
            return json.dumps(value)
        case _:
            return str(value)


def _differences(number: int) -> str:
    return f"{number:,} difference{'s' * (number != 1)}"


def _accounts(number: int) -> str:
    return f"{number:,} account{'s' * (number != 1)}"
