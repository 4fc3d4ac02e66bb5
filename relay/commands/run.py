"""Start everything, or one role. A role's process takes the place of this one, so that imports keep pointing down."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from relay.commands.terminal import DEFAULT_DATA, describe

ROLES = {
    "smtp": ("relay.smtpd", "Take mail on SMTP. Needs DATABASE_URL; several may run on one port or on many hosts."),
    "api": ("api", "Serve the HTTP API, pixels, /health and /metrics. Needs DATABASE_URL."),
    "worker": (
        "workers",
        "Send what the scheduler hands out. Needs DATABASE_URL, REDIS_URL and POSTFERRY_SECRET_KEYS.",
    ),
    "scheduler": ("workers.scheduler", "Lease due mail to the workers, fairly. Needs DATABASE_URL and REDIS_URL."),
    "notify": (
        "workers.notify",
        "Post webhooks and alerts, and keep what statistics are read from in order. Needs DATABASE_URL and "
        "POSTFERRY_SECRET_KEYS; several may run.",
    ),
    "mailbox": (
        "workers.mailbox",
        "Watch accounts' mailboxes for bounces and complaints, and keep one copy of what was sent in each Sent folder. "
        "Needs DATABASE_URL and POSTFERRY_SECRET_KEYS; several may run.",
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    name = parser.prog.split()[-1]
    if name == "up":
        describe(
            parser,
            _up,
            "Start everything on this machine and stay in the foreground; Ctrl-C stops all of it. PostgreSQL and "
            "Valkey come along, unless DATABASE_URL and REDIS_URL name yours. The first start makes an admin token, "
            "shown once and kept in DIR/admin.token, and an account `sandbox` whose mail becomes files in DIR/sandbox.",
            "up",
            "up --data /var/lib/postferry",
        )
        return
    module, text = ROLES[name]
    describe(
        parser,
        _become,
        text,
        f"{name}  # beside a running `postferry up`: one more, its servers",
        f"{name} --data /var/lib/postferry",
    )
    parser.set_defaults(module=module, data=None)  # None: nobody gave it


def _up(args: argparse.Namespace) -> int:
    from relay import up

    return up.run(Path(args.data)) or 0


def _become(args: argparse.Namespace) -> int:
    """The environment decides, then `.env`, which the role reads; that of the `postferry up` in DIR fills the gaps.

    Unless somebody names a database and no DIR: a role of systemd's or in a container belongs to no folder that happens
    to lie where it starts.
    """
    from relay import settings
    from relay.commands.installation import known

    environ, dotenv = dict(os.environ), settings.env_file(Path(".env"))
    if args.data or not (dotenv | environ).get("DATABASE_URL"):
        filling = known(Path(args.data or DEFAULT_DATA))
        environ = {name: text for name, text in filling.items() if name not in dotenv} | environ
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", args.module], environ)  # noqa: S606 - no shell is the point
