"""`postferry account add`: an account's settings from arguments or from JSON as in the API."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.commands import password
from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import DATA, USAGE, Stop, describe, mark, note, paste

if TYPE_CHECKING:
    from relay.store.accounts import Row

TLS: dict[str, dict[str, Any]] = {
    "implicit": {"secure": True},
    "starttls": {"secure": False, "tls": {"mode": "required"}},
    "opportunistic": {"secure": False, "tls": {"mode": "opportunistic"}},
    "none": {"secure": False, "tls": {"mode": "none"}},
}
REGIONS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}  # as in core/tenant.py, loaded later


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        _add,
        "Take an account on. Its password is read from a file, from stdin, from SMTP_PASSWORD (of a mailbox with "
        "another one: IMAP_PASSWORD; a key: MAILGUN_API_KEY) in the environment, or asked for; never from the command "
        "line, which every user of the machine can see. With a mailbox it gets Sent copies, bounces and replies.",
        "account add shop --email shop@example.com --smtp-host smtp.example.com --smtp-user shop@example.com",
        "account add shop --update --imap-host imap.example.com --imap-user shop@example.com",
        "account add shop --smtp-host smtp.example.com --smtp-user shop --smtp-password-file /run/secrets/shop",
        "account add shop --mailgun-domain mg.example.com --mailgun-region eu --mailgun-key-file /run/secrets/mailgun",
        "account add shop --update --per-hour 200",
        "account add shop --json account.json  # as in POST /v1/account",
    )
    parser.usage = f"{parser.prog} ID [--update] [its settings]"
    parser.add_argument("account", metavar="ID", help="letters, digits and . _ @ + = : -")
    parser.add_argument(
        "--update", action="store_true", help="change an account that is there; the rest stays as it is"
    )
    parser.add_argument("--json", metavar="FILE", help="settings as in POST /v1/account; - is stdin")
    parser.add_argument("--name", metavar="TEXT", help="how people call it")
    parser.add_argument(
        "--email", metavar="ADDRESS", help="mail from this envelope sender belongs to it, where no other has it too"
    )
    upstream = parser.add_argument_group("its upstream")
    upstream.add_argument("--smtp-host", metavar="HOST")
    upstream.add_argument("--smtp-port", metavar="PORT", type=int, help="default: 465 with implicit TLS, else 587")
    upstream.add_argument("--smtp-tls", choices=TLS, help="default: implicit on port 465, else STARTTLS when offered")
    upstream.add_argument("--smtp-user", metavar="NAME")
    upstream.add_argument("--smtp-password-file", metavar="FILE", help="- is stdin")
    mailbox = parser.add_argument_group("its mailbox")
    mailbox.add_argument("--imap-host", metavar="HOST")
    mailbox.add_argument("--imap-port", metavar="PORT", type=int, help="default: 993, else 143 without implicit TLS")
    mailbox.add_argument("--imap-tls", choices=TLS, help="default: implicit on port 993, else STARTTLS when offered")
    mailbox.add_argument("--imap-user", metavar="NAME", help="default: --smtp-user, with the same password")
    mailbox.add_argument("--imap-password-file", metavar="FILE", help="- is stdin")
    mailgun = parser.add_argument_group("or Mailgun instead")
    mailgun.add_argument("--mailgun-domain", metavar="DOMAIN", help="its sending domain")
    mailgun.add_argument("--mailgun-region", choices=REGIONS, help="where the domain lives (default us)")
    mailgun.add_argument("--mailgun-key-file", metavar="FILE", help="the domain's sending key; - is stdin")
    limits = parser.add_argument_group("its limits")
    for window in ("minute", "hour", "day"):
        limits.add_argument(f"--per-{window}", metavar="N", type=int, help=f"most deliveries in any {window}")
    limits.add_argument("--connections", metavar="N", type=int, help="most connections at once (default 5)")
    limits.add_argument("--messages-per-connection", metavar="N", type=int, help="then a new one is made (default 100)")
    tracking = parser.add_mutually_exclusive_group()
    tracking.add_argument("--track", action="store_true", default=None, help="a pixel in its HTML mail (default)")
    tracking.add_argument("--no-track", dest="track", action="store_false", help="no pixels")


def _add(args: argparse.Namespace) -> int:
    """What is asked for is read before the event loop begins: in it, Ctrl-C would wait for the end of the line."""
    from relay.core.account import check_id

    with _told(args.account):
        check_id(args.account)
    config = _from_json(args.json) if args.json else _from_arguments(args)
    return asynchronous(lambda args: _save(args, config))(args)


async def _save(args: argparse.Namespace, config: dict[str, Any]) -> int:
    from relay import enrol
    from relay.store import accounts

    async with opened(args) as here:
        there = await accounts.find(here.conn, args.account) is not None
        if there != args.update:
            raise _wrong(args.account, there)
        with _told(args.account):
            async with here.pool() as pool:
                await enrol.save(pool, here.vault, here.settings, args.account, config)
        saved = await accounts.find(here.conn, args.account)
        shared = await enrol.shared(here.conn, args.account) if "email" in config else ""
    print(f"{mark('ok')} account {args.account} is {'changed' if there else 'added'}")
    if shared:
        note(f"  {mark('warning', sys.stderr)} {shared}")
    for line in _next(args, saved) if saved else ():
        note(f"  {line}")
    return 0


@contextmanager
def _told(account: str) -> Iterator[None]:
    """What cannot be saved ends the command with every reason."""
    from relay.core.account import Faulty

    try:
        yield
    except Faulty as faulty:
        faults = "\n".join(f"{key} {message}" for key, message in faulty.faults)
        raise Stop(f"account {account!r} cannot be saved like this:", faults, DATA) from None


def _next(args: argparse.Namespace, row: Row) -> Iterator[str]:
    """What an account still lacks, and what may be done with it as it is."""
    account, fields, sign = row.account(None), row.fields(None), mark("warning", sys.stderr)
    for server, name in (("smtp", "upstream"), ("imap", "mailbox")):
        secrets = {f"{server}.auth.pass", f"{server}.auth.accessToken", "oauth2.provider"}
        if fields.get(f"{server}.auth.user") and not secrets & fields.keys():
            ways = f"--{server}-password-file FILE, or {server.upper()}_PASSWORD in the environment"
            yield f"{sign} its {name} has a user and no password; give it one with --update and {ways}"
    if account.upstream is None:
        add = paste(f"account add {row.id} --update --smtp-host HOST")
        yield f"{sign} it has no upstream to send through yet: {add}"
    if account.upstream or account.imap:
        yield f"try its servers:   {paste(f'account verify {row.id}')}"
    if account.upstream:
        yield f"send through it:   {paste(f'send {row.id} --to you@example.com')}"


def _wrong(account: str, there: bool) -> Stop:
    if there:
        advice = f"to change it: {paste(f'account add {account} --update')} ..."
        return Stop(f"there is an account {account!r} already", advice)
    return Stop(f"there is no account {account!r} to update", "to make it, leave --update out")


def _from_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The API's JSON, from what was given; what was not given is left out."""
    mailgun = _mailgun(args)
    smtp = {} if mailgun else _smtp(args)
    limits = {
        "perMinute": args.per_minute,
        "perHour": args.per_hour,
        "perDay": args.per_day,
        "connections": args.connections,
        "messagesPerConnection": args.messages_per_connection,
    }
    tracking = _given(opens=args.track)
    parts = {"smtp": smtp or None, "mailgun": mailgun or None, "imap": _imap(args, smtp) or None}
    parts |= {"limits": _given(**limits) or None, "tracking": tracking or None}
    return _given(name=args.name, email=args.email, **parts)


