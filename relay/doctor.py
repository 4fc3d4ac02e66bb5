"""Is this installation well? Each check says what it saw and, where somebody should act, what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from relay.core.errors import StoreAway
from relay.core.finding import Check, Finding, ok
from relay.core.vault import Vault, VaultError
from relay.doors import exposure, ports, tls
from relay.net import resp
from relay.settings import Settings
from relay.store import mailboxes, overview, schema, sentcopies
from relay.store.db import Connection

OLDEST_SERVER = 140000
CLOCK_SECONDS = 2.0  # more than this, and "now" is another moment on each host
STUCK_SECONDS = 120.0  # mail that may go and is not taken
LATE_SECONDS = 600.0  # a mailbox, or a copy, that nobody looks at


async def examine(settings: Settings) -> AsyncIterator[Check]:
    """Every check, in the order in which things depend on each other."""
    if not settings.database_url:
        advice = "start everything with `postferry up`, or set DATABASE_URL=postgresql://user@host/database"
        yield Check("database", Finding.FAILED, "DATABASE_URL is not set", advice)
    else:
        try:
            async with overview.connected(settings.database_url) as conn:
                async for check in _store(conn, settings):
                    yield check
        except StoreAway as away:
            advice = "is it running, and does DATABASE_URL name it? (with `postferry up`: is that running?)"
            yield Check("database", Finding.FAILED, _first_line(away), advice)
    yield broker(settings)
    for check in (*ports(settings), *tls(settings, datetime.now(UTC)), *exposure(settings)):
        yield check


async def _store(conn: Connection, settings: Settings) -> AsyncIterator[Check]:
    before = datetime.now(UTC)
    server = await overview.server(conn)
    after = datetime.now(UTC)
    if server.number < OLDEST_SERVER:
        yield Check("database", Finding.FAILED, f"PostgreSQL {server.version}", "it must be version 14 or newer")
    else:
        yield ok(
            "database", f"PostgreSQL {server.version}, answers in {(after - before).total_seconds() * 1000:.1f} ms"
        )
    yield clock((server.clock - (before + (after - before) / 2)).total_seconds())
    if missing := await schema.unapplied(conn):
        yield Check("schema", Finding.FAILED, f"lacks {', '.join(missing)}", "run: postferry migrate")
        return
    yield ok("schema", "up to date")
    yield await secrets(conn, settings)
    async for check in mail(conn):
        yield check
    async for check in boxes(conn, settings):
        yield check


def clock(ahead: float) -> Check:
    """`ahead`: seconds that PostgreSQL's clock is before ours."""
    if abs(ahead) <= CLOCK_SECONDS:
        return ok("clock", f"{abs(ahead) * 1000:.0f} ms from PostgreSQL's")
    detail = f"{abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} PostgreSQL's"
    return Check(
        "clock",
        Finding.WARNING,
        detail,
        "synchronise both hosts (chrony, systemd-timesyncd): mail goes by PostgreSQL's",
    )


async def secrets(conn: Connection, settings: Settings) -> Check:
    """Whether every stored secret opens with the keys there are."""
    stored = await overview.sealed(conn)
    if not settings.secret_keys:
        finding = Finding.FAILED if stored else Finding.WARNING
        advice = "make a key with `postferry doctor --new-key` and set POSTFERRY_SECRET_KEYS on every host"
        return Check("secrets", finding, f"no key; {len(stored)} secrets are stored", advice)
    vault, lost = Vault(settings.secret_keys), []
    for account, field, sealed in stored:
        try:
            vault.open(account, field, sealed)
        except VaultError:
            lost.append(f"{account} ({field})")
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        advice = (
            "put the key that sealed them back into POSTFERRY_SECRET_KEYS, or give accounts their passwords again and "
            "webhooks new secrets and headers"
        )
        return Check("secrets", Finding.FAILED, f"{len(lost)} of {len(stored)} do not open: {shown}", advice)
    keys = len(settings.secret_keys)
    return ok("secrets", f"all {len(stored)} open ({keys} key{'s' * (keys != 1)})")


async def mail(conn: Connection) -> AsyncIterator[Check]:
    """Whether mail moves."""
    health = await overview.health(conn)
    if health.refused:
        detail = f"upstream refuses the login of {_some(health.refused)}"
        yield Check("accounts", Finding.WARNING, detail, "see: postferry account verify ID")
    else:
        yield ok("accounts", f"{health.accounts}; no upstream refuses a login")
    if health.oldest_due is not None and health.oldest_due > STUCK_SECONDS:
        advice = "are a scheduler and a worker running? if so: is a limit reached? see: postferry queue"
        yield Check("queue", Finding.WARNING, f"mail has been due for {health.oldest_due:.0f} s", advice)
    elif health.expired_leases:
        advice = "a scheduler recovers them: is one running?"
        yield Check("queue", Finding.WARNING, f"{health.expired_leases} leases of lost workers", advice)
    else:
        yield ok("queue", "nothing is stuck")


async def boxes(conn: Connection, settings: Settings) -> AsyncIterator[Check]:
    """Whether mailboxes are looked at, let us in, and get their Sent copies."""
    watched, _, overdue = await mailboxes.counts(conn)
    waiting, late = await sentcopies.waiting(conn)
    advice = "is a mailbox role running? start one: postferry mailbox"
    if not settings.mailbox_connections:
        advice = "POSTFERRY_MAILBOX_CONNECTIONS is 0: no mailbox is touched"
    if overdue > LATE_SECONDS:
        detail = f"{watched} watched; one has waited {overdue:.0f} s for its look"
        yield Check("mailboxes", Finding.WARNING, detail, advice)
    elif failing := await mailboxes.failing(conn):
        detail = f"{watched} watched; the last look failed at {_some(failing)}"
        yield Check("mailboxes", Finding.WARNING, detail, "bounces wait there; see: postferry account verify ID")
    else:
        yield ok("mailboxes", f"{watched} watched")
    if late > LATE_SECONDS:
        yield Check("Sent copies", Finding.WARNING, f"{waiting} wait, one for {late:.0f} s", advice)
    else:
        yield ok("Sent copies", f"{waiting} to write or to look at again" if waiting else "none waits")


def broker(settings: Settings) -> Check:
    """Redis answers, and does not throw work away when it is full."""
    if not settings.redis_url:
        return Check(
            "broker", Finding.FAILED, "REDIS_URL is not set", "set REDIS_URL=redis://host:6379/0, or use `postferry up`"
        )
    try:
        resp.ask(settings.redis_url, "PING")
        about = dict(line.split(":", 1) for line in resp.ask(settings.redis_url, "INFO").splitlines() if ":" in line)
    except resp.Away as away:
        return Check(
            "broker",
            Finding.FAILED,
            str(away),
            "is it running, and does REDIS_URL name it? Mail is accepted meanwhile, and waits",
        )
    name = "Valkey" if "valkey_version" in about else "Redis"
    detail = f"{name} {about.get('valkey_version') or about.get('redis_version', '')}".strip()
    policy = about.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and about.get("maxmemory", "0") != "0":
        return Check(
            "broker",
            Finding.WARNING,
            f"{detail}, maxmemory-policy {policy}",
            "set it to noeviction: work that is thrown away is delayed",
        )
    return ok("broker", detail)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
