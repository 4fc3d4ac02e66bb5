"""`postferry account`: look at accounts, try their servers, pause and resume them; `add` is next door."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relay.commands import enrolment
from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import DATA, UNAVAILABLE, Stop, choose, clean, describe, mark, paint, paste, table

if TYPE_CHECKING:
    from relay.commands.installation import Installation
    from relay.core.tenant import Account, AccountState, Imap, Mailgun, Smtp
    from relay.core.verification import Step
    from relay.store.accounts import Row
    from relay.store.db import Connection
    from relay.verify import Report

SLOW = 0.5  # seconds of a step that are worth a word


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Accounts: tenants, each with a mail server of its own to send through."
    commands = choose(parser)
    enrolment.configure(commands.add_parser("add", help="take an account on, or change one with --update"))
    _list_arguments(commands.add_parser("list", help="the accounts there are"))
    one = {
        "show": (
            _show,
            "Show an account's settings and how its servers fare, in JSON as the API gives them; secrets are masked.",
        ),
        "verify": (
            _verify,
            "Try an account's servers step by step, upstream and mailbox, up to their logins. No mail is sent.",
        ),
        "pause": (_pause, "Hold an account's mail. What it hands over is still accepted, and goes when it is resumed."),
        "resume": (_resume, "Let a paused account send again, or one whose login was refused try at once."),
    }
    for name, (work, text) in one.items():
        leaf = commands.add_parser(name, help=text.partition(".")[0][0].lower() + text.partition(".")[0][1:])
        describe(leaf, asynchronous(work), text, f"account {name} shop")
        leaf.add_argument("account", metavar="ID")
        if name == "show":
            leaf.add_argument("--json", action="store_true", help="as JSON, which it is in any case")
        if name == "pause":
            leaf.add_argument(
                "--reason", default="paused by an operator", metavar="TEXT", help="shown where its mail waits"
            )


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_list),
        "List accounts: their state, the upstream they send through, and why they are held.",
        "account list",
        "account list shop --json",
    )
    parser.add_argument("query", nargs="?", default="", metavar="TEXT", help="those with TEXT in id, name or email")
    parser.add_argument("--json", action="store_true", help="as JSON")


async def _list(args: argparse.Namespace) -> int:
    from relay import accountview
    from relay.core.options import spelled

    async with opened(args) as here:
        rows = await _all(here.conn, args.query)
    if args.json:
        print(json.dumps([accountview.shown(row) for row in rows], indent=2, default=spelled))
    elif rows:
        print(table(("id", "state", "email", "upstream", "reason"), [_line(row) for row in rows]))
    else:
        print(
            "no accounts" + (f" with {args.query!r}" if args.query else " yet; add one: postferry account add --help")
        )
    return 0


async def _show(args: argparse.Namespace) -> int:
    from relay import accountview
    from relay.core.options import spelled

    async with opened(args) as here:
        facts = await accountview.whole(here.conn, await found(here.conn, args.account))
    print(json.dumps(facts, indent=2, default=spelled))
    return 0


async def _verify(args: argparse.Namespace) -> int:
    async with opened(args) as here:
        account = (await found(here.conn, args.account)).account(here.vault)
        upstream = account.upstream
        if upstream is None and account.imap is None:
            raise Stop(
                f"account {account.id} has no upstream yet",
                f"set one: {paste(f'account add {account.id} --update --smtp-host HOST')}",
            )
        report = await _tried(account, here)
    for server, result in ((upstream, report.smtp), (account.imap, report.imap)):
        if server is not None and result is not None:
            print(_named(server))
            _print_steps(result.steps)
    return 0 if report.success else UNAVAILABLE


async def _tried(account: Account, here: Installation) -> Report:
    from relay import trial
    from relay.tokens import Tokens

    async with here.pool() as pool:
        tokens = Tokens(pool, here.settings, here.vault)
        try:
            return await trial.try_account(account, tokens, here.settings)
        finally:
            await tokens.close()


def _named(server: Smtp | Mailgun | Imap) -> str:
    from relay.core.tenant import Imap, Mailgun

    if isinstance(server, Mailgun):
        return f"Mailgun {server.domain} at {server.label}"
    return f"{'IMAP' if isinstance(server, Imap) else 'SMTP'} {server.host}:{server.port} ({server.tls})"


def _print_steps(steps: Sequence[Step]) -> None:
    for step in steps:
        seconds = f"{step.seconds:.2f} s" if step.seconds >= SLOW else ""
        print(f"  {mark(step.state)} {step.name:<9} {clean(' '.join(filter(None, (step.detail, seconds))))}".rstrip())
        if step.advice:
            print(paint(f"    {clean(step.advice)}", "yellow"))


async def _pause(args: argparse.Namespace) -> int:
    from relay.core.tenant import AccountState

    await _move(args, AccountState.PAUSED, args.reason)
    print(f"account {args.account} is paused; its mail waits until: {paste(f'account resume {args.account}')}")
    return 0


async def _resume(args: argparse.Namespace) -> int:
    from relay.core.tenant import AccountState

    await _move(args, AccountState.ACTIVE, "")
    print(f"account {args.account} sends again")
    return 0


async def _move(args: argparse.Namespace, state: AccountState, reason: str) -> None:
    from relay.store import accounts, turns

    async with opened(args) as here:
        await found(here.conn, args.account)
        await accounts.set_state(here.conn, args.account, state, reason)
        await turns.wake(here.conn, [args.account])


async def found(conn: Connection, id: str) -> Row:
    """The account's row, or the end of the command."""
    from relay.store import accounts

    row = await accounts.find(conn, id)
    if row is None:
        raise Stop(f"there is no account {id!r}", f"see: {paste('account list')}", DATA)
    return row


async def _all(conn: Connection, query: str) -> Sequence[Row]:
    from relay.store import accounts

    rows: list[Row] = []
    while batch := (await accounts.page(conn, query=query, after=rows[-1].id if rows else "", size=1000))[1]:
        rows += batch
    return rows


def _line(row: Row) -> tuple[str, ...]:
    upstream = row.account(None).upstream
    return row.id, str(row.state), row.email or "-", upstream.label if upstream else "(none yet)", row.reason
