"""`postferry keys rotate`: seal every stored secret again with the newest key, so that an old one can go."""

from __future__ import annotations

import argparse

from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import choose, describe, mark


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The keys that encrypt secrets of accounts and webhooks at rest (POSTFERRY_SECRET_KEYS, newest first)."
    )
    commands = choose(parser)
    describe(
        commands.add_parser("rotate", help="seal every secret again with the newest key"),
        asynchronous(_rotate),
        "Seal every stored secret again with the newest key. To replace a key: make one (postferry doctor --new-key), "
        "put it first in POSTFERRY_SECRET_KEYS, restart, run this, then take the old key out and restart again. "
        "Pixels are signed with a key of their time: drop an old key when opens of that time no longer matter.",
        "keys rotate",
    )


async def _rotate(args: argparse.Namespace) -> int:
    from relay.store import accounts, endpoints

    async with opened(args) as here:
        count = await accounts.reseal(here.conn, here.vault)
        hooks = await endpoints.reseal(here.conn, here.vault)
    whose = f"{count} account{'s' * (count != 1)}" + (f" and {hooks} webhook{'s' * (hooks != 1)}" if hooks else "")
    print(f"{mark('ok')} the secrets of {whose} are sealed with the newest key")
    return 0
