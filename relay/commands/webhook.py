"""`postferry webhook`: where events are posted to; the log, replays and tests are next door."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from relay.commands import webhook_log
from relay.commands.account import found as account
from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import USAGE, Stop, choose, describe, mark, note, paste, table
from relay.commands.webhook_log import spelled, told

if TYPE_CHECKING:
    from relay.store.endpoints import Endpoint


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Webhooks: endpoints that are posted what happens to mail, what they answered, and replays."
    commands = choose(parser)
    listing = commands.add_parser("list", help="the endpoints there are, and how they fare")
    describe(
        listing,
        asynchronous(_list),
        "List the endpoints: whose events each gets, whether it is told them, and what it last did wrong.",
        "webhook list",
        "webhook list --account shop --json | jq '.[].url'",
    )
    listing.add_argument("--account", metavar="ID", help="those of this account alone")
    listing.add_argument("--json", action="store_true", help="as JSON")
    _add_arguments(commands.add_parser("add", help="make an endpoint; its secret is shown once"))
    one = {
        "show": (_show, "Show an endpoint in JSON as the API gives it, and how much waits for it; secrets are masked."),
        "enable": (_enable, "Post to an endpoint again that was disabled or fails. What waits for it goes at once."),
        "remove": (_remove, "Remove an endpoint with its log and with what waits for it."),
    }
    for name, (work, text) in one.items():
        leaf = commands.add_parser(name, help=text.partition(".")[0][0].lower() + text.partition(".")[0][1:])
        describe(leaf, asynchronous(work), text, f"webhook {name} 3")
        leaf.add_argument("id", type=int, metavar="NUMBER", help="as `webhook list` shows it")
        if name == "show":
            leaf.add_argument("--json", action="store_true", help="as JSON, which it is in any case")
    webhook_log.configure(commands)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_add),
        "Make an endpoint. Its secret, which verifies what it is posted, goes to stdout, once. Headers and a secret of "
        "your own are read from files, never from the command line, which every user of the machine can see.",
        "webhook add https://crm.example.com/hooks/mail --account shop",
        "webhook add https://crm.example.com/hooks --event messageFailed --event trackOpen > hook.secret",
        "webhook add https://crm.example.com/hooks --headers headers.txt    # lines such as  Authorization: Bearer ...",
    )
    parser.add_argument("url", metavar="URL", help="http or https; private hosts need POSTFERRY_ALLOW_NETWORKS")
    parser.add_argument("--account", metavar="ID", help="this account's events alone (default: those of all)")
    parser.add_argument("--event", action="append", metavar="NAME", help="only this one; repeat for more")
    parser.add_argument("--headers", metavar="FILE", help="headers that each post has: Name: value; - is stdin")
    parser.add_argument("--secret-file", metavar="FILE", help="a secret that you bring (whsec_...); - is stdin")
    parser.add_argument("--description", default="", metavar="TEXT", help="a reminder of what it is for")


async def _list(args: argparse.Namespace) -> int:
    from relay import subscribe
    from relay.store import endpoints

    found: list[Endpoint] = []
    async with opened(args) as here:
        if args.account:
            await account(here.conn, args.account)
        vault = here.vault
        while batch := (
            await endpoints.page(here.conn, vault, account=args.account, after=found[-1].id if found else 0, size=1000)
        )[1]:
            found += batch
    if args.json:
        print(json.dumps([subscribe.shown(one) for one in found], indent=2, default=spelled))
    elif found:
        print(table(("id", "account", "state", "events", "url", "reason"), [_row(one) for one in found]))
    else:
        print(f"no webhooks yet; make one: {paste('webhook add https://...')}")
    return 0


async def _add(args: argparse.Namespace) -> int:
    from relay import subscribe

    given = {"url": args.url, "events": args.event, "description": args.description}
    headers = {"headers": _headers(args.headers)} if args.headers else {}
    secret = _read(args.secret_file).strip() if args.secret_file else ""
    async with opened(args) as here:
        if args.account:
            await account(here.conn, args.account)
        with told():
            one = await subscribe.add(here.conn, here.vault, here.settings, args.account, given | headers, secret)
    if args.secret_file:
        print(f"{mark('ok')} webhook {one.id} is made, with your secret")
        return 0
    print(one.secret)
    whom = f"account {one.account}" if one.account else "all accounts"
    note(f"webhook {one.id} ({whom}): keep its secret now, it is not shown again")
    note(f"  try it:  {paste(f'webhook test {one.id}')}")
    return 0


async def _show(args: argparse.Namespace) -> int:
    from relay import subscribe
    from relay.store import endpoints

    async with opened(args) as here:
        with told():
            one = await subscribe.found(here.conn, here.vault, args.id, None)
        waiting, due = await endpoints.waiting(here.conn, args.id)
    print(json.dumps(subscribe.shown(one) | {"waiting": waiting, "nextTry": due}, indent=2, default=spelled))
    return 0


async def _enable(args: argparse.Namespace) -> int:
    from relay import subscribe

    async with opened(args) as here:
        with told():
            await subscribe.enable(here.conn, here.vault, args.id)
    print(f"{mark('ok')} webhook {args.id} is posted to")
    return 0


async def _remove(args: argparse.Namespace) -> int:
    from relay import subscribe

    async with opened(args) as here:
        with told():
            await subscribe.remove(here.conn, here.vault, args.id, None)
    print(f"webhook {args.id} is removed")
    return 0


def _headers(file: str) -> dict[str, str]:
    lines = [line for line in _read(file).splitlines() if line.strip()]
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return dict(pairs)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise Stop(f"cannot read {file}: {error.strerror}", "", USAGE) from None
    except UnicodeDecodeError:
        raise Stop(f"cannot read {file}: it is no text in UTF-8", "", USAGE) from None


def _row(one: Endpoint) -> tuple[str, ...]:
    state = f"failing ({one.failures})" if one.active and one.failures else one.state
    return str(one.id), one.account or "(all)", state, " ".join(one.events) or "(all)", one.url, one.reason
