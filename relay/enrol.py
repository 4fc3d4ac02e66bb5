"""Take an account on, change it, or let it go with all of its mail."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any
from zoneinfo import available_timezones

from relay.core import account as settings_of
from relay.core.account import Rules
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, parting, retention

NAMED = 5  # accounts of the same email that are named


@functools.cache
def zones() -> frozenset[str]:
    """The time zones that this host knows by a name which means the same elsewhere: PostgreSQL has no `localtime`."""
    return frozenset((available_timezones() | {"UTC"}) - {"localtime"})


def rules(settings: Settings) -> Rules:
    """What this installation allows in an account's settings."""
    return Rules(
        allowed=settings.allow_networks,
        sandbox=bool(settings.sandbox_port),
        zones=zones(),
        applications=frozenset(settings.applications),
        kept_days=settings.retention_days,
    )


async def save(
    pool: db.Pool, vault: Vault, settings: Settings, id: str, given: Mapping[str, Any], *, make: bool = True
) -> bool:
    """Merge `given` (the API's JSON, nested) into the account, or make it. True: it is new.

    Raises account.Faulty with every fault; then nothing was changed. What is left out stays as it is, null removes.
    Without `make`, an account that is not there is a LookupError.
    """
    settings_of.check_id(id)
    async with db.connection(pool) as conn:
        return await accounts.save(
            conn, vault, id, lambda old: settings_of.change(old, given, rules(settings)), make=make
        )


async def shared(conn: db.Connection, id: str) -> str:
    """What to say of an account whose email another one has too; "" where none has.

    They may: the SMTP ingress then asks for more than the envelope sender.
    """
    row = await accounts.find(conn, id)
    others = [one.id for one in await accounts.by_email(conn, None, row.email) if one.id != id] if row else []
    if row is None or not others:
        return ""
    named = f"account{'s' * (len(others) > 1)} {', '.join(others[:NAMED])}" + ", ..." * (len(others) > NAMED)
    return f"{row.email} is the email of {named} too: mail from it needs a login or X-Account now, else it is refused"


async def delete(pool: db.Pool, id: str) -> bool:
    """Remove the account, its tokens and its mail: whoever is given the same id later sees nothing of it.

    The mail goes first and piece by piece, so that a delete that was cut short can be asked for again.
    """
    async with db.connection(pool) as conn:
        if await accounts.find(conn, id) is None:
            return False
        while await retention.forget_mail(conn, id, parting.AT_ONCE):
            pass
        while await retention.forget_recipients(conn, id, parting.AT_ONCE):
            pass
        while await parting.forget_events(conn, id, parting.AT_ONCE):
            pass
        return await parting.delete(conn, id)
