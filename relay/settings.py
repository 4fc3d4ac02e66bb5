"""One frozen Settings, read from the environment (and `.env`), validated whole: every fault is listed at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay import keypair
from relay.parsers import (
    Network,
    file,
    flag,
    folder,
    keys,
    networks,
    one_of,
    our_name,
    postgres,
    redis,
    seconds,
    text,
    waits,
    web,
    whole,
)

PREFIX = "POSTFERRY_"
BARE = frozenset({"DATABASE_URL", "REDIS_URL"})  # the names every platform already sets


class SettingsError(Exception):
    """The settings are wrong; `faults` has one line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _option(default: str, parse: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    return dataclasses.field(metadata={"default": default, "parse": parse, "meaning": meaning, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can set. Field `smtp_port` is `POSTFERRY_SMTP_PORT` in the environment."""

    database_url: str = _option("", postgres, "PostgreSQL, e.g. postgresql://user:pass@host/db", secret=True)
    redis_url: str = _option("", redis, "Redis or Valkey, e.g. redis://host:6379/0", secret=True)
    secret_keys: tuple[str, ...] = _option("", keys, "keys that encrypt secrets at rest, newest first", secret=True)
    public_url: str = _option("http://127.0.0.1:3000", web, "where recipients reach us: pixels and links")
    hostname: str = _option("", our_name, "our name in greetings and Message-IDs; this host's name when empty")

    smtp_host: str = _option("127.0.0.1", text, "address the SMTP ingress listens on")
    smtp_port: int = _option("2525", whole(0, 65535), "port of the SMTP ingress; 0 = off")
    smtps_port: int = _option("4650", whole(0, 65535), "port with implicit TLS (needs a certificate); 0 = off")
    smtp_processes: int = _option("1", whole(1, 64), "SMTP ingress processes on one port; one fills a core")
    smtp_connections: int = _option(
        "500", whole(1, 100_000), "connections one SMTP process takes before it answers 421"
    )
    smtp_timeout: float = _option("300", seconds(0.1, 3600), "seconds an SMTP client may be silent")
    smtp_data_timeout: float = _option(
        "600", seconds(0.1, 86400), "seconds a client may take for one message's content"
    )
    smtp_auth_delay: float = _option(
        "1", seconds(0, 60), "seconds a refused AUTH waits for its answer, doubled each time"
    )
    tls_certificate: Path | None = _option("", file, "certificate chain (PEM) for STARTTLS and port 4650")
    tls_key: Path | None = _option("", file, "its private key (PEM)")
    trusted_networks: tuple[Network, ...] = _option(
        "127.0.0.0/8 ::1/128", networks, "clients that may send without AUTH, naming their account with X-Account"
    )
    proxy_networks: tuple[Network, ...] = _option(
        "", networks, "load balancers: PROXY protocol at SMTP, X-Forwarded-For at HTTP"
    )
    max_message_size: int = _option("26214400", whole(1024, 1 << 30), "bytes of the largest message taken")
    max_recipients: int = _option("1000", whole(1, 100_000), "recipients of one message")

    api_host: str = _option("127.0.0.1", text, "address the HTTP API listens on")
    api_port: int = _option("3000", whole(1, 65535), "port of the HTTP API")
    api_processes: int = _option("1", whole(1, 64), "API processes on one port")
    api_connections: int = _option("2000", whole(1, 100_000), "connections one API process takes before it answers 503")

    worker_processes: int = _option("1", whole(1, 64), "worker processes")
    worker_leases: int = _option("200", whole(1, 10_000), "leases one worker process has in hand at once")
    lease_seconds: float = _option(
        "60", seconds(1, 3600), "a lease whose worker is not heard of for so long is recovered"
    )
    lease_size: int = _option("50", whole(1, 1000), "deliveries of one account leased at once")
    lease_budget: float = _option(
        "15", seconds(0.1, 3600), "seconds after which a lease gives back what it did not reach"
    )
    tick_seconds: float = _option("0.5", seconds(0.01, 60), "the scheduler's pulse when nothing wakes it")

    connect_timeout: float = _option("30", seconds(0.05, 600), "seconds to reach an upstream, TLS and login each")
    command_timeout: float = _option("60", seconds(0.05, 600), "seconds to wait for the reply to an SMTP command")
    data_timeout: float = _option("300", seconds(0.05, 3600), "seconds to wait for the reply to the final dot")
    idle_seconds: float = _option("20", seconds(0, 600), "seconds an unused upstream connection is kept")
    allow_networks: tuple[Network, ...] = _option(
        "", networks, "private networks that upstreams, mailboxes and webhooks may live in"
    )

    sandbox_port: int = _option(
        "0", whole(0, 65535), "loopback port of the sink that the upstream host `sandbox` means; 0 = none"
    )

    delivery_attempts: int = _option("80", whole(1, 1000), "tries of one delivery before it is a dead letter")
    delivery_lifetime: float = _option("259200", seconds(60, 31536000), "seconds a delivery may be tried for (3 days)")
    retry_first: float = _option("60", seconds(0.05, 86400), "seconds until the first retry")
    retry_most: float = _option("3600", seconds(0.05, 86400), "most seconds between two tries")
    upstream_retry: float = _option(
        "5", seconds(0.05, 3600), "seconds until an unreachable upstream is tried again, doubled up to 60 times it"
    )
    refused_retry: float = _option(
        "900", seconds(0.1, 86400), "seconds between probes of an account whose login is refused"
    )
    verify_accounts: int = _option(
        "8", whole(0, 1000), "accounts one notify process verifies at once, after a change; 0 = only when asked"
    )
    verify_retries: tuple[float, ...] = _option(
        "300 900 3600 14400 43200 86400", waits, "seconds until faulty servers of accounts are looked at again"
    )
    mailbox_connections: int = _option(
        "100", whole(0, 10_000), "mailboxes one mailbox process is connected to at once; 0 = none is touched"
    )
    mailbox_timeout: float = _option("60", seconds(0.05, 600), "seconds to wait for a mailbox's answer")
    mailbox_poll: float = _option(
        "60", seconds(0.05, 86400), "seconds between two looks at a mailbox whose account has just sent mail"
    )
    mailbox_poll_most: float = _option(
        "900", seconds(0.05, 86400), "seconds between two looks at a mailbox whose account has not sent mail for days"
    )
    copy_looks: tuple[float, ...] = _option(
        "15 60 180", waits, "seconds after which a provider's late copies of sent mail are looked for again"
    )
    copy_retries: tuple[float, ...] = _option(
        "30 120 600 3600 10800 21600 43200 86400", waits, "seconds to wait before each further try of a Sent copy"
    )
    google_client_id: str = _option("", text, "OAuth2 application at Google, for accounts without one of their own")
    google_client_secret: str = _option("", text, "its secret", secret=True)
    microsoft_client_id: str = _option(
        "", text, "OAuth2 application at Microsoft, for accounts without one of their own"
    )
    microsoft_client_secret: str = _option("", text, "its secret", secret=True)
    retention_days: int = _option("30", whole(0, 36500), "days that finished mail is kept; 0 = for ever")

    webhook_timeout: float = _option("10", seconds(0.05, 60), "seconds an endpoint may take to answer")
    webhook_retries: tuple[float, ...] = _option(
        "5 300 1800 7200 18000 36000 36000", waits, "seconds to wait before each further try of a webhook"
    )
    webhook_failing: float = _option(
        "432000", seconds(0.05, 31536000), "seconds of failing alone after which an endpoint is disabled (5 days)"
    )
    webhook_connections: int = _option("200", whole(1, 10_000), "webhooks one notify process posts at once")
    webhook_days: int = _option("30", whole(1, 3650), "days that events, webhook log and replay are kept")

    open_addresses: str = _option(
        "whole", one_of("whole", "truncated", "none"), "how openers' addresses are stored: whole, truncated or none"
    )
    open_days: int = _option(
        "90", whole(0, 36500), "days after which openers' addresses and user agents are erased; 0 = with the mail"
    )
    open_dns: bool = _option("false", flag, "look up the names of openers' addresses to tell scanners from people")
    geo_file: Path | None = _option(
        "", file, ".mmdb file with the places of addresses; empty: that of the extra `geo`, if installed"
    )
    statistics_days: int = _option(
        "400", whole(0, 36500), "days that statistics outlive the mail they are about; 0 = for ever"
    )

    metrics_dir: Path | None = _option("", folder, "folder that the processes of this host share their metrics in")
    metrics_port: int = _option("0", whole(0, 65535), "port where a role without the API shows its metrics; 0 = off")
    log_level: str = _option("info", one_of("debug", "info", "warning", "error"), "debug, info, warning or error")
    log_format: str = _option("auto", one_of("json", "text", "auto"), "json, text, or auto: text on a terminal")

    @property
    def applications(self) -> dict[str, tuple[str, str]]:
        """Id and secret of the installation's OAuth2 application at each provider that it has one with."""
        google = (self.google_client_id, self.google_client_secret)
        microsoft = (self.microsoft_client_id, self.microsoft_client_secret)
        return {name: pair for name, pair in (("google", google), ("microsoft", microsoft)) if all(pair)}


def read(environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
    """This process's settings; `.env` fills what the environment leaves out. Raises SettingsError with every fault."""
    given = {**(env_file(dotenv) if dotenv else {}), **(os.environ if environ is None else environ)}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for option in dataclasses.fields(Settings):
        name = variable(option.name)
        value = given.get(name, "") or option.metadata["default"]
        try:
            values[option.name] = option.metadata["parse"](value)
        except ValueError as fault:
            faults.append(f"{name} {fault}" + ("" if option.metadata["secret"] else f" (is {value!r})"))
    known = {variable(option.name) for option in dataclasses.fields(Settings)}
    faults += [
        f"{name} is not a setting (see postferry doctor)"
        for name in given
        if name.startswith(PREFIX) and name not in known
    ]
    if not faults:
        faults += _together(values)
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return name.upper() if name.upper() in BARE else PREFIX + name.upper()


def _together(values: Mapping[str, Any]) -> list[str]:
    """Faults that show only when settings are seen side by side."""
    faults = []
    if bool(values["tls_certificate"]) != bool(values["tls_key"]):
        faults.append("POSTFERRY_TLS_CERTIFICATE and POSTFERRY_TLS_KEY go together: set both or neither")
    elif values["tls_certificate"] and (fault := keypair.fault(values["tls_certificate"], values["tls_key"])):
        faults.append(f"POSTFERRY_TLS_CERTIFICATE and POSTFERRY_TLS_KEY: {fault}")
    doors: dict[tuple[str, int], str] = {}
    for name, host in (("smtp", "smtp"), ("smtps", "smtp"), ("api", "api"), ("metrics", "api")):
        port, said = values[f"{name}_port"], variable(f"{name}_port")
        if not port or (name == "smtps" and not values["tls_certificate"]):
            continue
        # Sockets of ours may share a port (SO_REUSEPORT): each role would get some of the other's clients, untold.
        if (first := doors.setdefault((values[f"{host}_host"], port), said)) != said:
            faults.append(f"{first} and {said} are both {port}: each wants a port of its own")
    if values["lease_budget"] >= values["lease_seconds"]:
        faults.append("POSTFERRY_LEASE_BUDGET must be less than POSTFERRY_LEASE_SECONDS")
    if 1.1 * sum(values["webhook_retries"]) >= 86_400 * values["webhook_days"]:  # a wait may be a tenth longer
        faults.append("POSTFERRY_WEBHOOK_DAYS end before the last of POSTFERRY_WEBHOOK_RETRIES: it would not be made")
    for name in ("GOOGLE", "MICROSOFT"):
        if bool(values[f"{name.lower()}_client_id"]) != bool(values[f"{name.lower()}_client_secret"]):
            both = f"POSTFERRY_{name}_CLIENT_ID and POSTFERRY_{name}_CLIENT_SECRET"
            faults.append(f"{both} go together: set both or neither")
    return faults


def env_file(path: Path) -> dict[str, str]:
    """KEY=value lines; # comments; quotes around a value are dropped. Empty without it; SettingsError for no text."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError:
        return {}  # the environment may say all there is to say; `unreadable` tells whoever misses something
    except UnicodeDecodeError:
        raise SettingsError([f"{path} is no text in UTF-8"]) from None
    found = {}
    for line in lines:
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("\"'")
    return found


def unreadable(path: Path) -> str:
    """Why what this file sets is not known; "" for one that can be read, or is not there."""
    try:
        path.open().close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as fault:
        return f"{path} cannot be read: {fault.strerror}; let the user that Postferry runs as read it"
    return ""
