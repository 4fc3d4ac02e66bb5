"""This host as others see it: whether its doors are open and ours, its certificate, and what the world can reach."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlsplit

from relay.core import certificate
from relay.core.finding import Check, Finding, ok
from relay.listen import LOOPBACK
from relay.settings import Settings


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
    near = LOOPBACK.get(host, host)
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
