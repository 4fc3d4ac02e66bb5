"""Is this installation well? Each check says what it saw and, where somebody should act, what to do."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import urlsplit

from relay.core import certificate
from relay.core.errors import StoreAway
from relay.core.vault import Vault, VaultError
from relay.net import resp
from relay.settings import Settings
from relay.store import overview
from relay.store.db import Connection

OLDEST_SERVER = 140000
CLOCK_SECONDS = 2.0  # more than this, and "now" is another moment on each host
STUCK_SECONDS = 120.0  # mail that may go and is not taken


class Finding(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    finding: Finding
    detail: str
    advice: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, Finding.OK, detail)


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
    if missing := await overview.unapplied(conn):
        yield Check("schema", Finding.FAILED, f"lacks {', '.join(missing)}", "run: postferry migrate")
        return
    yield ok("schema", "up to date")
    yield await secrets(conn, settings)
    async for check in mail(conn):
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
        shown = ", ".join(health.refused[:5]) + (" ..." if len(health.refused) > 5 else "")
        yield Check(
            "accounts", Finding.WARNING, f"upstream refuses the login of {shown}", "see: postferry account verify ID"
        )
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


def ports(settings: Settings) -> Iterator[Check]:
    """Whether each door is open, and ours."""
    if settings.smtp_port:
        yield door("smtp", settings.smtp_host, settings.smtp_port, b"", b"220 ")
    if settings.smtps_port and settings.tls_certificate:
        yield door("smtps", settings.smtp_host, settings.smtps_port, None, b"")
    yield door("api", settings.api_host, settings.api_port, b"GET /health HTTP/1.0\r\n\r\n", b"HTTP/1.")


def door(role: str, host: str, port: int, say: bytes | None, expect: bytes) -> Check:
    """`say` is sent, and the answer must start with `expect`; None: that somebody listens is all we ask."""
    name, command = f"port {port}", "smtp" if role == "smtps" else role
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    try:
        with socket.create_connection((near, port), timeout=3) as line:
            if say:
                line.sendall(say)
            heard = line.recv(200) if say is not None else b""
    except ConnectionRefusedError:
        return Check(
            name,
            Finding.SKIPPED,
            f"nobody listens on {host}",
            f"start it, if this host should have it: postferry {command}",
        )
    except OSError as error:
        return Check(
            name,
            Finding.WARNING,
            f"{role} on {host}: {error}",
            "is another program on this port, or is the role overloaded?",
        )
    if not heard.startswith(expect):
        return Check(
            name,
            Finding.FAILED,
            f"another program answers: {heard[:40]!r}",
            f"stop it, or choose another POSTFERRY_{role.upper()}_PORT",
        )
    return ok(name, f"{role} answers on {host}")


def tls(settings: Settings, now: datetime) -> Iterator[Check]:
    """The certificate of the SMTP ingress. That it fits its key was checked with the settings."""
    if settings.tls_certificate is None:
        yield Check(
            "certificate",
            Finding.SKIPPED,
            "none: no STARTTLS, no implicit TLS",
            "set POSTFERRY_TLS_CERTIFICATE and _KEY to take mail from other hosts",
        )
        return
    found = certificate.read(settings.tls_certificate.read_bytes())
    faults = found.faults(now, settings.hostname)
    if faults:
        expired = found.not_after <= now
        yield Check(
            "certificate",
            Finding.FAILED if expired else Finding.WARNING,
            "; ".join(faults),
            "renew it, then restart the smtp role",
        )
    else:
        yield ok("certificate", f"fits its key, for {', '.join(found.names)}, until {found.not_after:%Y-%m-%d}")


def exposure(settings: Settings) -> Iterator[Check]:
    """What the world can reach, and should or should not."""
    host = urlsplit(settings.public_url).hostname or ""
    if _loopback(host):
        yield Check(
            "public URL",
            Finding.WARNING,
            f"{settings.public_url} is this machine alone",
            "set POSTFERRY_PUBLIC_URL to what recipients can reach, or no open is ever seen",
        )
    else:
        yield ok("public URL", settings.public_url)
    wide = [
        str(network)
        for network in settings.trusted_networks
        if not network.is_loopback and network.num_addresses > 65536
    ]
    if wide and not _loopback(settings.smtp_host):
        yield Check(
            "open relay",
            Finding.FAILED,
            f"anybody in {', '.join(wide)} may send without a login",
            "narrow POSTFERRY_TRUSTED_NETWORKS",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
