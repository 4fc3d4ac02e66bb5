"""`postferry token`: the tokens that applications present to the HTTP API and to the SMTP ingress."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import DATA, Stop, choose, describe, note, paste, table
from relay.core.options import spelled

if TYPE_CHECKING:
    from relay.store.tokens import Token

SCOPES = ("api", "smtp", "metrics", "*")  # as in store/tokens.py, which would load the database driver


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Tokens for the HTTP API (Authorization: Bearer ...) and the SMTP ingress (as AUTH password)."
    commands = choose(parser)
    _create_arguments(commands.add_parser("create", help="make a token; it is shown once"))
    listing = commands.add_parser("list", help="the tokens there are, without their text")
    describe(
        listing,
        asynchronous(_list),
        "List the tokens: what each may do, for which account. Their text is not stored and cannot be shown.",
        "token list",
        "token list --json | jq '.[].id'",
    )
    listing.add_argument("--json", action="store_true", help="as JSON")
    revoking = commands.add_parser("revoke", help="end a token")
    describe(
        revoking,
        asynchronous(_revoke),
        "End a token by the number that `token list` shows. Whoever uses it is refused within a second or so.",
        "token revoke 3",
    )
    revoking.add_argument("id", type=int, metavar="NUMBER")


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_create),
        "Make a token. Its text goes to stdout, once: only a hash of it is stored.",
        "token create --scope smtp --account shop --description 'web shop'",
        "token create --scope api > api.token",
    )
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        required=True,
        help="what it may do; repeat for more (* = everything)",
    )
    parser.add_argument("--account", metavar="ID", help="for this account alone (default: all accounts)")
    parser.add_argument("--description", default="", metavar="TEXT", help="a reminder of who uses it")


async def _create(args: argparse.Namespace) -> int:
    from relay.store import tokens

    async with opened(args) as here:
        made = await tokens.add(here.conn, args.scope, args.account, args.description)
    if made is None:
        raise Stop(f"there is no account {args.account!r}", f"see: {paste('account list')}", DATA)
    token, text = made
    print(text)
    whom = f"account {args.account}" if args.account else "all accounts"
    note(f"token {token.id} ({' '.join(args.scope)}, {whom}): keep it now, it is not shown again")
    return 0


async def _list(args: argparse.Namespace) -> int:
    from relay.store import tokens

    found: list[Token] = []
    async with opened(args) as here:
        while batch := (await tokens.page(here.conn, after=found[-1].id if found else 0))[1]:
            found += batch
    if args.json:
        print(json.dumps([_facts(token) for token in found], indent=2))
    elif found:
        print(table(("id", "scopes", "account", "created", "description"), [_row(token) for token in found]))
    else:
        print(f"no tokens yet; make one: {paste('token create --scope api')}")
    return 0


def _facts(token: Token) -> dict[str, object]:
    """As GET /v1/tokens tells them."""
    created = spelled(token.created_at) if token.created_at else None
    about = {"account": token.account, "description": token.description, "created": created}
    return {"id": token.id, "scopes": list(token.scopes), **about}


def _row(token: Token) -> tuple[str, ...]:
    created = f"{token.created_at:%Y-%m-%d %H:%M}" if token.created_at else "-"
    return str(token.id), " ".join(token.scopes), token.account or "(all)", created, token.description


async def _revoke(args: argparse.Namespace) -> int:
    from relay.store import tokens

    async with opened(args) as here:
        if not await tokens.revoke(here.conn, args.id):
            raise Stop(f"there is no token {args.id}", f"see: {paste('token list')}", DATA)
    print(f"token {args.id} is revoked")
    return 0