def _smtp(args: argparse.Namespace) -> dict[str, Any]:
    wanted = args.smtp_user and f"Password of {args.smtp_user} at {args.smtp_host or 'its upstream'}"
    tls = args.smtp_tls or ("implicit" if args.smtp_port == 465 else None)
    secret = password.read(args.smtp_password_file, wanted=wanted or "")
    return {
        **(TLS[tls] if tls else {}),
        **_given(host=args.smtp_host, port=args.smtp_port),
        **_given(auth=_given(**{"user": args.smtp_user, "pass": secret}) or None),
    }


def _imap(args: argparse.Namespace, smtp: dict[str, Any]) -> dict[str, Any]:
    """Nothing of it is asked for, or read from the environment, where none of its arguments is given."""
    given = (args.imap_host, args.imap_port, args.imap_tls, args.imap_user, args.imap_password_file)
    if not any(given):
        return {}
    if [args.smtp_password_file, args.imap_password_file] == ["-", "-"]:
        raise Stop("stdin has one password: read the other from a file", "", USAGE)
    user = args.imap_user or args.smtp_user
    same = smtp.get("auth", {}).get("pass") if user == args.smtp_user else None
    wanted = user and not same and f"Password of {user} at {args.imap_host or 'its mailbox'}"
    secret = password.read(args.imap_password_file, wanted=wanted or "", variable="IMAP_PASSWORD") or same
    return {
        **TLS.get(args.imap_tls, {}),
        **_given(host=args.imap_host, port=args.imap_port),
        **_given(auth=_given(**{"user": user, "pass": secret}) or None),
    }


def _mailgun(args: argparse.Namespace) -> dict[str, Any]:
    """Nothing of it is asked for, or read from the environment, where none of its arguments is given."""
    given = (args.mailgun_domain, args.mailgun_region, args.mailgun_key_file)
    if not any(given):
        return {}
    if args.smtp_host or args.smtp_user:
        raise Stop("an account has one upstream: --smtp-... or --mailgun-..., not both", "", USAGE)
    wanted = args.mailgun_domain and f"Sending key of {args.mailgun_domain}"
    key = password.read(args.mailgun_key_file, wanted=wanted or "", variable="MAILGUN_API_KEY")
    return _given(domain=args.mailgun_domain, baseUrl=REGIONS.get(args.mailgun_region), apiKey=key)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _from_json(file: str) -> dict[str, Any]:
    try:
        config = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
    except OSError as error:
        raise Stop(f"cannot read {file}: {error.strerror}", "", USAGE) from None
    except ValueError as error:
        raise Stop(f"{file} is not JSON: {error}", "", DATA) from None
    if not isinstance(config, dict):
        raise Stop(f"{file} must hold one JSON object", "", DATA)
    config.pop("account", None)  # the argument names it
    return config
